"""What is asked of an index of blocks: matches, accesses, blocks, and who has the oldest.

Rule: what changes no holder must live in this file. The directory may be made here.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from meshlib.errors import InvalidValueError, LimitError
from meshlib.hashing import HASH64_MASK
from meshlib.limits import BLOCKS_MAX, PREFIX_HELD_FACTOR
from meshlib.prefix.chains import BLOCK_BYTES, Chain, blocks_to_bytes, bytes_to_blocks
from meshlib.prefix.comparing import common_bytes
from meshlib.prefix.recency import Eldest, Recency
from meshlib.prefix.records import ACCESS_MAX, NO_MATCH, Match
from meshlib.prefix.runs import SHARD_MASK, Runs

__all__ = ["BlockReads", "Holding", "request"]

_new_tuple = tuple.__new__


class Holding:
    """What one tenant has: its number, its runs by last access, and how many blocks these are."""

    __slots__ = ("block_count", "number", "recency")

    def __init__(self, number: int, recency: Recency) -> None:
        self.number = number
        self.recency = recency
        self.block_count = 0


class BlockReads:
    """What an index has, and all that is asked of it; arguments as of `BlockIndex`."""

    __slots__ = (
        "_blocks_max",
        "_eldest",
        "_free",
        "_holdings",
        "_names",
        "_pair_count",
        "_placed",
        "_runs",
    )

    def __init__(self, *, blocks_max: int = BLOCKS_MAX, is_by_block: bool = False) -> None:
        if blocks_max < 1:
            raise InvalidValueError(f"blocks_max must be at least 1, got {blocks_max}")
        if blocks_max > BLOCKS_MAX * PREFIX_HELD_FACTOR:
            raise LimitError("blocks", size=blocks_max, limit=BLOCKS_MAX * PREFIX_HELD_FACTOR)
        self._blocks_max = blocks_max
        self._pair_count = 0
        self._runs = Runs()
        if is_by_block:
            self._runs.make_directory()
        self._holdings: dict[str, Holding] = {}
        self._names: list[str] = []
        self._free: list[int] = []
        self._eldest = Eldest(self._recency_of)
        self._placed = -1

    # Reading

    @property
    def blocks_max(self) -> int:
        """How many (block, tenant) pairs the index may hold."""
        return self._blocks_max

    @property
    def size(self) -> int:
        """How many (block, tenant) pairs are held: what `blocks_max` limits. O(1)."""
        return self._pair_count

    def __len__(self) -> int:
        """Count the (block, tenant) pairs. O(1)."""
        return self._pair_count

    def entry_count(self, tenant: str) -> int:
        """Count the blocks of a tenant; 0 when unknown. O(1)."""
        holding = self._holdings.get(tenant)
        return 0 if holding is None else holding.block_count

    def tenants(self) -> tuple[str, ...]:
        """Return the tenants that have blocks, sorted. O(n log n) for n tenants."""
        return tuple(sorted(self._holdings))

    def access(self, block: int, *, tenant: str) -> int | None:
        """Return the last access of a block by a tenant, or None. O(1), but see the class."""
        holding = self._holdings.get(tenant)
        if holding is None:
            return None
        runs = self._runs
        run = (runs.directory or runs.make_directory())[block & SHARD_MASK].get(block)
        return None if run is None else self._runs.holders[run].get(holding.number)

    def accesses(self, blocks: Sequence[int], *, tenant: str) -> list[int | None]:
        """Return the last access of each block by a tenant, None where it has it not. O(blocks)."""
        holding = self._holdings.get(tenant)
        if holding is None:
            return [None] * len(blocks)
        return self._accesses(self._runs.runs_of(blocks), holding.number)

    def _accesses(self, found: Iterable[int | None], number: int) -> list[int | None]:
        holders = self._runs.holders
        return [None if run is None else holders[run].get(number) for run in found]

    def match(self, chain: Iterable[int]) -> Match:
        """Find the most leading blocks that anybody holds, and all who hold them. O(r + m).

        `Match.matched` counts blocks.
        """
        blocks, data = request(chain)
        runs = self._runs
        pieces, holders = runs.pieces, runs.holders
        shards = runs.heads if runs.directory is None else runs.directory
        at, size, last = 0, len(data), -1
        held: AbstractSet[int] = frozenset()
        while at < size:
            block = blocks[at >> 3]
            run = shards[block & SHARD_MASK].get(block)
            if run is None:
                break
            keys = holders[run].keys()
            if not at or keys <= held:
                held, last = keys, run
            else:
                remaining = keys & held
                if not remaining:
                    break
                held, last = remaining, -1
            piece = pieces[run]
            if data.startswith(piece, at):
                at += len(piece)
            else:
                at += self._common(run, block, data, at)
        if not at:
            return NO_MATCH
        if last >= 0:
            return _new_tuple(Match, (runs.names(last, self._names), at >> 3))
        names = tuple(sorted([self._names[tenant] for tenant in held]))
        return _new_tuple(Match, (names, at >> 3))

    def match_tenant(self, chain: Iterable[int], *, tenant: str) -> int:
        """Return how many leading blocks one tenant holds. O(r + m)."""
        holding = self._holdings.get(tenant)
        matched = 0
        if holding is not None:
            for run, reached in self._steps(chain):
                if holding.number not in self._runs.holders[run]:
                    break
                matched = reached
        return matched

    def match_each(self, chain: Iterable[int]) -> dict[str, int]:
        """Return how many leading blocks each tenant holds, sorted by tenant.

        Tenants that hold none are left out. O(r + m + t log t) for t tenants.
        """
        reached: dict[int, int] = {}
        held: set[int] | None = None
        for run, matched in self._steps(chain):
            keys = self._runs.holders[run].keys()
            held = set(keys) if held is None else held & keys
            if not held:
                break
            reached.update(dict.fromkeys(held, matched))
        names = self._names
        return dict(sorted([(names[tenant], matched) for tenant, matched in reached.items()]))

    def _steps(self, chain: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield each run that a chain comes through, and how many blocks have matched then."""
        blocks, data = request(chain)
        at = 0
        for stretch, _ in self._runs.stretches(blocks, data):
            if stretch is None:
                return
            at += stretch[2]
            yield stretch[0], at // BLOCK_BYTES

    def _common(self, run: int, block: int, data: bytes, at: int) -> int:
        """Return how many bytes of a run, from a block on, stand in `data` at `at`."""
        piece = self._runs.pieces[run]
        if not data.startswith(piece[:BLOCK_BYTES], at):
            found = self._runs.find(block)
            assert found is not None, block
            piece = piece[found[1] :]
        common = common_bytes(piece, data, at)
        return common - common % BLOCK_BYTES

    def entries(
        self, tenant: str, *, buckets: Collection[int] | None = None
    ) -> Iterator[tuple[int, int]]:
        """Yield the (block, access) pairs of a tenant, in no particular order.

        Args:
            tenant: whose.
            buckets: only blocks whose top byte is one of these; all without it.
        """
        holding = self._holdings.get(tenant)
        if holding is not None:
            for run in holding.recency.items():
                access = self._runs.access(run, holding.number)
                for block in bytes_to_blocks(self._runs.pieces[run]):
                    if buckets is None or block >> 56 in buckets:
                        yield block, access

    def entry_hashes(self, tenant: str) -> Iterator[tuple[int, int]]:
        """Yield the (block, access) pairs of a tenant: a block is its own hash."""
        return self.entries(tenant)

    def oldest(self, tenant: str) -> tuple[int, int] | None:
        """Return a least recently used block of a tenant, and its access. Amortised O(log n)."""
        holding = self._holdings.get(tenant)
        oldest = None if holding is None else holding.recency.oldest()
        if oldest is None:
            return None
        return int.from_bytes(self._runs.pieces[oldest[0]][:BLOCK_BYTES], "big"), oldest[1]

    def oldest_access(self, tenant: str) -> int | None:
        """Return the access of a tenant's least recently used block. Amortised O(log n)."""
        oldest = self.oldest(tenant)
        return None if oldest is None else oldest[1]

    def oldest_tenant(self) -> tuple[str, int] | None:
        """Return whose the least recently used block of all is, and its access.

        Ties go to the smaller tenant. Amortised O(log n + log t): the others are not asked.
        """
        eldest = self._eldest.oldest()
        return None if eldest is None else (eldest[0], eldest[2])

    def floor_for(self, size_max: int) -> int:
        """Return the lowest floor whose eviction of every tenant leaves `size_max` pairs at most.

        0 when there are no more than that. O(n log n) for n runs, for an eviction now and then.
        """
        excess = self._pair_count - size_max
        if excess <= 0:
            return 0
        pieces = self._runs.pieces
        held = [
            (access, len(pieces[run]) // BLOCK_BYTES)
            for run, holders in enumerate(self._runs.holders)
            for access in holders.values()
        ]
        held.sort()
        for access, count in held:
            excess -= count
            if excess <= 0:
                return access
        return ACCESS_MAX

    def _recency_of(self, tenant: str) -> Recency | None:
        holding = self._holdings.get(tenant)
        return None if holding is None else holding.recency


def request(chain: Iterable[int]) -> tuple[Sequence[int], bytes]:
    """Return what is asked for and its bytes, up to the first that cannot be a block."""
    if type(chain) is Chain:
        return chain, chain.data
    blocks = tuple(chain)
    try:
        return blocks, blocks_to_bytes(blocks)
    except struct.error:
        return request(blocks[: next(at for at, each in enumerate(blocks) if not _is_block(each))])


def _is_block(block: object) -> bool:
    return isinstance(block, int) and 0 <= block <= HASH64_MASK
