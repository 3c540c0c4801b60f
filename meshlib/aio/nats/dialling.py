"""The sending side of one link over NATS.

Rule: no more is on its way than the other side has room for, so that a slow node never makes NATS
cut it off for being slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct

from meshlib.aio.nats.carrier import Carrier, Msg
from meshlib.aio.nats.settings import (
    ABORT,
    ACKNOWLEDGED,
    CLOSED,
    COUNT,
    FINISH,
    HELLO,
    PIECE,
    WELCOME,
)
from meshlib.aio.transport import LinkFailure, LinkFault, PeerRefusedError

__all__ = ["OutgoingStream"]

_LENGTH = Struct(">I")


class OutgoingStream:
    """One dialled link: a `meshlib.aio.Connection`.

    Args:
        carrier: publishes.
        inbox: the subject of the peer.
        reply: the subject that the peer answers on; `heard` is called with what comes there.
        forget: called once, when the link is over.
    """

    def __init__(
        self, carrier: Carrier, *, inbox: str, reply: str, forget: Callable[[], None]
    ) -> None:
        self._carrier = carrier
        self._inbox = inbox
        self._reply = reply
        self._forget = forget
        self._over: asyncio.Future[LinkFailure] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()
        self._is_welcome = False
        self._number = 0
        self._sent_bytes = 0
        self._acknowledged_bytes = 0
        self._window_bytes = 0

    async def open(self, hello: bytes) -> None:
        """Say hello and wait for the answer.

        Raises:
            PeerRefusedError: nobody is there, whoever is does not want this node, or NATS is away.
        """
        await self._carrier.publish(self._inbox, HELLO + hello, reply=self._reply)
        await self._wait_for(lambda: self._is_welcome)
        if self._over.done():
            failure = self._over.result()
            raise PeerRefusedError(failure.fault, failure.detail)

    def heard(self, message: Msg) -> None:
        """Take what came on the reply subject."""
        kind, rest = message.data[:1], message.data[1:]
        if not kind and message.headers:  # NATS itself: nobody has subscribed
            self.end(LinkFailure(LinkFault.ABSENT))
        elif kind == WELCOME and len(rest) == COUNT.size:
            self._is_welcome = True
            self._window_bytes = COUNT.unpack(rest)[0]
        elif kind == ACKNOWLEDGED and len(rest) == COUNT.size:
            told = COUNT.unpack(rest)[0]
            self._acknowledged_bytes = min(self._sent_bytes, max(self._acknowledged_bytes, told))
        elif kind == CLOSED:
            self.end(LinkFailure.told(rest.decode("ascii", "replace")))
        self._changed.set()

    def end(self, failure: LinkFailure) -> None:
        """Take the link for over. Idempotent."""
        if not self._over.done():
            self._over.set_result(failure)
            self._changed.set()
            self._forget()

    async def send(self, frames: Sequence[bytes]) -> None:
        """Publish frames in pieces, each once the peer has room for it; see `Connection`."""
        stream = memoryview(b"".join(p for f in frames for p in (_LENGTH.pack(len(f)), f)))
        size = self._carrier.piece_bytes_max
        for start in range(0, len(stream), size):
            piece = stream[start : start + size]
            await self._wait_for(partial(self._has_room, self._sent_bytes + len(piece)))
            if self._over.done():
                raise ConnectionResetError("the link is over")
            payload = PIECE + COUNT.pack(self._number) + piece
            self._number += 1
            self._sent_bytes += len(piece)
            try:
                await self._carrier.publish(self._inbox, payload, reply=self._reply)
            except PeerRefusedError as error:
                self.end(LinkFailure.of(error))
                raise

    async def wait_closed(self) -> None:
        """Return once the link is over; see `Connection`."""
        await asyncio.wait([self._over])

    def why_closed(self) -> LinkFailure:
        """Return what the peer, or NATS, said."""
        return self._over.result()

    async def close(self) -> None:
        """Say that nothing more comes, and wait until all of it was handed on."""
        if not self._over.done():
            await self._carrier.publish(self._inbox, FINISH, reply=self._reply)
            await self.wait_closed()

    def abort(self) -> None:
        """Drop the link at once. Idempotent."""
        if not self._over.done():
            self._carrier.post(self._inbox, ABORT, reply=self._reply)
            self.end(LinkFailure(LinkFault.CLOSED))

    def _has_room(self, due_bytes: int) -> bool:
        return due_bytes - self._acknowledged_bytes <= self._window_bytes

    async def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, or the link is over."""
        while not (condition() or self._over.done()):
            self._changed.clear()
            await self._changed.wait()
