"""One connection that became a WebSocket: a peer's, or one that is refused."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["GossipProtocol"]


class GossipProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, which takes the answer to a refused upgrade for none and logs an error."""

    async def send(self, message: Any) -> None:
        """Send what the application says; a whole answer ends the handshake."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True
