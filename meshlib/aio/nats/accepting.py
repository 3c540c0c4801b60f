"""The receiving side of all links over NATS: hellos make links, links deliver frames.

Rule: what peers can make this node keep is bounded: links, what each may send before it is read,
and what waits of all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field

from meshlib.aio.framing import FrameDecoder, TokenJudge, check_hello
from meshlib.aio.listener import ListenerConfig
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
    NatsConfig,
)
from meshlib.aio.transport import (
    LinkFault,
    QuietLog,
    Receiver,
    TransportCounters,
    refusal_word,
)
from meshlib.errors import RejectReason, RemoteError

__all__ = ["IncomingLinks"]

_logger = logging.getLogger(__name__)

_HEADER_BYTES: Final = 1 + COUNT.size


@define(slots=True, eq=False)
class _Incoming:
    """One link of a peer, by the subject that it is answered on."""

    reply: str
    heard_at: float
    decoder: FrameDecoder = field(factory=FrameDecoder)
    next_number: int = 0
    read_bytes: int = 0
    told_bytes: int = 0
    waiting: deque[bytes] = field(factory=deque)
    waiting_bytes: int = 0
    is_finished: bool = False


class IncomingLinks:
    """Takes what comes to the inbox of a node.

    Args:
        receiver: where frames go.
        carrier: answers.
        tokens: what a hello must show.
        counters: what is counted.
        granted: what is granted to peers: how many links, and how long a silent one is kept.
        config: how much each may send, and what may wait.
        is_reply: tells whether a subject is one that may be answered on.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        carrier: Carrier,
        tokens: TokenJudge,
        counters: TransportCounters,
        granted: ListenerConfig,
        config: NatsConfig,
        is_reply: Callable[[str], bool],
    ) -> None:
        self._receiver = receiver
        self._carrier = carrier
        self._tokens = tokens
        self._counters = counters
        self._granted = granted
        self._config = config
        self._is_reply = is_reply
        self._links: dict[str, _Incoming] = {}
        self._waiting_bytes = 0
        self._is_closing = False
        self._resumption: asyncio.Task[None] | None = None
        self._log = QuietLog(_logger)

    def heard(self, message: Msg) -> None:
        """Take one message to this node's inbox."""
        kind, reply, data = message.data[:1], message.reply, message.data
        if not self._is_reply(reply):
            self._counters.frames_malformed += 1
            return
        if kind == HELLO:
            self._greet(reply, data[1:])
            return
        link = self._links.get(reply)
        if link is None:
            if kind != ABORT:
                self._carrier.post(reply, CLOSED)
        elif kind == PIECE and len(data) > _HEADER_BYTES:
            self._take_piece(link, data)
        elif kind == FINISH:
            link.is_finished = True
            self._end_if_done(link)
        elif kind == ABORT:
            self._drop(link)
        else:
            self._refuse(link, "a message of no known kind")

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """End the link that a frame came on; nothing happens when it is gone."""
        link = self._links.get(sender)
        if link is not None:
            self._end(link, refusal_word(reason))

    def forget_all(self) -> None:
        """Drop every link, for nobody on it can be reached any more."""
        self._links.clear()
        self._waiting_bytes = 0

    def stop_accepting(self) -> None:
        """Refuse further links; those that were accepted stay."""
        self._is_closing = True

    async def close(self) -> None:
        """End every link, and tell their peers."""
        self._is_closing = True
        if self._resumption is not None:
            self._resumption.cancel()
            await asyncio.gather(self._resumption, return_exceptions=True)
        for link in list(self._links.values()):
            self._end(link)

    # Inside

    def _greet(self, reply: str, hello: bytes) -> None:
        try:
            check_hello(hello, self._tokens)
        except RemoteError as error:
            self._counters.hellos_refused += 1
            self._log.tell("hello refused", f"{error}, from {reply}")
            is_token = error.reason is RejectReason.IDENTITY
            self._carrier.post(
                reply, CLOSED + (LinkFault.WRONG_TOKEN.encode() if is_token else b"")
            )
            return
        self._forget_silent()
        if self._is_closing or len(self._links) >= self._granted.accepted_max:
            self._counters.connections_refused += 1
            self._carrier.post(reply, CLOSED)
            return
        self._counters.connections_accepted += 1
        link = self._links[reply] = _Incoming(reply, self._now())
        link.decoder.expect_frames()
        self._carrier.post(reply, WELCOME + COUNT.pack(self._config.window_bytes))

    def _forget_silent(self) -> None:
        """Drop links whose peers said nothing for long: their hosts may be gone."""
        since = self._now() - self._granted.silence_max_s
        for link in list(self._links.values()):
            if link.heard_at >= since:
                break  # the dict is in the order of when they were last heard
            self._drop(link)

    def _take_piece(self, link: _Incoming, data: bytes) -> None:
        number = COUNT.unpack_from(data, 1)[0]
        if number != link.next_number:
            self._log.tell("a gap", f"NATS has dropped a message of {link.reply}")
            self._end(link)
            return
        link.next_number += 1
        link.heard_at = self._now()
        self._links[link.reply] = self._links.pop(link.reply)
        size = len(data) - _HEADER_BYTES
        if link.waiting_bytes + size > self._config.window_bytes:
            self._refuse(link, "more than there was room for")
        elif self._resumption is not None or link.waiting:
            if self._waiting_bytes + size > self._config.accepted_bytes_max:
                self._log.tell("too much waits", f"the link of {link.reply} was ended")
                self._end(link)
                return
            link.waiting.append(data)
            link.waiting_bytes += size
            self._waiting_bytes += size
        elif not self._deliver(link, data):
            self._resumption = asyncio.create_task(self._go_on_when_welcome())

    def _deliver(self, link: _Incoming, data: bytes) -> bool:
        """Hand on the frames that a piece completes; return whether more are welcome."""
        is_welcome = True
        try:
            for frame in link.decoder.feed(data[_HEADER_BYTES:]):
                self._counters.frames_received += 1
                self._counters.bytes_received += len(frame)
                is_welcome &= self._receiver.frame_received(frame, link.reply)
        except RemoteError as error:
            self._refuse(link, str(error))
            return is_welcome
        link.read_bytes += len(data) - _HEADER_BYTES
        if link.read_bytes - link.told_bytes >= self._config.window_bytes // 4:
            link.told_bytes = link.read_bytes
            self._carrier.post(link.reply, ACKNOWLEDGED + COUNT.pack(link.read_bytes))
        self._end_if_done(link)
        return is_welcome

    async def _go_on_when_welcome(self) -> None:
        """Wait for room, hand on what waits, a piece of each link in turn, and again."""
        while True:
            await self._receiver.wait_for_room()
            links = [link for link in self._links.values() if link.waiting]
            if not links:
                self._resumption = None
                return
            for link in links:
                if self._links.get(link.reply) is not link or not link.waiting:
                    continue
                data = link.waiting.popleft()
                link.waiting_bytes -= len(data) - _HEADER_BYTES
                self._waiting_bytes -= len(data) - _HEADER_BYTES
                if not self._deliver(link, data):
                    break
            await asyncio.sleep(0)

    def _end_if_done(self, link: _Incoming) -> None:
        if link.is_finished and not link.waiting:
            self._end(link)

    def _refuse(self, link: _Incoming, detail: str) -> None:
        self._counters.frames_malformed += 1
        self._log.tell("malformed frame", f"{detail}, from {link.reply}")
        self._end(link)

    def _end(self, link: _Incoming, word: str = "") -> None:
        self._carrier.post(link.reply, CLOSED + word.encode())
        self._drop(link)

    def _drop(self, link: _Incoming) -> None:
        if self._links.pop(link.reply, None) is not None:
            self._waiting_bytes -= link.waiting_bytes
            link.waiting.clear()
            link.waiting_bytes = 0

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
