"""Who holds which chain of blocks: the radix tree's question, answered from 8 bytes a block.

Rule: what a tenant holds, and what an index may hold, must live in this file.

Blocks are kept in runs, stretches of a chain with the same holders: a run is compared at once and
has one record in the order of eviction, however many blocks it has. A run is parted where a
holder has only some of it, and parts are not joined again.
Source: the runs of the upstream gateway's ChainIndex (kv-index 2.0.0); a dictionary by first
block instead of its tables of children.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Final

from meshlib.errors import InvalidValueError, LimitError
from meshlib.hashing import HASH64_MASK
from meshlib.limits import BLOCKS_MAX, PREFIX_HELD_FACTOR, TENANTS_MAX
from meshlib.prefix.chains import (
    BLOCK_BYTES,
    Chain,
    blocks_to_bytes,
    bytes_to_blocks,
)
from meshlib.prefix.comparing import common_bytes
from meshlib.prefix.recency import Eldest, Recency
from meshlib.prefix.records import (
    ACCESS_MAX,
    NO_MATCH,
    Match,
    Placement,
    check_access,
    check_block,
    check_tenant,
)
from meshlib.prefix.runs import SHARD_MASK, Runs, Stretch

__all__ = ["BlockIndex"]

_PLACED_BYTES_MAX: Final = 1024 * BLOCK_BYTES
"""How long a run of blocks that were placed one by one may become: each copies it."""

_new_tuple = tuple.__new__


class _Holding:
    """What one tenant has: its number, its runs by last access, and how many blocks these are."""

    __slots__ = ("block_count", "number", "recency")

    def __init__(self, number: int, recency: Recency) -> None:
        self.number = number
        self.recency = recency
        self.block_count = 0


class BlockIndex:
    """Blocks by hash, each with the tenants that hold it and when they last used it.

    A tenant matches as many leading blocks of a chain as it holds without a gap: that is what
    an engine can reuse. Blocks may come and go one by one, as engines publish them; from the
    first of these on the index keeps where each block is, some 90 bytes a block, and that first
    time costs O(blocks held), 0.9 s at 2 million, which `is_by_block` avoids. An index that is
    given whole chains only, as `text_chain` and `token_chain` return them, needs some 8 bytes a
    block and a few hundred a run.

    In the complexities, r is the number of runs on a chain, and m its bytes compared, in C.

    Args:
        blocks_max: how many (block, tenant) pairs the index may hold, 2,097,152 by default, and
            up to 4 times that; an insertion that would cross it is refused.
        is_by_block: keep where each block is from the beginning, for an index whose blocks will
            come one by one: then no operation has to find them all.

    Raises:
        InvalidValueError: `blocks_max` under 1.
        LimitError: `blocks_max` over 4 times 2,097,152.
    """

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
        self._holdings: dict[str, _Holding] = {}
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

    def match(self, chain: Iterable[int]) -> Match:
        """Find the most leading blocks that anybody holds, and all who hold them. O(r + m).

        `Match.matched` counts blocks.
        """
        blocks, data = _request(chain)
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
        blocks, data = _request(chain)
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

    # Inserting

    def insert(self, chain: Iterable[int], *, tenant: str, access: int) -> int:
        """Insert blocks, or raise their access. O(r + m) for a `Chain`, else O(blocks).

        Args:
            chain: the hashes, 64 bits each; in any order, since each names what is before it.
            tenant: who holds them; 1 byte to 1 KiB in UTF-8.
            access: when they were used, 0 to 2**63 - 1 in a unit of the caller's; may come in
                any order, a block keeps the highest.

        Returns:
            How many blocks are new or were raised.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: an empty tenant, or a number out of range.
            LimitError: a tenant or a block too many. The index is unchanged after any of these.
        """
        if type(chain) is Chain and self._runs.directory is None:
            check_access(access)
            return self._put_chain(chain, tenant, access)
        return len(self.place_all(chain, tenant=tenant, access=access))

    def place_all(
        self, chain: Iterable[int], *, tenant: str, access: int
    ) -> list[tuple[int, int | None]]:
        """Insert blocks as `insert` does, and tell what was there. O(blocks). Errors as of that.

        Returns:
            The (block, access before) pairs of those that are new or were raised.
        """
        blocks: Sequence[int]
        if type(chain) is Chain:
            blocks, data = chain, chain.data
        else:
            blocks = tuple(chain)
            for block in blocks:
                check_block(block)
            blocks = tuple(dict.fromkeys(blocks))
            data = blocks_to_bytes(blocks)
        check_access(access)
        return self._put_blocks(blocks, data, tenant, access)

    def older(self, chain: Iterable[int], *, tenant: str, access: int) -> list[int]:
        """Return the blocks that a tenant does not hold or used before `access`. O(blocks)."""
        blocks = list(chain)
        held = self._held(blocks, tenant)
        return [
            block for block, last in zip(blocks, held, strict=True) if last is None or last < access
        ]

    def _held(self, blocks: Sequence[int], tenant: str) -> list[int | None]:
        """Return when a tenant used each block last."""
        holding = self._holdings.get(tenant)
        if holding is None:
            return [None] * len(blocks)
        number, holders = holding.number, self._runs.holders
        shards = self._runs.make_directory()
        found = [shards[block & SHARD_MASK].get(block) for block in blocks]
        return [None if run is None else holders[run].get(number) for run in found]

    def place(self, block: int, *, tenant: str, access: int) -> Placement:
        """Insert one block, and tell what was there before. Errors as of `insert`.

        O(run). Blocks placed one after the other with one access come into one run.
        """
        check_block(block)
        check_access(access)
        runs = self._runs
        run = (runs.directory or runs.make_directory())[block & SHARD_MASK].get(block)
        holding = self._holdings.get(tenant)
        previous = None
        if run is not None and holding is not None:
            previous = runs.holders[run].get(holding.number)
            if previous is not None and previous >= access:
                return Placement(block, previous)
        holding = self._room_for(tenant, 1 if previous is None else 0)
        placed = self._placed
        if run is not None:
            found = runs.find(block)
            assert found is not None, block
            run = self._isolate((*found, BLOCK_BYTES))
            self._hold(holding, tenant, run, access)
            self._placed = self._join(placed, run)
        elif self._may_grow(placed, {holding.number: access}):
            runs.extend(placed, block)
            holding.block_count += 1
            self._pair_count += 1
        else:
            self._placed = runs.add(block, block.to_bytes(BLOCK_BYTES, "big"))
            self._hold(holding, tenant, self._placed, access)
        return Placement(block, previous)

    def _put_chain(self, chain: Chain, tenant: str, access: int) -> int:
        """Insert a chain that begins at its beginning: what follows an unknown block is unknown."""
        holding = self._holdings.get(tenant)
        number = -1 if holding is None else holding.number
        runs, data = self._runs, chain.data
        pieces, holders, heads = runs.pieces, runs.holders, runs.heads
        at, size, added, raised = 0, len(data), 0, 0
        changed: list[int] = []
        parts: list[tuple[int, int]] = []
        while at < size:
            block = chain[at >> 3]
            run = heads[block & SHARD_MASK].get(block)
            if run is None:
                break
            piece = pieces[run]
            length = len(piece)
            is_whole = data.startswith(piece, at)
            if not is_whole:
                length = common_bytes(piece, data, at)
                length -= length % BLOCK_BYTES
            at += length
            held = holders[run].get(number, -1)
            if held >= access:
                continue
            if held < 0:
                added += length
            else:
                raised += length
            changed.append(run)
            if not is_whole:
                parts.append((run, length))
        added += size - at
        if not added and not raised:
            return 0
        holding = self._room_for(tenant, added >> 3)
        for run, length in parts:
            self._split(run, length)
        for run in changed:
            self._hold(holding, tenant, run, access)
        if at < size:
            run = runs.add(chain[at >> 3], data[at:] if at else data)
            self._hold(holding, tenant, run, access)
        return (added + raised) >> 3

    def _put_blocks(
        self, blocks: Sequence[int], data: bytes, tenant: str, access: int
    ) -> list[tuple[int, int | None]]:
        """Insert blocks of which any may be known, each once; return what changed."""
        self._runs.make_directory()
        held = self._held(blocks, tenant)
        changed = [
            (block, last)
            for block, last in zip(blocks, held, strict=True)
            if last is None or last < access
        ]
        if not changed:
            return changed
        holding = self._room_for(tenant, held.count(None))
        runs, begin, placed = self._runs, 0, -1
        for stretch, end in runs.stretches(blocks, data):
            if stretch is None:
                run = runs.add(blocks[begin >> 3], data[begin:end])
            elif runs.access(stretch[0], holding.number) < access:
                run = self._isolate(stretch)
            else:
                run = -1
            if run >= 0:
                self._hold(holding, tenant, run, access)
                # What was parted, by peers that send blocks sorted for example, comes together.
                placed = self._join(placed, run)
            begin = end
        return changed

    def _room_for(self, tenant: str, added: int) -> _Holding:
        size = self._pair_count + added
        if size > self._blocks_max:
            raise LimitError("blocks", size=size, limit=self._blocks_max)
        holding = self._holdings.get(tenant)
        if holding is not None:
            return holding
        check_tenant(tenant)
        if len(self._holdings) >= TENANTS_MAX:
            raise LimitError("tenants", size=len(self._holdings) + 1, limit=TENANTS_MAX)
        if self._free:
            number = self._free.pop()
            self._names[number] = tenant
        else:
            number = len(self._names)
            self._names.append(tenant)
        recency = Recency(partial(_access_of, self._runs, number))
        holding = self._holdings[tenant] = _Holding(number, recency)
        return holding

    def _hold(self, holding: _Holding, tenant: str, run: int, access: int) -> None:
        """Let a tenant hold a run, or raise its access."""
        held = self._runs.holders[run]
        is_new = holding.number not in held
        held[holding.number] = access
        if is_new:
            self._runs.named.pop(run, None)
            count = len(self._runs.pieces[run]) // BLOCK_BYTES
            holding.block_count += count
            self._pair_count += count
            self._record(tenant, holding.recency, run, access)

    def _record(self, tenant: str, recency: Recency, run: int, access: int) -> None:
        recency.add(run, access)
        if access < recency.bound:
            self._eldest.lower(tenant, recency, access=access, tenant_count=len(self._names))

    # Runs are parted where a holder has only some of one, and grow by blocks placed one by one.

    def _split(self, run: int, at: int) -> int:
        """Part a run at a byte; return the part behind. O(run + its holders * log n)."""
        behind = self._runs.split(run, at)
        for number, access in self._runs.holders[behind].items():
            tenant = self._names[number]
            self._record(tenant, self._holdings[tenant].recency, behind, access)
        return behind

    def _isolate(self, stretch: Stretch) -> int:
        run, offset, length = stretch
        if offset:
            run = self._split(run, offset)
        if length < len(self._runs.pieces[run]):
            self._split(run, length)
        return run

    def _may_grow(self, run: int, holders: dict[int, int]) -> bool:
        """Tell whether a run of the same holders, placed before, may take in more."""
        runs = self._runs
        return (
            run >= 0 and runs.holders[run] == holders and len(runs.pieces[run]) < _PLACED_BYTES_MAX
        )

    def _join(self, placed: int, run: int) -> int:
        """Move the block of a run to the one placed before, where they have the same holders."""
        if placed == run or not self._may_grow(placed, self._runs.holders[run]):
            return run
        numbers = list(self._runs.holders[run])
        self._runs.join(placed, run)
        for number in numbers:
            self._holdings[self._names[number]].recency.discard()
        return placed

    # Removing

    def remove(self, blocks: Iterable[int], *, tenant: str) -> int:
        """Remove blocks of a tenant; return how many were there. O(blocks + runs parted)."""
        holding = self._holdings.get(tenant)
        if holding is None:
            return 0
        runs = self._runs
        runs.make_directory()
        wanted, data = _request(dict.fromkeys(blocks))
        before = holding.block_count
        for stretch, _ in runs.stretches(wanted, data):
            if stretch is not None and holding.number in runs.holders[stretch[0]]:
                self._let_go(holding, self._isolate(stretch))
                holding.recency.discard()
        self._forget_if_empty(tenant, holding)
        return before - holding.block_count

    def remove_tenant(self, tenant: str) -> int:
        """Remove a tenant with all its blocks; return how many. O(its runs)."""
        holding = self._holdings.get(tenant)
        if holding is None:
            return 0
        count = holding.block_count
        for run, _ in holding.recency.take_up_to(ACCESS_MAX):
            self._let_go(holding, run)
        self._forget_if_empty(tenant, holding)
        return count

    def evict(self, tenant: str, *, floor: int) -> list[tuple[int, int]]:
        """Drop the blocks of a tenant that were last used at or before `floor`.

        O((k + touched since) log n + blocks dropped) for k dropped of n runs.

        Returns:
            The (block, access) pairs of what was dropped, oldest first.
        """
        holding = self._holdings.get(tenant)
        if holding is None:
            return []
        dropped: list[tuple[int, int]] = []
        for run, access in holding.recency.take_up_to(floor):
            blocks = bytes_to_blocks(self._runs.pieces[run])
            dropped.extend([(block, access) for block in blocks])
            self._let_go(holding, run)
        self._forget_if_empty(tenant, holding)
        dropped.sort(key=lambda pair: (pair[1], pair[0]))
        return dropped

    def _let_go(self, holding: _Holding, run: int) -> None:
        runs = self._runs
        held = runs.holders[run]
        del held[holding.number]
        runs.named.pop(run, None)
        count = len(runs.pieces[run]) // BLOCK_BYTES
        holding.block_count -= count
        self._pair_count -= count
        if not held:
            runs.discard(run)

    def _forget_if_empty(self, tenant: str, holding: _Holding) -> None:
        if not holding.block_count:
            del self._holdings[tenant]
            self._names[holding.number] = ""
            self._free.append(holding.number)

    def copy(self) -> BlockIndex:
        """Return an independent index with the same blocks. O(n); the runs' bytes are shared."""
        twin = BlockIndex(blocks_max=self._blocks_max)
        twin._runs = self._runs.copy()
        twin._names = list(self._names)
        twin._free = list(self._free)
        twin._pair_count = self._pair_count
        for tenant, holding in self._holdings.items():
            recency = Recency(partial(_access_of, twin._runs, holding.number))
            recency.copy_from(holding.recency)
            copied = twin._holdings[tenant] = _Holding(holding.number, recency)
            copied.block_count = holding.block_count
        twin._eldest.copy_from(self._eldest)
        return twin

    def _check(self) -> None:
        """Assert every invariant; shows what is broken. O(n)."""
        runs = self._runs
        runs.check()
        counts: dict[int, int] = {}
        held: dict[int, set[int]] = {}
        for run, holders in enumerate(runs.holders):
            for number in holders:
                counts[number] = counts.get(number, 0) + len(runs.pieces[run]) // BLOCK_BYTES
                held.setdefault(number, set()).add(run)
        for run, names in runs.named.items():
            assert list(names) == sorted(self._names[each] for each in runs.holders[run]), run
        for tenant, holding in self._holdings.items():
            assert holding.block_count, f"{tenant!r} is kept without blocks"
            assert self._names[holding.number] == tenant, tenant
            assert holding.number not in self._free, tenant
            assert holding.block_count == counts.pop(holding.number), tenant
            assert set(holding.recency.items()) == held[holding.number], tenant
            holding.recency._check()  # noqa: SLF001 - one structure, one check
        assert not counts, counts
        self._eldest._check(self.tenants())  # noqa: SLF001 - one structure, one check
        assert self._pair_count == sum(each.block_count for each in self._holdings.values())
        assert self._pair_count <= self._blocks_max
        assert len(self._names) == len(self._holdings) + len(self._free)


def _access_of(runs: Runs, tenant: int, run: int) -> int:
    return runs.holders[run].get(tenant, -1)


def _request(chain: Iterable[int]) -> tuple[Sequence[int], bytes]:
    """Return what is asked for and its bytes, up to the first that cannot be a block."""
    if type(chain) is Chain:
        return chain, chain.data
    blocks = tuple(chain)
    try:
        return blocks, blocks_to_bytes(blocks)
    except struct.error:
        return _request(blocks[: next(at for at, each in enumerate(blocks) if not _is_block(each))])


def _is_block(block: object) -> bool:
    return isinstance(block, int) and 0 <= block <= HASH64_MASK
