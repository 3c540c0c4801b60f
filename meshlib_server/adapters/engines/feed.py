"""The order of one engine's messages: what was lost is asked for again, a new start is noticed.

A publisher numbers its messages from 0, sends each once, and keeps the last ones for whoever asks
for them by number. What this decides, without sockets and clocks of its own:

- A number that is not the next one: ask for those from the last that is known, *inclusive*. That
  the last one comes back as it was shows that it is still the same start of the engine.
- A number that does not grow, or a last one that comes back otherwise or not at all: the engine
  has started anew. What it had is forgotten, and everything is asked for from 0.
- What is not kept any more is lost: nobody knows what the engine has. What it had is forgotten,
  and what it stores from then on is taken, as far as it can be; `is_whole` says so.

Rule: a message is applied once, and after all that came before it.
"""

from __future__ import annotations

from typing import Final

from meshlib.errors import RemoteError
from meshlib.hashing import hash64
from meshlib_server.adapters.engines.cache import EngineCache
from meshlib_server.adapters.engines.events import EngineCleared, read_batch

__all__ = ["PENDING_MAX", "EngineFeed"]

PENDING_MAX: Final = 10_000
"""Messages that wait for what is before them; a further one has the oldest forgotten."""


class EngineFeed:
    """Applies the messages of one engine to its cache, in their order.

    The driver calls `connected` and `receive` for what the engine publishes. Whenever `is_asking`,
    it asks for the messages from `begin_replay()` on, and calls `replayed` for each and
    `replay_ended`; or `replay_failed` when it has tried for long enough, or cannot ask.

    Args:
        cache: what they are applied to.
    """

    def __init__(self, cache: EngineCache) -> None:
        self.cache = cache
        self.is_whole = False
        """Whether the cache is all that the engine has, and nothing else."""
        self.epoch = 0
        """How often the engine was found to have started anew."""
        self.strange_count = 0
        """Messages that could not be read, and events that are not known."""
        self._next = 0
        self._last: tuple[int, int] | None = None
        self._last_live: int | None = None
        self._pending: dict[int, bytes] = {}
        self._is_asking = False
        self._is_verified = False
        self._is_replaying = False
        self._is_stale = False

    @property
    def is_asking(self) -> bool:
        """Whether messages are to be asked for."""
        return self._is_asking

    def begin_replay(self) -> int:
        """Return from which number on to ask, now that it is done."""
        self._is_replaying, self._is_stale = True, False
        self._is_verified = False
        return 0 if self._last is None else self._last[0]

    @property
    def is_synced(self) -> bool:
        """Whether the cache is what the engine has said, as far as that could be got."""
        return not self._is_asking and (self.is_whole or self._last is not None)

    @property
    def next_sequence(self) -> int:
        """The number of the message that is applied next."""
        return self._next

    def connected(self) -> None:
        """Take note that the engine was reached, for the first time or again: it may be new."""
        self._is_asking = True
        self._is_stale = self._is_replaying

    def receive(self, sequence: int, payload: bytes, *, now: float) -> None:
        """Take a message that was published."""
        if self._last_live is not None and sequence <= self._last_live:
            self._begin_epoch(now)
        self._last_live = sequence
        if sequence < self._next and not self._is_asking:
            return  # a replay has brought it
        if sequence == self._next and not self._is_asking:
            self._apply(sequence, payload, now)
            return
        self._is_asking = True
        while len(self._pending) >= PENDING_MAX:
            del self._pending[min(self._pending)]
        self._pending[sequence] = payload

    def replayed(self, sequence: int, payload: bytes, *, now: float) -> None:
        """Take a message that was asked for."""
        if not self._is_asking or self._is_stale:
            return
        if self._last is not None and not self._is_verified:
            if (sequence, hash64(payload)) == self._last:
                self._is_verified = True
                return
            if sequence <= self._last[0]:
                self._begin_epoch(now)  # that is another message
                return
        if sequence > self._next:
            self._lose(sequence, now)
        if sequence == self._next:
            self._apply(sequence, payload, now)
            self._is_verified = True

    def replay_ended(self, *, now: float) -> None:
        """Take note that there is no more of what was asked for."""
        self._is_replaying = False
        if not self._is_asking or self._is_stale:
            return  # it was the answer of another start, and is asked for again
        if self._last is not None and not self._is_verified:
            # Not even the last one is there: what runs now has said less than that.
            self._begin_epoch(now)
            return
        self._is_asking = False
        if not self._next and not self._pending:
            self.is_whole = True  # it has said nothing yet
        self._go_on(now)

    def replay_failed(self, *, now: float) -> None:
        """Go on without what was asked for: nobody has it, or can be asked."""
        self._is_asking = self._is_replaying = False
        if self._pending or self._last is not None or not self.is_whole:
            self._lose(min(self._pending, default=self._next), now)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Apply what has waited, which was published before the question was answered."""
        for sequence in sorted(self._pending):
            payload = self._pending.pop(sequence)
            if sequence < self._next:
                continue
            if sequence > self._next:
                self._lose(sequence, now)
            self._apply(sequence, payload, now)

    def _begin_epoch(self, now: float) -> None:
        self.epoch += 1
        self.cache.clear(now=now)
        self.is_whole = False
        self._next, self._last, self._last_live = 0, None, None
        self._pending.clear()
        self._is_asking = True
        self._is_stale = self._is_replaying

    def _lose(self, sequence: int, now: float) -> None:
        """Go on at a number, without what was before it."""
        self.cache.clear(now=now)
        self.is_whole = False
        self._next, self._last = sequence, None

    def _apply(self, sequence: int, payload: bytes, now: float) -> None:
        self._next, self._last = sequence + 1, (sequence, hash64(payload))
        self.is_whole = self.is_whole or sequence == 0
        try:
            batch = read_batch(payload)
        except RemoteError:
            # What it says is lost, and with it what the engine has.
            self.strange_count += 1
            self.cache.clear(now=now)
            self.is_whole = False
            return
        self.strange_count += batch.strange_count
        self.cache.apply(batch.events, now=now)
        if any(isinstance(event, EngineCleared) for event in batch.events):
            self.is_whole = True
