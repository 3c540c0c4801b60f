"""Without tokens: whom the pages of other sites may not speak for.

A browser on the same machine reaches a server on loopback, whoever's page it shows: such a page
could post anything. What a page cannot do is to leave out `Origin`, or to choose `Host`; and a name
of its own that it lets lead to loopback (DNS rebinding) is in `Host`.
"""

from __future__ import annotations

import urllib.parse

from starlette.types import ASGIApp, Receive, Scope, Send

from meshlib_server.addresses import is_loopback
from meshlib_server.logs import quiet_warning
from meshlib_server.problems import problem

__all__ = ["RefuseForeign"]


class RefuseForeign:
    """Answers 403 to what a foreign page sends, HTTP and WebSockets alike; pure ASGI.

    Args:
        app: what is protected.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at `Host` and `Origin`; what has neither comes from no browser."""
        if scope["type"] not in ("http", "websocket") or not _is_foreign(scope):
            await self._app(scope, receive, send)
            return
        quiet_warning("a foreign page was refused", "its Host or its Origin is not this machine")
        message = "without tokens this server answers to localhost, and to no page from elsewhere"
        await problem(403, message)(scope, receive, send)


def _is_foreign(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"host" and not _is_here(f"//{value.decode('latin-1')}"):
            return True
        if name == b"origin" and not _is_here(value.decode("latin-1")):
            return True
        if name == b"sec-fetch-site" and value == b"cross-site":
            return True
    return False


def _is_here(url: str) -> bool:
    """Tell whether a URL is one of this machine by its own names; `null` is not."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return False
    return is_loopback(host) or host.endswith(".localhost")
