"""Gossip over WebSockets, on the same port as the API.

Each node dials its own outgoing connection to `/mesh/gossip` with the peer token in its
`Authorization` header; an accepted connection only receives. One binary message is one frame.

Rule: the tokens are checked by `auth` before anything here runs, and what is no frame closes
the connection it came on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect

from meshlib.aio import (
    CLOSE_TIMEOUT_S,
    GOING_AWAY,
    GOSSIP_PATH,
    MESSAGE_TOO_BIG,
    POLICY_VIOLATION,
    TRY_AGAIN_LATER,
    UNSUPPORTED_DATA,
    LinkConfig,
    QuietLog,
    Receiver,
    WebSocketDialler,
    join_address,
    refusal_word,
)
from meshlib.errors import RejectReason
from meshlib.limits import ACCEPTED_CONNECTIONS_MAX
from meshlib_server.access.tls import PEER_NAMES, Tls
from meshlib_server.logs import quiet_warning
from meshlib_server.problems import problem

__all__ = ["GOSSIP_PATH", "MountedWebSockets"]


class MountedWebSockets(WebSocketDialler):
    """Carries frames over WebSockets: dials as the library does, accepts by a Starlette route.

    Implements `meshlib.aio.Transport`. Listening is the HTTP server's: this object takes the
    connections that its route is handed.

    Args:
        address: what to advertise, as `host:port`.
        token: what to present to peers; None presents nothing.
        tls: what to show to peers that are dialled, and to ask of them; None: there is no TLS.
        links: how outgoing connections are kept.
        accepted_max: connections of peers that are held at once.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None,
        tls: Tls | None = None,
        links: LinkConfig | None = None,
        accepted_max: int = ACCEPTED_CONNECTIONS_MAX,
    ) -> None:
        log = QuietLog(logging.getLogger("meshlib_server"))
        super().__init__(token=token, tls=tls, links=links, log=log)
        self._address = address
        self._accepted_max = accepted_max
        self._tls = tls
        self._accepted: dict[WebSocket, str] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def address(self) -> str:
        """Where peers reach this node, as `host:port`."""
        return self._address

    async def start(self, receiver: Receiver) -> None:
        """Deliver to `receiver` from now on.

        Raises:
            StateError: started before.
        """
        self._begin(receiver)

    async def close(self, *, drain_s: float) -> None:
        """Take no more, send what is queued for up to `drain_s` seconds, and close. Idempotent."""
        self._is_closed = True
        await self._links.close(drain_s=drain_s)
        for websocket in list(self._accepted):
            self._hang_up(websocket, GOING_AWAY)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_TIMEOUT_S)

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Close the accepted connection that a frame came on: it carried what nobody sends.

        Args:
            sender: as it was handed to the receiver; one that is gone is ignored.
            reason: told to the sender, as the reason of the closing.
        """
        for websocket, known in list(self._accepted.items()):
            if known == sender:
                self._hang_up(websocket, POLICY_VIOLATION, refusal_word(reason))

    async def endpoint(self, websocket: WebSocket) -> None:
        """Serve one accepted connection: the route of the gossip."""
        receiver = self._receiver
        if receiver is None or self._is_closed:
            await websocket.close(TRY_AGAIN_LATER)
            return
        if self._tls is not None and not self._tls.admits_peer(websocket.scope.get(PEER_NAMES)):
            self.counters.hellos_refused += 1
            quiet_warning("a peer has not shown the certificate of one", _client_of(websocket))
            await problem(403, "a peer's certificate is required")(
                websocket.scope, websocket.receive, websocket.send
            )
            return
        if len(self._accepted) >= self._accepted_max:
            self.counters.connections_refused += 1
            quiet_warning("too many gossip connections", f"{len(self._accepted):,} are open")
            await websocket.close(TRY_AGAIN_LATER)
            return
        await websocket.accept()
        self.counters.connections_accepted += 1
        sender = _client_of(websocket)
        self._accepted[websocket] = sender
        try:
            await self._receive_frames(websocket, receiver, sender)
        finally:
            del self._accepted[websocket]

    async def _receive_frames(self, websocket: WebSocket, receiver: Receiver, sender: str) -> None:
        counters = self.counters
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                if message.get("code") == MESSAGE_TOO_BIG:
                    counters.frames_malformed += 1
                    quiet_warning("frame over its limit", f"from {sender}")
                return
            frame = message.get("bytes")
            if not frame:
                counters.frames_malformed += 1
                quiet_warning("a message that is no frame", f"from {sender}")
                await websocket.close(UNSUPPORTED_DATA)
                return
            counters.frames_received += 1
            counters.bytes_received += len(frame)
            if not receiver.frame_received(frame, sender):
                await receiver.wait_for_room()

    def _hang_up(self, websocket: WebSocket, code: int, word: str = "") -> None:
        """Begin to close an accepted connection; its route then ends by itself."""

        async def close() -> None:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it may just have gone
                await websocket.close(code, word or None)

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _client_of(websocket: WebSocket) -> str:
    client = websocket.client
    return join_address(client.host, client.port) if client else "unknown"
