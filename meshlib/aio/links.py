"""Outgoing links: one to each peer, dialled when something is to be sent.

Rule: a peer that is slow, gone or hostile costs a bounded queue and one task of its own, and
nothing else waits for it. What cannot be sent is dropped and counted, never piled up: gossip
repairs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from attrs import define, field, frozen

from meshlib.aio.settings import check_not_negative, check_positive
from meshlib.aio.transport import (
    FRAME_OVERHEAD_BYTES,
    LinkFailure,
    LinkFault,
    QuietLog,
    Receiver,
    TransportCounters,
)
from meshlib.arguments import checked_types
from meshlib.errors import StateError
from meshlib.limits import FRAME_BYTES_MAX, MEMBERS_MAX, PEER_QUEUE_BYTES_MAX

__all__ = ["Connection", "Dialler", "LinkConfig", "OutgoingLinks", "bound_silence"]

_logger = logging.getLogger(__name__)
_ABORT_WAIT_S = 1.0

_RETRY_MAX_S = 1.0
"""The longest that the operating system waits before it sends again what was not acknowledged: the
shortest bound that Linux takes."""

_TCP_RTO_MAX_MS = 44
"""Linux 6.15; the module `socket` does not know it yet."""


def bound_silence(transport: asyncio.BaseTransport, stall_s: float) -> None:
    """Let the operating system break a connection whose peer acknowledges nothing, where it can.

    Without it a connection across a cut lives on for minutes, and its next try after the cut is
    as far away as the cut was long.

    It also tries again each second at the latest, with Linux 6.15 or later. Where a quarter of all
    packets is lost it would wait for up to ten: each try that is lost doubles the wait, and an
    acknowledgement that was lost and came with a later one is measured as a round trip of seconds,
    after which the first try takes seconds as well. Everything behind it waits meanwhile.

    Args:
        transport: of a TCP connection; another kind is left as it is.
        stall_s: seconds without an acknowledgement.
    """
    options = {}
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        options[socket.TCP_USER_TIMEOUT] = stall_s
    if sys.platform == "linux":
        options[_TCP_RTO_MAX_MS] = _RETRY_MAX_S
    for option, duration_s in options.items():
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, option, int(duration_s * 1000)
            )


class Connection(Protocol):
    """One open connection to a peer, as `OutgoingLinks` uses it: frames go out, none come in."""

    async def send(self, frames: Sequence[bytes]) -> None:
        """Write frames, in order; return once the connection takes more.

        Raises:
            OSError: the connection is broken.
        """

    async def wait_closed(self) -> None:
        """Return once the connection is gone, whoever closed it. Never raises."""

    async def close(self) -> None:
        """Send what was written, close, and return when that is done."""

    def abort(self) -> None:
        """Drop the connection at once. Idempotent."""

    def why_closed(self) -> LinkFailure:
        """Return why it is gone, as far as the peer or the system said; asked once it is."""
        ...


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class LinkConfig:
    """How outgoing links are kept.

    Args:
        dial_timeout_s: how long one attempt to reach a peer may take, handshakes included.
        retry_first_s: the pause after the first failed attempt; doubled by each further one,
            and shortened at random by up to a half. Nothing is sent to the peer meanwhile,
            unless it is heard from: see `OutgoingLinks.end_pause`.
        retry_max_s: the longest pause. Keep it under the engine's `heal_interval_s`, so that
            its dials of Down members find the pause over.
        stable_s: a link that lived for less counts as a failed attempt when it breaks: a peer
            that accepts and refuses is not dialled in a circle.
        idle_close_s: a link on which nothing was sent for so long is closed.
        stall_s: a link whose peer takes nothing for so long is broken.
        queue_bytes_max: what may wait for one peer, in bytes.
        busy_bytes: a link for which more waits is told busy, and free again at a quarter.
        batch_bytes_max: how much is written at once.
        peers_max: addresses kept, those being retried included.
    """

    dial_timeout_s: float = field(default=2.0, validator=check_positive)
    retry_first_s: float = field(default=0.05, validator=check_positive)
    retry_max_s: float = field(default=1.0, validator=check_positive)
    stable_s: float = field(default=1.0, validator=check_not_negative)
    idle_close_s: float = field(default=30.0, validator=check_positive)
    stall_s: float = field(default=10.0, validator=check_positive)
    queue_bytes_max: int = field(default=PEER_QUEUE_BYTES_MAX, validator=check_positive)
    busy_bytes: int = field(default=512 * 1024, validator=check_positive)
    batch_bytes_max: int = field(default=256 * 1024, validator=check_positive)
    peers_max: int = field(default=2 * MEMBERS_MAX, validator=check_positive)


@define(slots=True, eq=False)
class _Link:
    """What is known of one peer's link. It has a task exactly while it dials or is open."""

    address: str
    signal: asyncio.Event = field(factory=asyncio.Event)
    queue: deque[bytes] = field(factory=deque)
    queued_bytes: int = 0
    failures: int = 0
    retry_at: float = 0.0
    pause_kept_until: float = 0.0
    redial_kept_until: float = 0.0
    task: asyncio.Task[None] | None = None
    is_busy: bool = False

    def take(self, bytes_max: int) -> list[bytes]:
        """Take the frames of the next write: at least one, and at most `bytes_max` otherwise."""
        batch: list[bytes] = []
        size = 0
        while self.queue and (not batch or size + len(self.queue[0]) <= bytes_max):
            frame = self.queue.popleft()
            batch.append(frame)
            size += len(frame)
        self.queued_bytes -= size + len(batch) * FRAME_OVERHEAD_BYTES
        return batch

    def drop_queue(self) -> int:
        """Forget what is queued, and return how many frames that were."""
        count = len(self.queue)
        self.queue.clear()
        self.queued_bytes = 0
        return count


class OutgoingLinks:
    """Sends frames to addresses over connections that it dials, watches and closes.

    Any transport made of connections is this and a `dial` function. A frame to a peer whose
    last attempt failed moments ago is dropped; one to a peer that was never dialled, or whose
    pause is over, dials.

    Args:
        dial: makes a connection to an address, ready to be sent on, or raises OSError.
        connection_lost: called at once when a link breaks or cannot be made, with the reason;
            must not raise.
        link_busy: called when much waits for a link, and when it no longer does, which is also
            when it breaks, cannot be made or is closed: each True is followed by a False;
            likewise.
        counters: what is counted.
        config: how links are kept.
        rng: for the jitter of the pauses.
    """

    def __init__(
        self,
        dial: Callable[[str], Awaitable[Connection]],
        *,
        connection_lost: Callable[[str, LinkFailure], None],
        link_busy: Callable[[str, bool], None],
        counters: TransportCounters,
        config: LinkConfig | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config or LinkConfig()
        self.counters = counters
        self._dial = dial
        self._connection_lost = connection_lost
        self._link_busy = link_busy
        self._rng = rng or random.Random()
        self._links: dict[str, _Link] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._log = QuietLog(_logger)

    def send(self, address: str, data: bytes) -> bool:
        """Queue a frame for a peer, and see that its link is dialled. O(1); needs a running loop.

        Returns:
            False when the frame was dropped, and counted.
        """
        counters = self.counters
        if self._is_closing:
            counters.frames_dropped_closed += 1
            return False
        if not 0 < len(data) <= FRAME_BYTES_MAX:
            counters.frames_dropped_oversized += 1
            self._log.tell("frame over its limit", f"{len(data):,} bytes for {address}")
            return False
        link = self._links.get(address) or self._add(address)
        if link is None or (link.task is None and self._now() < link.retry_at):
            counters.frames_dropped_unreachable += 1
            return False
        cost = len(data) + FRAME_OVERHEAD_BYTES
        if link.queued_bytes + cost > self.config.queue_bytes_max:
            counters.frames_dropped_queue_full += 1
            return False
        link.queue.append(data)
        link.queued_bytes += cost
        if not link.is_busy and link.queued_bytes > self.config.busy_bytes:
            link.is_busy = True
            self._link_busy(address, True)
        if link.task is None:
            link.task = asyncio.get_running_loop().create_task(self._run(link))
        else:
            link.signal.set()
        return True

    def queued_bytes(self, address: str) -> int:
        """Return what waits for a peer, in bytes with the overhead of each frame."""
        link = self._links.get(address)
        return 0 if link is None else link.queued_bytes

    def is_open(self, address: str) -> bool:
        """Tell whether a link to the address is dialled or open just now."""
        link = self._links.get(address)
        return link is not None and link.task is not None

    def drop(self, address: str) -> None:
        """Give up a link that is dialled or open, and what waits on it, without a report. O(1).

        The next frame dials anew and at once. A link that is in its pause stays in it.
        """
        link = self._links.get(address)
        if link is None or link.task is None:
            return
        del self._links[address]
        self.counters.links_dropped += 1
        self.counters.frames_dropped_unreachable += link.drop_queue()
        self._tell_if_free(link)  # at once: the one that follows it may soon be busy
        link.task.cancel()
        self._ending.add(link.task)
        link.task.add_done_callback(self._ending.discard)

    def end_pause(self, address: str) -> None:
        """Let the next frame to a peer dial at once, for the peer was heard. O(1).

        Only once in `retry_max_s`: one that can send and cannot be reached is not dialled for
        each of its frames.
        """
        link, now = self._links.get(address), self._now()
        if link is not None and now >= link.pause_kept_until:
            link.retry_at = now
            link.pause_kept_until = now + self.config.retry_max_s

    async def close(self, *, drain_s: float) -> None:
        """Take nothing more, send what is queued for up to `drain_s` seconds, and close all.

        Idempotent; returns with no task and no connection left.
        """
        self._is_closing = True
        tasks: list[asyncio.Task[None]] = []
        for link in self._links.values():
            link.signal.set()
            if link.task is not None:
                tasks.append(link.task)
        if tasks and drain_s > 0:
            await asyncio.wait(tasks, timeout=drain_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)
        for link in self._links.values():  # those whose task was cancelled before it began
            self.counters.frames_dropped_closed += link.drop_queue()
            self._tell_if_free(link)
        self._links.clear()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _add(self, address: str) -> _Link | None:
        """Keep a new address; None when there are too many, all of them in use."""
        if len(self._links) >= self.config.peers_max:
            now = self._now()
            over = [k for k, link in self._links.items() if not link.task and link.retry_at <= now]
            for known in over:
                del self._links[known]
            if len(self._links) >= self.config.peers_max:
                self._log.tell("too many peers", f"a frame for {address} was dropped")
                return None
        link = self._links[address] = _Link(address)
        return link

    async def _run(self, link: _Link) -> None:
        """Dial and serve a link for as long as there is something to send."""
        try:
            while link.queue:
                connection = await self._connect(link)
                if connection is None:
                    break
                if not await self._serve(link, connection):
                    break
        except Exception:
            # A transport's own bug must not leave a link that looks open for ever.
            _logger.exception("the link to %s failed: please report this", link.address)
            self._pause(link)
            self._connection_lost(link.address, LinkFailure(LinkFault.OTHER, "a bug of this node"))
        finally:
            link.task = None
            dropped = link.drop_queue()
            if self._is_closing:
                self.counters.frames_dropped_closed += dropped
            else:  # queued by a callback after the attempt had failed
                self.counters.frames_dropped_unreachable += dropped
            if not link.failures and self._links.get(link.address) is link:
                del self._links[link.address]
            # A link that is told busy must never end so: its last batch may have broken it.
            self._tell_if_free(link)

    async def _connect(self, link: _Link) -> Connection | None:
        self.counters.dials += 1
        try:
            async with asyncio.timeout(self.config.dial_timeout_s):
                return await self._dial(link.address)
        except OSError as error:
            self.counters.dials_failed += 1
            _logger.debug("cannot reach %s: %s", link.address, error or type(error).__name__)
            self._pause(link)
            self._connection_lost(link.address, LinkFailure.of(error))
            return None

    def _pause(self, link: _Link) -> None:
        """Note a failed attempt: drop what waits, and let nothing in until the pause is over."""
        pause_s = min(self.config.retry_max_s, self.config.retry_first_s * 2.0**link.failures)
        link.retry_at = self._now() + pause_s * self._rng.uniform(0.5, 1.0)
        link.failures = min(link.failures + 1, 32)
        self.counters.frames_dropped_unreachable += link.drop_queue()
        self._tell_if_free(link)

    def _tell_if_free(self, link: _Link) -> None:
        if link.is_busy and link.queued_bytes <= self.config.busy_bytes // 4:
            link.is_busy = False
            self._link_busy(link.address, False)

    async def _serve(self, link: _Link, connection: Connection) -> bool:
        """Write the link's frames until it is idle, closing or broken.

        Returns:
            Whether the link may be dialled again at once, should frames be waiting.
        """
        opened_at = self._now()
        watch = asyncio.ensure_future(connection.wait_closed())
        watch.add_done_callback(lambda _: link.signal.set())
        try:
            if await self._write_until_idle(link, connection, watch):
                link.failures = 0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.config.stall_s):
                        await connection.close()
                return True
        finally:
            connection.abort()
            await asyncio.wait([watch], timeout=_ABORT_WAIT_S)
            watch.cancel()
        self.counters.links_lost += 1
        is_stable = self._now() - opened_at >= self.config.stable_s
        failure = connection.why_closed()
        if is_stable:
            link.failures = 0
            self._tell_if_free(link)  # the batch that broke it no longer waits
        else:
            self._pause(link)
            now = self._now()
            if failure.fault is LinkFault.CLOSED and now >= link.redial_kept_until:
                # A dial that is refused would show at once that its process has ended.
                link.retry_at, link.redial_kept_until = now, now + self.config.retry_max_s
        self._connection_lost(link.address, failure)
        return is_stable

    async def _write_until_idle(
        self, link: _Link, connection: Connection, watch: asyncio.Future[None]
    ) -> bool:
        """Return True when there is nothing more to write, False when the connection broke."""
        config = self.config
        while not watch.done():
            if link.queue:
                batch = link.take(config.batch_bytes_max)
                try:
                    async with asyncio.timeout(config.stall_s):
                        await connection.send(batch)
                except OSError:
                    self.counters.frames_dropped_unreachable += len(batch)
                    return False
                except asyncio.CancelledError:
                    self.counters.frames_dropped_closed += len(batch)
                    raise
                self.counters.frames_sent += len(batch)
                self.counters.bytes_sent += sum(map(len, batch))
                self._tell_if_free(link)
                continue
            if self._is_closing:
                return True
            link.signal.clear()
            try:
                async with asyncio.timeout(config.idle_close_s):
                    await link.signal.wait()
            except TimeoutError:
                self.counters.links_closed_idle += 1
                return True
        return False


class Dialler:
    """What transports that dial have in common: all but how a peer is dialled, and who accepts.

    Args:
        config: how links are kept.
        rng: for the jitter of the pauses.
    """

    def __init__(self, *, config: LinkConfig | None, rng: random.Random | None = None) -> None:
        self.counters = TransportCounters()
        self._links = OutgoingLinks(
            self._dial,
            connection_lost=self._connection_lost,
            link_busy=self._link_busy,
            counters=self.counters,
            config=config,
            rng=rng,
        )
        self._receiver: Receiver | None = None

    def _begin(self, receiver: Receiver) -> None:
        """Deliver to `receiver` from now on.

        Raises:
            StateError: started before.
        """
        self._check_fresh()
        self._receiver = receiver

    def _check_fresh(self) -> None:
        if self._receiver is not None:
            raise StateError("the transport was started before")

    def send(self, address: str, data: bytes) -> bool:
        """Queue one frame; see `Transport.send`."""
        if self._receiver is None:
            self.counters.frames_dropped_closed += 1
            return False
        return self._links.send(address, data)

    def drop_link(self, address: str) -> None:
        """Give up the outgoing link to an address; see `Transport.drop_link`."""
        self._links.drop(address)

    def end_pause(self, address: str) -> None:
        """Dial a peer that was heard without waiting; see `Transport.end_pause`."""
        self._links.end_pause(address)

    async def _dial(self, address: str) -> Connection:
        """Make a connection to an address, ready to be sent on, or raise OSError."""
        raise NotImplementedError

    def _connection_lost(self, address: str, failure: LinkFailure) -> None:
        if self._receiver is not None:
            self._receiver.connection_lost(address, failure)

    def _link_busy(self, address: str, is_busy: bool) -> None:
        if self._receiver is not None:
            self._receiver.link_busy(address, is_busy=is_busy)
