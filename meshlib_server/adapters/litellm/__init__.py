"""The LiteLLM proxy: its limits over all replicas and workers, and routing by prefix.

terms.py    which limits a call is under, and the keys that they are counted by
metering.py a call's way: reserved before it, settled after it
routing.py  which deployment a prompt goes to
handler.py  what the proxy is given: the only file that needs LiteLLM
"""

from __future__ import annotations

from meshlib_server.adapters.litellm.handler import make_handler
from meshlib_server.adapters.litellm.metering import Metering, OverLimit
from meshlib_server.adapters.litellm.routing import DeploymentRouting
from meshlib_server.adapters.litellm.terms import CallerTerms, ModelTerms, Term, terms_of

__all__ = [
    "CallerTerms",
    "DeploymentRouting",
    "Metering",
    "ModelTerms",
    "OverLimit",
    "Term",
    "make_handler",
    "terms_of",
]
