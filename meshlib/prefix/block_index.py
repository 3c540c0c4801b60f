"""Who holds which chain of blocks: the radix tree's question, answered from 8 bytes a block.

Rule: what a tenant holds, and what an index may hold, must live in this file.

Blocks are kept in runs, stretches of a chain with the same holders: a run is compared at once and
has one record in the order of eviction, however many blocks it has. A run is parted where a
holder has only some of it, and parts are not joined again.
Source: the runs of the upstream gateway's ChainIndex (kv-index 2.0.0); a dictionary by first
block instead of its tables of children.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from meshlib.errors import LimitError
from meshlib.limits import TENANTS_MAX
from meshlib.prefix.block_reads import BlockReads, Holding, request
from meshlib.prefix.chains import BLOCK_BYTES, Chain, blocks_to_bytes, bytes_to_blocks
from meshlib.prefix.comparing import common_bytes
from meshlib.prefix.recency import Recency
from meshlib.prefix.records import (
    ACCESS_MAX,
    BlockEvent,
    BlocksRemoved,
    BlocksStored,
    Placement,
    check_access,
    check_block,
    check_tenant,
)
from meshlib.prefix.runs import SHARD_MASK, Runs, Stretch

__all__ = ["BlockIndex"]

_PLACED_BYTES_MAX: Final = 1024 * BLOCK_BYTES
"""How long a run of blocks that were placed one by one may become: each copies it."""


class BlockIndex(BlockReads):
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

    __slots__ = ()

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
        held = self.accesses(blocks, tenant=tenant)
        return [
            block for block, last in zip(blocks, held, strict=True) if last is None or last < access
        ]

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
        found = self._runs.runs_of(blocks)
        number = self._holdings[tenant].number if tenant in self._holdings else -1
        held = self._accesses(found, number)
        changed = [
            (block, last)
            for block, last in zip(blocks, held, strict=True)
            if last is None or last < access
        ]
        if not changed:
            return changed
        holding = self._room_for(tenant, held.count(None))
        if found.count(None) < len(found):
            left = self._hold_whole(blocks, found, holding, tenant, access)
            if len(left) < len(blocks):
                blocks, data = left, blocks_to_bytes(left)
        runs, begin, known, new = self._runs, 0, -1, -1
        # What was parted, by peers that send blocks sorted for example, comes together: what was
        # there and what is new apart, for the former is what will be used again.
        for stretch, end in runs.stretches(blocks, data):
            if stretch is None:
                run = runs.add(blocks[begin >> 3], data[begin:end])
                self._hold(holding, tenant, run, access)
                new = self._join(new, run)
            elif runs.access(stretch[0], holding.number) < access:
                run = self._isolate(stretch)
                self._hold(holding, tenant, run, access)
                known = self._join(known, run)
            begin = end
        return changed

    def _hold_whole(
        self,
        blocks: Sequence[int],
        found: Sequence[int | None],
        holding: Holding,
        tenant: str,
        access: int,
    ) -> Sequence[int]:
        """Let a tenant hold the runs of which all blocks are given; return the other blocks.

        In whatever order: peers send blocks sorted, and what is used again is mostly whole runs.
        """
        runs = self._runs
        whole = {
            run
            for run, count in Counter(found).items()
            if run is not None and count * BLOCK_BYTES == len(runs.pieces[run])
        }
        for run in whole:
            if runs.access(run, holding.number) < access:
                self._hold(holding, tenant, run, access)
        if not whole:
            return blocks
        return [block for block, run in zip(blocks, found, strict=True) if run not in whole]

    def _room_for(self, tenant: str, added: int) -> Holding:
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
        holding = self._holdings[tenant] = Holding(number, recency)
        return holding

    def _hold(self, holding: Holding, tenant: str, run: int, access: int) -> None:
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
        wanted, data = request(dict.fromkeys(blocks))
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

    def _let_go(self, holding: Holding, run: int) -> None:
        runs = self._runs
        held = runs.holders[run]
        del held[holding.number]
        runs.named.pop(run, None)
        count = len(runs.pieces[run]) // BLOCK_BYTES
        holding.block_count -= count
        self._pair_count -= count
        if not held:
            runs.discard(run)

    def _forget_if_empty(self, tenant: str, holding: Holding) -> None:
        if not holding.block_count:
            del self._holdings[tenant]
            self._names[holding.number] = ""
            self._free.append(holding.number)

    # Events

    def apply_events(self, events: Iterable[BlockEvent], *, tenant: str, access: int) -> int:
        """Apply what an engine says of its cache, in its order. Complexity as of each.

        The same events twice leave what they left once. An index of events is best made with
        `is_by_block`.

        Args:
            events: what the tenant has stored, removed and cleared.
            tenant: whose cache it is.
            access: when it said so; as for `insert`.

        Returns:
            How many blocks are new, were raised, or are gone.

        Raises:
            LocalError: as `insert`; the events before are applied, and nothing of that one.
        """
        changed = 0
        for event in events:
            if isinstance(event, BlocksStored):
                changed += self.insert(event.blocks, tenant=tenant, access=access)
            elif isinstance(event, BlocksRemoved):
                changed += self.remove(event.blocks, tenant=tenant)
            else:
                changed += self.remove_tenant(tenant)
        return changed

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
            copied = twin._holdings[tenant] = Holding(holding.number, recency)
            copied.block_count = holding.block_count
        twin._eldest.copy_from(self._eldest)
        return twin

    def copy_content(self) -> BlockIndex:
        """Return an index that has the same `entries` and can be asked for nothing else. O(runs).

        It must not be changed: for whoever reads all that an index holds, on another thread too.
        """
        twin = BlockIndex(blocks_max=self._blocks_max)
        twin._runs = runs = self._runs.copy_content()
        twin._pair_count = self._pair_count
        for tenant, holding in self._holdings.items():
            recency = Recency(partial(runs.access, tenant=holding.number))
            recency.copy_from(holding.recency)
            copied = twin._holdings[tenant] = Holding(holding.number, recency)
            copied.block_count = holding.block_count
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
