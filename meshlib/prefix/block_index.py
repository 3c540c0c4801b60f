"""Who holds which chain of blocks: the radix tree's question, answered from 8 bytes a block.

Rule: how a text or a sequence of tokens becomes a chain must live in this file. The hash of a
block names everything up to its end (`hashing.chain_hashes`), so no text is kept or sent, and a
match ends at the end of a block.
Source: the block hashes of vLLM's prefix cache and of Dynamo's key-value router; chains and a
bit for each tenant instead of their trees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from meshlib.errors import InvalidValueError, LimitError
from meshlib.hashing import chain_hashes
from meshlib.limits import BLOCKS_MAX, PREFIX_HELD_FACTOR, TENANTS_MAX
from meshlib.prefix.recency import Recency
from meshlib.prefix.records import (
    ACCESS_MAX,
    NO_MATCH,
    Match,
    Placement,
    check_access,
    check_block,
    check_tenant,
)

__all__ = ["BLOCK_CHARACTERS", "BLOCK_TOKENS", "BlockIndex", "text_chain", "token_chain"]

BLOCK_CHARACTERS: Final = 256
"""Characters of a block of text unless said otherwise: about 64 tokens."""

BLOCK_TOKENS: Final = 16
"""Tokens of a block unless said otherwise: the default of vLLM and of sglang's indexers."""

TOKEN_MAX: Final = (1 << 32) - 1
"""The highest token id."""


def text_chain(text: str, *, block_characters: int = BLOCK_CHARACTERS) -> tuple[int, ...]:
    """Return the chain of the whole blocks of a text; what does not fill a block is left out.

    O(len(text)). All nodes of a cluster must cut alike.

    Args:
        text: any Unicode, lone surrogates included.
        block_characters: at least 1.

    Raises:
        InvalidValueError: `block_characters` under 1.
    """
    if block_characters < 1:
        raise InvalidValueError(f"block_characters must be at least 1, got {block_characters}")
    end = len(text) - len(text) % block_characters
    return tuple(
        chain_hashes(
            text[start : start + block_characters].encode("utf-8", "surrogatepass")
            for start in range(0, end, block_characters)
        )
    )


def token_chain(tokens: Sequence[int], *, block_tokens: int = BLOCK_TOKENS) -> tuple[int, ...]:
    """Return the chain of the whole blocks of a sequence of token ids, as `text_chain` does.

    Args:
        tokens: ids from 0 to 2**32 - 1.
        block_tokens: at least 1.

    Raises:
        InvalidValueError: `block_tokens` under 1, or a token out of range.
    """
    if block_tokens < 1:
        raise InvalidValueError(f"block_tokens must be at least 1, got {block_tokens}")
    end = len(tokens) - len(tokens) % block_tokens
    try:
        return tuple(
            chain_hashes(
                b"".join(token.to_bytes(4, "big") for token in tokens[start : start + block_tokens])
                for start in range(0, end, block_tokens)
            )
        )
    except OverflowError as error:
        raise InvalidValueError(f"a token must be from 0 to {TOKEN_MAX}") from error


class _Holding:
    """What one tenant has: its bit in the masks, and its blocks by last access."""

    __slots__ = ("accesses", "bit", "recency")

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.accesses: dict[int, int] = {}
        self.recency: Recency[int] = Recency(self.accesses.get)


class BlockIndex:
    """Blocks by hash, each with the tenants that hold it and when they last used it.

    A tenant matches as many leading blocks of a chain as it holds without a gap: that is what
    an engine can reuse. Blocks may come and go one by one, as engines publish them.

    Args:
        blocks_max: how many (block, tenant) pairs the index may hold, 2,097,152 by default, and
            up to 4 times that; an insertion that would cross it is refused.

    Raises:
        InvalidValueError: `blocks_max` under 1.
        LimitError: `blocks_max` over 4 times 2,097,152.
    """

    __slots__ = ("_blocks_max", "_free", "_holdings", "_masks", "_names", "_pair_count")

    def __init__(self, *, blocks_max: int = BLOCKS_MAX) -> None:
        if blocks_max < 1:
            raise InvalidValueError(f"blocks_max must be at least 1, got {blocks_max}")
        if blocks_max > BLOCKS_MAX * PREFIX_HELD_FACTOR:
            raise LimitError("blocks", size=blocks_max, limit=BLOCKS_MAX * PREFIX_HELD_FACTOR)
        self._blocks_max = blocks_max
        self._pair_count = 0
        self._masks: dict[int, int] = {}
        self._holdings: dict[str, _Holding] = {}
        self._names: list[str] = []
        self._free: list[int] = []

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
        return 0 if holding is None else len(holding.accesses)

    def tenants(self) -> tuple[str, ...]:
        """Return the tenants that have blocks, sorted. O(n log n) for n tenants."""
        return tuple(sorted(self._holdings))

    def access(self, block: int, *, tenant: str) -> int | None:
        """Return the last access of a block by a tenant, or None. O(1)."""
        holding = self._holdings.get(tenant)
        return None if holding is None else holding.accesses.get(block)

    def match(self, chain: Iterable[int]) -> Match:
        """Find the most leading blocks that anybody holds, and all who hold them.

        O(blocks matched) dictionary look-ups. `Match.matched` counts blocks.
        """
        masks = self._masks
        holders = -1
        matched = 0
        for block in chain:
            remaining = holders & masks.get(block, 0)
            if not remaining:
                break
            holders = remaining
            matched += 1
        if not matched:
            return NO_MATCH
        return Match(tuple(sorted(self._named(holders))), matched)

    def match_tenant(self, chain: Iterable[int], *, tenant: str) -> int:
        """Return how many leading blocks one tenant holds. O(blocks matched)."""
        holding = self._holdings.get(tenant)
        matched = 0
        if holding is not None:
            for block in chain:
                if block not in holding.accesses:
                    break
                matched += 1
        return matched

    def match_each(self, chain: Iterable[int]) -> dict[str, int]:
        """Return how many leading blocks each tenant holds, sorted by tenant.

        Tenants that hold none are left out. O(blocks matched + t log t) for t tenants.
        """
        masks = self._masks
        holders = -1
        matched = 0
        reached: dict[str, int] = {}
        for block in chain:
            remaining = holders & masks.get(block, 0)
            if matched and remaining != holders:
                reached.update(dict.fromkeys(self._named(holders & ~remaining), matched))
            holders = remaining
            if not holders:
                break
            matched += 1
        if matched and holders:
            reached.update(dict.fromkeys(self._named(holders), matched))
        return {tenant: reached[tenant] for tenant in sorted(reached)}

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
            for block, access in holding.accesses.items():
                if buckets is None or block >> 56 in buckets:
                    yield block, access

    def entry_hashes(self, tenant: str) -> Iterator[tuple[int, int]]:
        """Yield the (block, access) pairs of a tenant: a block is its own hash."""
        return self.entries(tenant)

    def oldest(self, tenant: str) -> tuple[int, int] | None:
        """Return the least recently used (block, access) of a tenant. Amortised O(log n)."""
        holding = self._holdings.get(tenant)
        return None if holding is None else holding.recency.oldest()

    def oldest_access(self, tenant: str) -> int | None:
        """Return the access of a tenant's least recently used block. Amortised O(log n)."""
        oldest = self.oldest(tenant)
        return None if oldest is None else oldest[1]

    def floor_for(self, size_max: int) -> int:
        """Return the lowest floor whose eviction of every tenant leaves `size_max` pairs at most.

        0 when there are no more than that. O(n log n), for an eviction now and then.
        """
        excess = self._pair_count - size_max
        if excess <= 0:
            return 0
        accesses = [
            access for holding in self._holdings.values() for access in holding.accesses.values()
        ]
        accesses.sort()
        return accesses[excess - 1]

    def _named(self, holders: int) -> list[str]:
        names: list[str] = []
        while holders:
            bit = holders & -holders
            names.append(self._names[bit.bit_length() - 1])
            holders ^= bit
        return names

    # Inserting

    def insert(self, chain: Iterable[int], *, tenant: str, access: int) -> int:
        """Insert blocks, or raise their access. O(blocks).

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
        blocks = tuple(chain)
        for block in blocks:
            check_block(block)
        check_access(access)
        known = self._holdings.get(tenant)
        held = {} if known is None else known.accesses
        raised = [block for block in dict.fromkeys(blocks) if held.get(block, -1) < access]
        if not raised:
            return 0
        holding = self._room_for(tenant, sum(block not in held for block in raised))
        for block in raised:
            self._put(holding, block, access)
        return len(raised)

    def place(self, block: int, *, tenant: str, access: int) -> Placement:
        """Insert one block, and tell what was there before. O(1). Errors as of `insert`."""
        check_block(block)
        check_access(access)
        known = self._holdings.get(tenant)
        previous = None if known is None else known.accesses.get(block)
        if previous is None or previous < access:
            self._put(self._room_for(tenant, 1 if previous is None else 0), block, access)
        return Placement(block, previous)

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
            slot = self._free.pop()
            self._names[slot] = tenant
        else:
            slot = len(self._names)
            self._names.append(tenant)
        holding = self._holdings[tenant] = _Holding(1 << slot)
        return holding

    def _put(self, holding: _Holding, block: int, access: int) -> None:
        if block not in holding.accesses:
            self._masks[block] = self._masks.get(block, 0) | holding.bit
            self._pair_count += 1
            holding.accesses[block] = access
            holding.recency.add(block, access=access)
        else:
            holding.accesses[block] = access

    # Removing

    def remove(self, blocks: Iterable[int], *, tenant: str) -> int:
        """Remove blocks of a tenant; return how many were there. O(blocks)."""
        holding = self._holdings.get(tenant)
        if holding is None:
            return 0
        removed = 0
        for block in blocks:
            if holding.accesses.pop(block, None) is not None:
                self._clear(block, holding.bit)
                holding.recency.discard()
                removed += 1
        self._forget_if_empty(tenant, holding)
        return removed

    def remove_tenant(self, tenant: str) -> int:
        """Remove a tenant with all its blocks; return how many. O(its blocks)."""
        return len(self.evict(tenant, floor=ACCESS_MAX))

    def evict(self, tenant: str, *, floor: int) -> list[tuple[int, int]]:
        """Drop the blocks of a tenant that were last used at or before `floor`.

        O((k + touched since) log n) for k dropped of n.

        Returns:
            The (block, access) pairs of what was dropped, oldest first.
        """
        holding = self._holdings.get(tenant)
        if holding is None:
            return []
        dropped: list[tuple[int, int]] = []
        for block, access in holding.recency.take_up_to(floor):
            del holding.accesses[block]
            self._clear(block, holding.bit)
            dropped.append((block, access))
        self._forget_if_empty(tenant, holding)
        dropped.sort(key=lambda pair: (pair[1], pair[0]))
        return dropped

    def _clear(self, block: int, bit: int) -> None:
        self._pair_count -= 1
        mask = self._masks[block] & ~bit
        if mask:
            self._masks[block] = mask
        else:
            del self._masks[block]

    def _forget_if_empty(self, tenant: str, holding: _Holding) -> None:
        if not holding.accesses:
            del self._holdings[tenant]
            self._free.append(holding.bit.bit_length() - 1)

    def copy(self) -> BlockIndex:
        """Return an independent index with the same blocks. O(n)."""
        twin = BlockIndex(blocks_max=self._blocks_max)
        twin._masks = dict(self._masks)
        twin._names = list(self._names)
        twin._free = list(self._free)
        twin._pair_count = self._pair_count
        for tenant, holding in self._holdings.items():
            copied = twin._holdings[tenant] = _Holding(holding.bit)
            copied.accesses.update(holding.accesses)
            copied.recency.copy_from(holding.recency)
        return twin

    def _check(self) -> None:
        """Assert every invariant; shows what is broken. O(n)."""
        masks: dict[int, int] = {}
        for tenant, holding in self._holdings.items():
            assert holding.accesses, f"{tenant!r} is kept without blocks"
            assert self._names[holding.bit.bit_length() - 1] == tenant, tenant
            assert holding.bit.bit_length() - 1 not in self._free, tenant
            assert holding.recency.count == len(holding.accesses), tenant
            holding.recency._check()  # noqa: SLF001 - one structure, one check
            for block in holding.accesses:
                masks[block] = masks.get(block, 0) | holding.bit
        assert masks == self._masks, (masks, self._masks)
        assert self._pair_count == sum(mask.bit_count() for mask in masks.values())
        assert self._pair_count <= self._blocks_max
        assert len(self._names) == len(self._holdings) + len(self._free)
