"""One connection that became a WebSocket: a peer's, or one that is refused."""

from __future__ import annotations

from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from meshlib_server.access.tls import PEER_NAMES, names_of

__all__ = ["GossipProtocol"]


class GossipProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, which takes the answer to a refused upgrade for none and logs an error."""

    async def run_asgi(self) -> None:
        """Run the application, which is told whose certificate the other side has shown."""
        scope = cast("dict[str, Any]", self.scope)
        scope[PEER_NAMES] = names_of(self.transport)
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        """Send what the application says; a whole answer ends the handshake."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True
