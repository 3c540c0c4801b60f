"""Events for whoever listens, and waiting: for a condition of the node, or an owner's word."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Self

from meshlib.arguments import check_callable
from meshlib.errors import InvalidTypeError, InvalidValueError
from meshlib.gossip import Event
from meshlib.limits import EVENTS_QUEUED_MAX, SUBSCRIPTION_QUEUE_MAX
from meshlib.ratelimit import Decision, RateLimiter, Ticket

__all__ = ["Conditions", "Confirmations", "EventStream", "EventStreams"]


class EventStream(AsyncIterator[Event]):
    """The events since it was made, as an async iterator; ends when the runtime does.

    Also a context manager, which closes it. One task may wait on it at a time, in the event loop of
    the runtime; in another one that is a ThreadError.

    Args:
        queue_max: events that wait to be read, at least 1; beyond it the oldest is dropped and
            counted.
        check_loop: called before each wait, and raises to refuse it.

    Raises:
        InvalidTypeError: `queue_max` is no integer, or `check_loop` no function.
        InvalidValueError: it is under 1.
    """

    def __init__(
        self,
        *,
        queue_max: int = SUBSCRIPTION_QUEUE_MAX,
        check_loop: Callable[[], None] = lambda: None,
    ) -> None:
        if type(queue_max) is not int:
            raise InvalidTypeError(f"queue_max must be an integer, not {type(queue_max).__name__}")
        if queue_max < 1:
            raise InvalidValueError(f"queue_max must be at least 1, got {queue_max}")
        check_callable("check_loop", check_loop, wanted="a function")
        self.missed_count = 0
        self.is_closed = False
        self._queue: deque[Event] = deque()
        self._queue_max = queue_max
        self._check_loop = check_loop
        self._signal = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self.is_closed:
                raise StopAsyncIteration
            self._check_loop()
            self._signal.clear()
            await self._signal.wait()
        return self._queue.popleft()

    def publish(self, events: Iterable[Event]) -> None:
        """Add events; the oldest go, counted, when nobody reads them."""
        for event in events:
            if len(self._queue) >= self._queue_max:
                self._queue.popleft()
                self.missed_count += 1
            self._queue.append(event)
        self._signal.set()

    def close(self) -> None:
        """Take no further event; those that wait can still be read. Idempotent."""
        self.is_closed = True
        self._signal.set()


class EventStreams:
    """All streams of one runtime."""

    def __init__(self) -> None:
        self._streams: list[EventStream] = []
        self._is_closed = False

    def open(self, *, queue_max: int, check_loop: Callable[[], None]) -> EventStream:
        """Make a stream; one made after the end is closed already."""
        stream = EventStream(queue_max=queue_max, check_loop=check_loop)
        if self._is_closed:
            stream.close()
        else:
            self._streams.append(stream)
        return stream

    def publish(self, events: Iterable[Event]) -> None:
        """Add events to every stream that is not closed. O(streams * events)."""
        self._streams = [stream for stream in self._streams if not stream.is_closed]
        for stream in self._streams:
            stream.publish(events)

    def close(self) -> None:
        """End every stream."""
        self._is_closed = True
        for stream in self._streams:
            stream.close()
        self._streams.clear()


class Conditions:
    """Waiting for something to become true of the node; looked at after each of its steps."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def wait(self, condition: Callable[[], bool], *, timeout_s: float | None) -> None:
        """Return once the condition holds.

        Raises:
            TimeoutError: it did not within `timeout_s` seconds.
            Exception: what `fail` was called with, or what the condition raises.
        """
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        async with asyncio.timeout(timeout_s):
            await future

    def look(self) -> None:
        """Look at each condition, and end the waits that are over."""
        if not self._waiting:
            return
        still: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        for condition, future in self._waiting:
            if future.done():
                continue
            try:
                if condition():
                    future.set_result(None)
                    continue
            except StopIteration as error:
                # None can be raised into a future; a coroutine that raised one would do the same.
                future.set_exception(RuntimeError(f"the condition raised {error!r}"))
                continue
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised at the wait
                future.set_exception(error)
                continue
            still.append((condition, future))
        self._waiting = still

    def fail(self, error: BaseException) -> None:
        """End every wait with an error."""
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()


class Confirmations:
    """Hands decisions to those who wait for them. Bounded by what waits in the limiter."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Ticket, asyncio.Future[Decision]]] = {}

    async def wait(self, ticket: Ticket) -> Decision:
        """Return the decision on a request once it is there.

        Raises:
            Exception: what `fail` was called with meanwhile.
        """
        future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._waiting[id(ticket)] = ticket, future
        try:
            return await future
        finally:
            # The limiter decides it all the same where the caller has gone: it was asked for.
            self._waiting.pop(id(ticket), None)

    def settle(self, limiter: RateLimiter) -> None:
        """Wake those whose decisions are there. O(decisions)."""
        decided = limiter.decided()
        if len(decided) >= EVENTS_QUEUED_MAX:
            # The limiter keeps no more: some may be missing among these.
            decided = [ticket for ticket, _ in self._waiting.values()]
        for ticket in decided:
            waiting = self._waiting.get(id(ticket))
            if waiting is not None and ticket.decision is not None and not waiting[1].done():
                waiting[1].set_result(ticket.decision)

    def fail(self, error: Exception) -> None:
        """Let everyone who waits raise an error."""
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
