"""Routing trees without text: who holds which blocks, by chain hashes.

Rule: no prompt text leaves a node in this mode. What stands for a prompt are the hashes of its
blocks of 256 characters, each with all that is before it; a session, whose key is a hash already,
is one block. Everything else, such as removals and epochs, is as of the trees of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Final

import attrs

from meshlib.crdt import GCounter, HashedPrefixCacheState, Record, lattice
from meshlib.errors import ConfigError
from meshlib.limits import BLOCKS_MAX
from meshlib.prefix import BLOCK_CHARACTERS, Chain, text_chain
from meshlib.replication import WriteContext, WriteReceipt
from meshlib.routing.prompts.keys import SESSION_MARK
from meshlib.routing.records import TreeInsert, TreeMatch, TreeState
from meshlib.routing.tree_documents import (
    INSERTION_BYTES,
    access_after,
    access_now,
    tree_document,
    used_ms,
)
from meshlib.routing.trees import TreeSync
from meshlib.state import Documents, check_identifier, check_text

__all__ = ["HashedTreeDocument", "HashedTreeSync", "PrefixSync", "tree_sync"]

HASHED_TREE_TAG: Final = "record:tree_hash"

_BLOCK_COST: Final = 96
"""What a block counts for in an insertion: its hash and when it was used are 20 bytes at the most,
and who takes them needs longer than for so many bytes of text."""

_AGES_A_TURN: Final = 8
"""A block counts as used now for this part of the time from a use to being dropped."""


@lattice(name="tree_hash")
class HashedTreeDocument(Record):
    """What is replicated of one model's tree where no text is to travel."""

    cache: HashedPrefixCacheState = attrs.field(factory=HashedPrefixCacheState)
    """Which worker has which blocks cached."""

    changes: GCounter = attrs.field(factory=GCounter)
    """How many operations changed it, by writer."""


class PrefixSync(StrEnum):
    """What is replicated of prompts; all nodes of a cluster alike."""

    TEXT = "text"
    """Their text: a match may have any length."""

    HASH = "hash"
    """Hashes of blocks of 256 characters: no text leaves a node."""

    @classmethod
    def named(cls, name: str) -> PrefixSync:
        """Return the one of a name.

        Raises:
            ConfigError: there is none.
        """
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(cls)
            raise ConfigError(f"prefix_sync must be one of {known}, got {name!r}") from None


def tree_sync(documents: Documents, prefix_sync: PrefixSync) -> TreeSync:
    """Return the trees of all models, of the kind that is wanted."""
    return (HashedTreeSync if prefix_sync is PrefixSync.HASH else TreeSync)(documents)


def _stale(
    cache: HashedPrefixCacheState, chain: Chain, *, tenant: str, access: int, refresh_s: float
) -> Sequence[int]:
    """Return which blocks to write of a chain that is used: what is new or was used long ago.

    And the last one, of which it is told when all were used. A beginning that many share is
    written now and then, not with each of them; but long before its turn to be dropped comes, so
    however little the tree holds it stays as long as it is in use. O(blocks).
    """
    eldest = cache.oldest_tenant()
    if not refresh_s or eldest is None:
        return chain
    fresh = min(access_after(refresh_s), (access - eldest[1]) // _AGES_A_TURN)
    held = cache.accesses(chain, tenant=tenant)
    least = access - max(0, fresh)
    stale = [block for block, last in zip(chain, held, strict=True) if last is None or last < least]
    if not stale or stale[-1] != chain[-1]:
        stale.append(chain[-1])
    return stale


def _chain(text: str) -> Chain:
    """Return the blocks that stand for a text; what does not fill one is left out."""
    if text.startswith(SESSION_MARK):
        return text_chain(text, block_characters=len(text))
    return text_chain(text)


class HashedTreeSync(TreeSync):
    """The trees of all models by the hashes of blocks; otherwise as `TreeSync`.

    A match ends at the end of a block, and of a text shorter than one nothing is known. Sizes are
    256 characters a block of each worker: what workers share counts for each of them.
    """

    __slots__ = ("_chain", "_text")

    _document_type: ClassVar[type[Record]] = HashedTreeDocument
    _document_tag: ClassVar[str] = HASHED_TREE_TAG

    def __init__(self, documents: Documents) -> None:
        super().__init__(documents)
        # Of the text last asked for: to decide and to place is one computation.
        self._text, self._chain = "", text_chain("")

    def _chain_of(self, text: str) -> Chain:
        if text is not self._text:
            self._text, self._chain = text, _chain(text)
        return self._chain

    def characters(self, model_id: str) -> int:
        """Return how many characters stand behind the blocks of a model's tree. O(1)."""
        return super().characters(model_id) * BLOCK_CHARACTERS

    def state(self, model_id: str) -> TreeState | None:
        """Return a model's tree as far as it can be told: its version, and no operations. O(1)."""
        version = self.version(model_id)
        return (
            None
            if version is None
            else TreeState(model_id=model_id, operations=(), version=version)
        )

    def slices(self, model_id: str) -> Iterator[tuple[TreeInsert, ...]]:
        """Yield no insertions: nobody knows the texts."""
        del model_id
        yield ()

    def match(self, model_id: str, text: str) -> TreeMatch:
        """Find the longest prefix of a text; as `MeshSyncManager.match_tree`."""
        check_identifier("model_id", model_id)
        check_text("text", text)
        document = self._find(model_id)
        if document is None:
            return TreeMatch(tenants=(), matched=0, input_length=len(text))
        tenants, blocks = document.cache.match(self._chain_of(text))
        matched = blocks * BLOCK_CHARACTERS
        return TreeMatch(tenants=tenants, matched=matched, input_length=len(text))

    def held(self, model_id: str, text: str) -> dict[str, int]:
        """Return how many characters of a text each tenant has, whole blocks. O(text)."""
        document = self._find(model_id)
        if document is None:
            return {}
        each = document.cache.match_each(self._chain_of(text))
        return {tenant: blocks * BLOCK_CHARACTERS for tenant, blocks in each.items()}

    def held_by(self, model_id: str, text: str, tenant: str) -> int:
        """Return how many characters of a text one tenant has, whole blocks. O(text)."""
        document = self._find(model_id)
        if document is None:
            return 0
        blocks: int = document.cache.match_tenant(self._chain_of(text), tenant=tenant)
        return blocks * BLOCK_CHARACTERS

    def last_user(self, model_id: str, text: str) -> tuple[str, float] | None:
        """Return the tenant that used the last block of a text last; as of `TreeSync`."""
        document, chain = self._find(model_id), self._chain_of(text)
        if document is None or not chain:
            return None
        each = document.cache.match_each(chain)
        uses = [
            (document.cache.access(chain[-1], tenant=tenant), tenant)
            for tenant, blocks in each.items()
            if blocks == len(chain)
        ]
        if not uses:
            return None
        access, tenant = max(uses)
        return tenant, self._documents.replica.clock.wall_s() - used_ms(access) / 1000.0

    def _key_of(self, text: str) -> tuple[Any, int]:
        chain = self._chain_of(text)
        return chain, len(chain) * BLOCK_CHARACTERS

    def _last_use(self, model_id: str, key: Any, tenant: str) -> int | None:
        return super()._last_use(model_id, key[-1], tenant)

    def _insert(
        self, model_id: str, key: Any, tenant: str, characters_max: int, refresh_s: float = 0.0
    ) -> WriteReceipt:
        chain: Chain = key
        document = self._find(model_id)
        if document is None:
            self._documents.replica.open(tree_document(model_id), type_tag=HASHED_TREE_TAG)
        elif self._is_shut(document, model_id, tenant):
            return self._unchanged()
        else:
            self._make_room_for(model_id, chain, tenant, characters_max)

        def insert(state: HashedTreeDocument, context: WriteContext) -> HashedTreeDocument:
            cache = state.cache
            count = len(cache)
            access = access_now(cache, context, tenant)
            blocks = _stale(cache, chain, tenant=tenant, access=access, refresh_s=refresh_s)
            delta = cache.insert_here(blocks, tenant=tenant, access=access)
            if len(cache) == count:
                return HashedTreeDocument(cache=delta)
            counted = state.changes.increment(by=context.actor)
            state.changes |= counted
            return HashedTreeDocument(cache=delta, changes=counted)

        size = _BLOCK_COST * len(chain) + 4 * len(tenant) + INSERTION_BYTES
        replica = self._documents.replica
        return replica.write_applied(tree_document(model_id), insert, bytes_max=size)

    def _make_room_for(self, model_id: str, chain: Chain, tenant: str, characters_max: int) -> None:
        """Drop the blocks used least recently, everywhere, until these have room."""
        cache = self._find(model_id).cache
        blocks_max = min(characters_max // BLOCK_CHARACTERS, BLOCKS_MAX)
        if cache.size + len(chain) <= blocks_max:
            return
        added = cache.accesses(chain, tenant=tenant).count(None)
        if cache.size + added > blocks_max:
            at_once = blocks_max // 8 + added
            self._bring_down(model_id, max(0, blocks_max - added), at_once=at_once)
