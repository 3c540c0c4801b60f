"""Rate limits in front of an application of one's own: the same limits, over one running node.

charges.py   what a request may be charged, and what is looked at of its answer
charging.py  decided before it is served, settled and given back when it is over
headers.py   what whoever asked is told of a decision
asgi.py      for a whole application: Starlette, FastAPI, Litestar and any other
single.py    for one route: a decorator, and a dependency of FastAPI
wsgi.py      for an application that runs in threads: Flask, Django and any other

Rule: what a request is charged is decided in `charging.py` for all of them, and what was reserved
is settled once, however the answer ends.
"""

from __future__ import annotations

from meshlib_server.middleware.asgi import RateLimitMiddleware
from meshlib_server.middleware.charges import Answer, Charge, as_told, by_header
from meshlib_server.middleware.charging import OnFailure, tell_used
from meshlib_server.middleware.headers import rate_limit_headers
from meshlib_server.middleware.single import RouteLimits
from meshlib_server.middleware.wsgi import WsgiRateLimitMiddleware

__all__ = [
    "Answer",
    "Charge",
    "OnFailure",
    "RateLimitMiddleware",
    "RouteLimits",
    "WsgiRateLimitMiddleware",
    "as_told",
    "by_header",
    "rate_limit_headers",
    "tell_used",
]
