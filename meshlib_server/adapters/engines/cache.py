"""What one engine has cached: by its own word, and, for a while, by what is expected of it.

Rule: which of the two counts is decided in this file. A block that a request was routed for is
expected to be there soon; what the engine says of a block, or does not say within the grace
period, wins.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import define

from meshlib.errors import LimitError
from meshlib.hashing import hash64
from meshlib.invariants import require
from meshlib.prefix import (
    BlockIndex,
    BlocksCleared,
    BlocksRemoved,
    BlocksStored,
    token_blocks,
)
from meshlib_server.adapters.engines.events import (
    EngineCleared,
    EngineEvent,
    EngineHash,
    EngineRemoved,
    EngineStored,
)

__all__ = ["EXPECTED_MAX", "GRACE_S", "EngineCache", "salted_start"]

GRACE_S: Final = 30.0
"""How long a block is expected: longer than a request waits and prefills, as a rule."""

EXPECTED_MAX: Final = 100_000
"""Blocks that are expected of one engine at once; the longest expected go first."""


def salted_start(salt: str) -> int:
    """Return what chains begin with that depend on more than their tokens; 0 for no salt."""
    return hash64(salt.encode("utf-8", "surrogatepass")) if salt else 0


@define(slots=True)
class _Known:
    """A block by the engine's name: our hash of it, and the media that it is on."""

    block: int
    media: set[str | None]


class EngineCache:
    """One engine's blocks in an index that may have those of others.

    Blocks are named by what they hold, as `token_chain` does with the engine's own size of blocks,
    so all engines of an index must have blocks of one size. Of blocks behind one that was never
    heard of nothing can be known; they are left out.

    Args:
        index: where they go, best made with `is_by_block`.
        worker_id: the engine's name there.
        has_changes: whether it is kept which blocks came and went, for `take_changes`.
    """

    def __init__(self, index: BlockIndex, *, worker_id: str, has_changes: bool = False) -> None:
        self.index = index
        self.worker_id = worker_id
        self.left_out_count = 0
        """Blocks that could not be taken: without a known parent, or beyond the index's bound."""
        self._known: dict[EngineHash, _Known] = {}
        self._count: dict[int, int] = {}
        self._expected: OrderedDict[int, float] = OrderedDict()
        self._changed: set[int] | None = set() if has_changes else None

    @property
    def blocks(self) -> frozenset[int]:
        """What the engine holds by its own word. O(blocks)."""
        return frozenset(self._count)

    def holds(self, block: int) -> bool:
        """Tell whether the engine holds a block by its own word. O(1)."""
        return block in self._count

    def take_changes(self) -> set[int]:
        """Return the blocks that it has stored or removed since the last call, or both. O(1)."""
        if self._changed is None:
            return set()
        changed, self._changed = self._changed, set()
        return changed

    def apply(self, events: Iterable[EngineEvent], *, now: float) -> None:
        """Take the engine's word. O(blocks of the events).

        Args:
            events: in its order.
            now: monotonic seconds.
        """
        for event in events:
            if isinstance(event, EngineStored):
                self._store(event, now)
            elif isinstance(event, EngineRemoved):
                self._remove(event, now)
            elif isinstance(event, EngineCleared):
                self.clear(now=now)

    def clear(self, *, now: float) -> None:
        """Forget everything, what was expected too: the engine has, or has started anew."""
        if self._changed is not None:
            self._changed.update(self._count)
        self._known.clear()
        self._count.clear()
        self._expected.clear()
        self._tell(BlocksCleared(), now)

    def _store(self, event: EngineStored, now: float) -> None:
        start = salted_start(event.salt)
        if event.parent is not None:
            parent = self._known.get(event.parent)
            if parent is None:
                self.left_out_count += len(event.hashes)
                return
            start = parent.block
        blocks = token_blocks(event.tokens, block_tokens=event.block_tokens, start=start)
        try:
            self._tell(BlocksStored(blocks), now)
        except LimitError:
            self.left_out_count += len(blocks)
            return
        for name, block in zip(event.hashes, blocks, strict=True):
            self._expected.pop(block, None)
            known = self._known.get(name)
            if known is None:
                self._known[name] = _Known(block, {event.medium})
                self._count[block] = self._count.get(block, 0) + 1
            else:
                known.media.add(event.medium)
        if self._changed is not None:
            self._changed.update(blocks)

    def _remove(self, event: EngineRemoved, now: float) -> None:
        gone = []
        for name in event.hashes:
            known = self._known.get(name)
            if known is None:
                continue
            known.media.discard(event.medium)
            if event.medium is not None and known.media - {None}:
                continue
            del self._known[name]
            self._count[known.block] -= 1
            if not self._count[known.block]:
                del self._count[known.block]
                self._expected.pop(known.block, None)
                gone.append(known.block)
        if self._changed is not None:
            self._changed.update(gone)
        self._tell(BlocksRemoved(tuple(gone)), now)

    def adopt(self, added: Iterable[int], removed: Iterable[int], *, now: float) -> None:
        """Take another router's word for what the engine has stored and removed. O(blocks).

        Args:
            added: blocks as we name them.
            removed: likewise.
            now: monotonic seconds.
        """
        gone = [block for block in removed if self._count.pop(block, 0)]
        for block in gone:
            del self._known[block]
        come = [block for block in added if block not in self._count]
        try:
            self._tell(BlocksStored(tuple(come)), now)
        except LimitError:
            self.left_out_count += len(come)
            come = []
        for block in come:
            self._expected.pop(block, None)
            self._count[block] = 1
            self._known[block] = _Known(block, {None})
        self._tell(BlocksRemoved(tuple(gone)), now)

    def _tell(self, event: BlocksStored | BlocksRemoved | BlocksCleared, now: float) -> None:
        self.index.apply_events([event], tenant=self.worker_id, access=int(now * 1000))

    # What is expected

    def expect(self, chain: Iterable[int], *, now: float) -> None:
        """Take for cached what a request that was sent there will leave. O(blocks).

        Args:
            chain: the blocks of its prompt.
            now: monotonic seconds.

        Raises:
            LocalError: as `BlockIndex.insert`; nothing is expected.
        """
        blocks = tuple(chain)
        self.index.insert(blocks, tenant=self.worker_id, access=int(now * 1000))
        for block in blocks:
            if block not in self._count:
                self._expected[block] = now + GRACE_S
                self._expected.move_to_end(block)
        if len(self._expected) > EXPECTED_MAX:
            self._drop(len(self._expected) - EXPECTED_MAX)

    def tick(self, now: float) -> None:
        """Give up what was expected and never confirmed. O(what is given up)."""
        count = 0
        for until in self._expected.values():
            if until > now:
                break
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        gone = [self._expected.popitem(last=False)[0] for _ in range(count)]
        self.index.remove(gone, tenant=self.worker_id)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how much it keeps. O(1)."""
        return {
            "known": len(self._known),
            "blocks": len(self._count),
            "expected": len(self._expected),
            "left_out": self.left_out_count,
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(blocks)."""
        counted: dict[int, int] = {}
        for known in self._known.values():
            require(self, bool(known.media), "a block is kept that is nowhere")
            counted[known.block] = counted.get(known.block, 0) + 1
        require(self, counted == self._count, "blocks are miscounted")
        require(self, not self._expected.keys() & self._count.keys(), "what is known is expected")
        held = dict(self.index.entry_hashes(self.worker_id))
        wanted = self._expected.keys() | self._count.keys()
        require(self, held.keys() == wanted, "the index is not what is known and expected")
