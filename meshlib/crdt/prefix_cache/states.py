"""Which tenant has which prefix cached: by text, or by the hashes of blocks.

Rule: entries are stored in the index that answers matches and nowhere beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar, Self

from meshlib.crdt.known import KnownText
from meshlib.crdt.prefix_cache.store import ORIGIN, Generation
from meshlib.crdt.prefix_cache.tenant_cache import TenantCache
from meshlib.crdt.prefix_cache.wire import (
    SharedTexts,
    read_blocks,
    read_tenants,
    read_texts,
    write_blocks,
    write_texts,
)
from meshlib.crdt.registry import register
from meshlib.errors import InvalidValueError, LimitError, UnknownKeyError
from meshlib.limits import BLOCKS_MAX, PREFIX_HELD_FACTOR, TREE_CHARACTERS_MAX
from meshlib.prefix import BlockIndex, Chain, Match, RadixTree, check_block, check_text

new_tuple = tuple.__new__

__all__ = ["HashedPrefixCacheState", "PrefixCacheState"]


class PrefixCacheState(TenantCache[str, RadixTree]):
    """Texts that tenants have cached, in a radix tree: a match may have any length.

    What a router records when it sends a prompt to a worker. A hint and no more: a worker may
    have dropped what is recorded here, and then it computes the prompt again.

    Accesses are integers in one unit on all nodes, milliseconds of a clock for example: fine
    enough that what was used since the last eviction differs from what was not, and raised no
    more often than that matters, since each raise is a write.
    """

    __slots__ = ("_known",)

    _what: ClassVar[str] = "tree characters"
    _size_max: ClassVar[int] = TREE_CHARACTERS_MAX

    def __init__(self) -> None:
        super().__init__()
        self._known: KnownText | None = None

    @staticmethod
    def _new_store() -> RadixTree:
        return RadixTree(characters_max=TREE_CHARACTERS_MAX * PREFIX_HELD_FACTOR)

    @staticmethod
    def _size_of(key: str, /) -> int:
        return len(key)

    def insert(self, text: str, *, tenant: str, access: int) -> Self:
        """Return the delta that records a text, or raises its access. O(d + m).

        The bottom when the entry is held and as young, or is at or under the tenant's floor.

        Args:
            text: 1 to 262,144 characters, without lone surrogates: it travels as UTF-8.
            tenant: who has it; 1 byte to 1 KiB in UTF-8.
            access: when it was used; 1 to 2**63 - 1.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: an empty text or tenant, a lone surrogate, an access out of range.
            LimitError: a text too long, a tenant too many, or more than 67,108,864 characters
                in the tree; evict first.
        """
        check_text(text)
        _check_encodable(text)
        delta = self._insert((text,), tenant=tenant, access=access)
        if self.size + len(text) > TREE_CHARACTERS_MAX and not delta.is_bottom():
            size = self.size + len(text) - self.match(text).matched
            if size > TREE_CHARACTERS_MAX:
                raise LimitError(self._what, size=size, limit=TREE_CHARACTERS_MAX)
        return delta

    def insert_here(self, text: str, *, tenant: str, access: int) -> Self:
        """Record a text in this very state, in one descent, and return the delta.

        The same as to `absorb` what `insert` returns, for whoever makes a write of its own.
        Arguments and errors as of `insert`; this state is unchanged after any of them.
        """
        check_text(text)
        _check_encodable(text)
        self._check_insertion(tenant, access)
        generation = self._generations.get(tenant, ORIGIN)
        if access <= generation.floor:
            return type(self)()
        store = self._store
        if store.size + len(text) > TREE_CHARACTERS_MAX:
            size = store.size + len(text) - store.match(text).matched
            if size > TREE_CHARACTERS_MAX:
                raise LimitError(self._what, size=size, limit=TREE_CHARACTERS_MAX)
        data, name, size = store.known_beginning(text)
        key_hash, previous = store.place(text, tenant=tenant, access=access)
        if previous is not None and previous >= access:
            return type(self)()
        own_name = key_hash if previous is None else 0
        known = new_tuple(KnownText, (tenant, data, own_name, name, size))
        self._note_placed(tenant, generation.epoch, key_hash, previous, access)
        if generation.floor:
            generation = Generation(generation.epoch, 0)
        return self._of_one(text, tenant, access, generation, known)

    @classmethod
    def _of_one(
        cls, text: str, tenant: str, access: int, generation: Generation, known: KnownText
    ) -> Self:
        """Return a cache of one entry: as many are made as there are placements."""
        made = cls.__new__(cls)
        made._built = made._digests = None
        made._light = {tenant: {text: access}}
        made._light_count = 1
        made._generations = {tenant: generation}
        made._known = known
        return made

    def known_texts(self) -> Sequence[KnownText]:
        """Return what was known of the text that `insert_here` put into this delta. O(1)."""
        return () if self._known is None else (self._known,)

    def text_named(self, name: int) -> bytes | None:
        """Return the UTF-8 of a text by the hash of it; as `RadixTree.data_named`."""
        return self._store.data_named(name)

    def touch(self, text: str, *, tenant: str, access: int) -> Self:
        """Return the delta that raises the access of an entry; as `insert`.

        Raises:
            UnknownKeyError: the tenant has no such entry.
        """
        if self._store.access(text, tenant=tenant) is None:
            raise UnknownKeyError("entry", text)
        return self.insert(text, tenant=tenant, access=access)

    def access(self, text: str, *, tenant: str) -> int | None:
        """Return the last access of exactly this entry, or None. O(d + m)."""
        return self._store.access(text, tenant=tenant)

    def match(self, text: str) -> Match:
        """Find the longest prefix anybody has, and all who have it; as `RadixTree.match`."""
        return self._store.match(text)

    def match_tenant(self, text: str, *, tenant: str) -> int:
        """Return how many characters of `text` one tenant has; as `RadixTree.match_tenant`."""
        return self._store.match_tenant(text, tenant=tenant)

    def match_each(self, text: str) -> dict[str, int]:
        """Return how many characters of `text` each tenant has; as `RadixTree.match_each`."""
        return self._store.match_each(text)

    def characters(self, tenant: str) -> int:
        """Count the characters that a tenant has in the tree. O(1)."""
        return self._store.characters(tenant)

    def bucket_parts(
        self, buckets: Collection[int], *, size_max: Callable[[], int]
    ) -> Iterator[Self]:
        """Return states whose join is the `part` of some buckets; as `TenantCache.bucket_parts`.

        What several tenants have comes together, for in a part it is written once.
        """
        return self._parts_of(self._rows_by_text(frozenset(buckets)), size_max)

    def _rows_by_text(
        self, buckets: Collection[int]
    ) -> Iterator[tuple[str, Generation, Iterable[tuple[str, int]]] | None]:
        for tenant, generation in self._generations.items():
            yield tenant, generation, ()
        for found in self._store.entries_by_key(buckets=buckets):
            if found is None:
                yield None
                continue
            text, held = found
            for tenant, access in held:
                yield tenant, self._generations[tenant], ((text, access),)

    def to_wire(self) -> Any:
        """Return the canonical tree: a row for each tenant, sorted. O(n log n)."""
        texts = SharedTexts()
        return tuple(
            (tenant, *self._generations[tenant], *write_texts(self.entries(tenant), texts))
            for tenant in sorted(self._generations)
        )

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a cache that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: over a limit.
        """
        state, texts = cls(), SharedTexts()
        for tenant, epoch, floor, (oldest, row) in read_tenants(wire, columns=2):
            entries = read_texts(oldest, row, floor=floor, texts=texts)
            state._read_row(tenant, Generation(epoch, floor), entries)
        return state


class HashedPrefixCacheState(TenantCache[int, BlockIndex]):
    """Blocks that tenants have cached, by chain hash: no text leaves the node.

    Eight bytes a block instead of the text; a match ends at the end of a block. Chains come from
    `prefix.text_chain` or `prefix.token_chain`, cut alike on all nodes, or from an engine's own
    block events. Otherwise as `PrefixCacheState`.
    """

    __slots__ = ()

    _what: ClassVar[str] = "blocks"
    _size_max: ClassVar[int] = BLOCKS_MAX
    _light_max: ClassVar[int] = 4096

    @staticmethod
    def _new_store() -> BlockIndex:
        # Peers send blocks sorted, not as chains, so where each one is will be asked soon.
        return BlockIndex(blocks_max=BLOCKS_MAX * PREFIX_HELD_FACTOR, is_by_block=True)

    @staticmethod
    def _size_of(_key: int, /) -> int:
        return 1

    def _older(self, keys: Iterable[int], *, tenant: str, access: int) -> list[int]:
        return self._store.older(keys, tenant=tenant, access=access)

    def _store_all(
        self, entries: Iterable[tuple[int, int]], tenant: str
    ) -> list[tuple[int, int | None, int, int]]:
        # Blocks of one access at a time: those of a chain come together and are one run.
        stored: list[tuple[int, int | None, int, int]] = []
        for access, pairs in groupby(entries, key=itemgetter(1)):
            blocks = [block for block, _ in pairs]
            placed = self._store.place_all(blocks, tenant=tenant, access=access)
            stored.extend([(block, previous, block, access) for block, previous in placed])
        return stored

    def insert_blocks(self, chain: Iterable[int], *, tenant: str, access: int) -> Self:
        """Return the delta that records blocks, or raises their access. O(blocks).

        Only the blocks that are new or raised are in it; the bottom when there are none.

        Args:
            chain: hashes of 64 bits.
            tenant: who has them; 1 byte to 1 KiB in UTF-8.
            access: when they were used; 1 to 2**63 - 1.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: an empty tenant, or a number out of range.
            LimitError: a tenant too many, or more than 2,097,152 blocks; evict first.
        """
        if type(chain) is not Chain:
            chain = tuple(chain)
            for block in chain:
                check_block(block)
            chain = tuple(dict.fromkeys(chain))
        delta = self._insert(chain, tenant=tenant, access=access)
        size = self.size + len(delta)
        if size > BLOCKS_MAX:
            added = sum(
                self._store.access(block, tenant=tenant) is None
                for block, _ in delta.entries(tenant)
            )
            size = self.size + added
            if added and size > BLOCKS_MAX:
                raise LimitError(self._what, size=size, limit=BLOCKS_MAX)
        return delta

    def insert_here(self, blocks: Sequence[int], *, tenant: str, access: int) -> Self:
        """Record blocks in this very state, and return the delta. O(blocks).

        The same as to `absorb` what `insert_blocks` returns, for whoever makes a write of its own.
        Errors as of that; this state is unchanged after any of them.

        Args:
            blocks: a chain or some of one, each block once.
            tenant: who has them.
            access: when they were used.
        """
        self._check_insertion(tenant, access)
        delta = type(self)()
        generation = self._generations.get(tenant, ORIGIN)
        if access <= generation.floor:
            return delta
        store = self._store
        if store.size + len(blocks) > BLOCKS_MAX:
            size = store.size + store.accesses(blocks, tenant=tenant).count(None)
            if size > max(BLOCKS_MAX, store.size):
                raise LimitError(self._what, size=size, limit=BLOCKS_MAX)
        placed = store.place_all(blocks, tenant=tenant, access=access)
        for block, previous in placed:
            self._note_placed(tenant, generation.epoch, block, previous, access)
        delta._place_all(
            [(block, access) for block, _ in placed], tenant=tenant, epoch=generation.epoch
        )
        return delta

    def access(self, block: int, *, tenant: str) -> int | None:
        """Return the last access of a block, or None. O(1)."""
        return self._store.access(block, tenant=tenant)

    def accesses(self, blocks: Sequence[int], *, tenant: str) -> list[int | None]:
        """Return the last access of each block by a tenant; as `BlockIndex.accesses`."""
        return self._store.accesses(blocks, tenant=tenant)

    def match(self, chain: Iterable[int]) -> Match:
        """Find the most leading blocks anybody has; as `BlockIndex.match`."""
        return self._store.match(chain)

    def match_tenant(self, chain: Iterable[int], *, tenant: str) -> int:
        """Return how many leading blocks one tenant has; as `BlockIndex.match_tenant`."""
        return self._store.match_tenant(chain, tenant=tenant)

    def match_each(self, chain: Iterable[int]) -> dict[str, int]:
        """Return how many leading blocks each tenant has; as `BlockIndex.match_each`."""
        return self._store.match_each(chain)

    def to_wire(self) -> Any:
        """Return the canonical tree: a row for each tenant, sorted. O(n log n)."""
        return tuple(
            (tenant, *self._generations[tenant], *write_blocks(self.entries(tenant)))
            for tenant in sorted(self._generations)
        )

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a cache that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: over a limit.
        """
        state = cls()
        for tenant, epoch, floor, (oldest, hashes, offsets) in read_tenants(wire, columns=3):
            entries = read_blocks(oldest, hashes, offsets, floor=floor)
            state._read_row(tenant, Generation(epoch, floor), entries)
        return state


def _check_encodable(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidValueError("the text of an entry cannot be encoded as UTF-8") from error


register("prefix_cache", PrefixCacheState)
register("prefix_cache_hash", HashedPrefixCacheState)
