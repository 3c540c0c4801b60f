"""Routing trees: one replicated document for each model, in which the radix tree itself is.

Rule: what an operation does to a tree, what it counts as, and how large a tree may become is
decided in this file. Operations are not kept: they are derived from the state.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final

from meshlib.clock import Stamp
from meshlib.crdt import (
    GCounter,
    PrefixCacheState,
    Record,
    open_epoch,
    shut_epoch,
    shut_through,
    stamp_of_epoch,
    type_tag,
)
from meshlib.errors import (
    ClockAheadError,
    DocumentTypeError,
    LimitError,
    NotReadyError,
    UnknownKeyError,
)
from meshlib.identity import check_name
from meshlib.limits import (
    DOCUMENT_NAME_BYTES_MAX,
    DOCUMENTS_MAX,
    TENANTS_MAX,
    TREE_CHARACTERS_MAX,
)
from meshlib.replication import WriteContext, WriteReceipt
from meshlib.routing.records import TreeInsert, TreeMatch, TreeOperation, TreeState
from meshlib.routing.tree_documents import (
    INSERTION_BYTES,
    TREE_TAG,
    TreeDocument,
    access_now,
    check_operation,
    clipped,
    model_of,
    tree_document,
    used_ms,
)
from meshlib.state import Documents, ReadChecks, check_identifier, check_text

__all__ = ["TreeSync"]

_EVICTION_BYTES: Final = 128
"""What an eviction takes at the most beside its tenant."""

_SLICE_CHARACTERS: Final = 64 * 1024
_SLICE_OPERATIONS: Final = 256
"""What is made of a tree at once where others are to have their turn in between."""

_NOTHING_COUNTED: Final = GCounter()

_UNRECORDED: Final = (ClockAheadError, NotReadyError, DocumentTypeError, LimitError)
"""Why a placement is not recorded: a decision does not fail for any of these."""


class TreeSync:
    """The trees of all models.

    Args:
        documents: where they are kept, each as `tree:{model_id}`.
    """

    __slots__ = ("_checks", "_document_count", "_documents", "written_at")

    _document_type: ClassVar[type[Record]] = TreeDocument
    """What the documents are: a record of a cache and of changes."""

    _document_tag: ClassVar[str] = TREE_TAG

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._checks = ReadChecks(self._is_readable, all_keys=self.models)
        self._document_count = 0
        self.written_at: Callable[[str, str], tuple[int, int] | None] = lambda *_: None
        """Tells when a worker of a model was written last: its millisecond and logical part.

        None of a tenant that is no worker of that model.
        """

    def has(self, model_id: str) -> bool:
        """Tell whether a model has a tree here. O(1)."""
        return self._find(model_id) is not None

    def models(self) -> list[str]:
        """Return the models that have a tree, sorted. O(n log n) in all documents."""
        names = map(model_of, self._documents.replica.documents())
        return sorted(name for name in names if name is not None)

    def note_changes(self, model_ids: Iterable[str] | None) -> None:
        """Take note that the documents of models have changed; None for all of them."""
        self._checks.note(model_ids)

    def unreadable(self) -> list[str]:
        """Return the models whose trees are documents of another type. O(documents)."""
        count = self._documents.replica.document_count
        if count != self._document_count:  # one may have been opened and never written
            self._document_count = count
            self.note_changes(None)
        return sorted(repr(model_id) for model_id in self._checks.unreadable())

    def tenants(self, model_id: str) -> tuple[str, ...]:
        """Return who has texts in a model's tree, sorted. O(n log n) in these."""
        document = self._find(model_id)
        return () if document is None else document.cache.tenants()

    def entry_count(self, model_id: str) -> int:
        """Return how many texts a model's tree holds, over all tenants. O(1)."""
        document = self._find(model_id)
        return 0 if document is None else len(document.cache)

    def entry_count_of(self, model_id: str, tenant: str) -> int:
        """Return how many texts a tenant has in a model's tree. O(1)."""
        document = self._find(model_id)
        return 0 if document is None else document.cache.entry_count(tenant)

    def epochs(self, model_id: str, tenants: Iterable[str] | None = None) -> dict[str, int]:
        """Return by which epoch a model's tree knows some tenants, or all that were removed once.

        O(tenants).
        """
        document = self._find(model_id)
        if document is None:
            return {}
        cache = document.cache
        asked = cache.removed_tenants() if tenants is None else tenants
        return {tenant: cache.generation(tenant).epoch for tenant in asked}

    def shut_through(self, model_id: str, tenant: str) -> tuple[int, int] | None:
        """Return up to which stamp writes of a worker are removed, as the model's tree tells. O(1).

        None where the tree tells of no removal, or of one after which the worker goes on.
        """
        document = self._find(model_id)
        return None if document is None else shut_through(document.cache.generation(tenant).epoch)

    def epoch_stamp(self, model_id: str, tenant: str) -> tuple[int, int]:
        """Return a millisecond and logical part at or after the tenant's last removal. O(1)."""
        document = self._find(model_id)
        epoch = 0 if document is None else document.cache.generation(tenant).epoch
        return stamp_of_epoch(epoch)

    def holds(self, model_id: str, tenant: str) -> bool:
        """Tell whether a tenant has any text in a model's tree. O(1)."""
        document = self._find(model_id)
        return document is not None and document.cache.entry_count(tenant) > 0

    def characters(self, model_id: str) -> int:
        """Return how many characters a model's tree holds; a shared prefix counts once. O(1)."""
        document = self._find(model_id)
        return 0 if document is None else document.cache.size

    def state(self, model_id: str) -> TreeState | None:
        """Return a model's tree as operations; None before the first. O(n log n + characters)."""
        document = self._find(model_id)
        if document is None or not (document.changes.value or len(document.cache)):
            return None
        cache = document.cache
        inserts = sorted(
            (access, tenant, text)
            for tenant in cache.tenants()
            for text, access in cache.entries(tenant)
        )
        return TreeState(
            model_id=model_id,
            operations=tuple(TreeInsert(text, tenant) for _, tenant, text in inserts),
            version=document.changes.value,
        )

    def slices(self, model_id: str) -> Iterator[tuple[TreeInsert, ...]]:
        """Yield the insertions of `state`, a few at a time: others may have their turn between two.

        One tenant is collected at a time, which yields nothing yet; what changes meanwhile may be
        in it or not. O(n log tenants), and each step O(one tenant) or 64 Ki characters.
        """
        document = self._find(model_id)
        runs: list[list[tuple[int, str, str]]] = []
        for tenant in document.cache.tenants() if document is not None else ():
            current = self._find(model_id)  # it may have been replaced meanwhile
            entries = [] if current is None else current.cache.entries(tenant)
            runs.append(sorted((access, tenant, text) for text, access in entries))
            yield ()
        waiting: list[TreeInsert] = []
        size = 0
        for _, tenant, text in heapq.merge(*runs):
            waiting.append(TreeInsert(text, tenant))
            size += len(text)
            if size >= _SLICE_CHARACTERS or len(waiting) >= _SLICE_OPERATIONS:
                yield tuple(waiting)
                waiting, size = [], 0
        yield tuple(waiting)

    def version(self, model_id: str) -> int | None:
        """Return how many operations have changed a model's tree; None without one. O(nodes)."""
        document = self._find(model_id)
        return None if document is None or document.is_bottom() else document.changes.value

    def match(self, model_id: str, text: str) -> TreeMatch:
        """Find the longest prefix of a text; as `MeshSyncManager.match_tree`."""
        check_identifier("model_id", model_id)
        check_text("text", text)
        document = self._find(model_id)
        if document is None:
            return TreeMatch(tenants=(), matched=0, input_length=len(text))
        tenants, matched = document.cache.match(text)
        return TreeMatch(tenants=tenants, matched=matched, input_length=len(text))

    def held(self, model_id: str, text: str) -> dict[str, int]:
        """Return how many characters of a text each tenant has, sorted by tenant. O(d + m)."""
        document = self._find(model_id)
        return {} if document is None else document.cache.match_each(text)

    def held_by(self, model_id: str, text: str, tenant: str) -> int:
        """Return how many characters of a text one tenant has. O(m)."""
        document = self._find(model_id)
        return 0 if document is None else document.cache.match_tenant(text, tenant=tenant)

    def last_user(self, model_id: str, text: str) -> tuple[str, float] | None:
        """Return the tenant that used exactly this text last, and how many seconds ago. O(d + m).

        None where nobody has it. By the stamps of those who recorded it: a clock that is ahead of
        this node's makes the seconds negative.
        """
        document = self._find(model_id)
        if document is None:
            return None
        cache = document.cache
        uses = [
            (access, tenant)
            for tenant, held in cache.match_each(text).items()
            if held == len(text) and (access := cache.access(text, tenant=tenant)) is not None
        ]
        if not uses:
            return None
        access, tenant = max(uses)
        used_s = used_ms(access) / 1000.0
        return tenant, self._documents.replica.clock.wall_s() - used_s

    def apply(
        self, model_id: str, operation: TreeOperation, *, characters_max: int = TREE_CHARACTERS_MAX
    ) -> WriteReceipt:
        """Apply an operation, everywhere; as `MeshSyncManager.sync_tree_operation`.

        Inserting what a tenant has already is no change. Removing one that has nothing here is
        written all the same, since another node may be placing its first text; the version does
        not count it.

        Args:
            model_id: the model.
            operation: what to do.
            characters_max: characters that the tree may hold.
        """
        self.check(model_id, (operation,), characters_max=characters_max)
        if isinstance(operation, TreeInsert):
            key, _ = self._key_of(operation.text)
            return self._insert(model_id, key, operation.tenant, characters_max)
        return self._remove(model_id, operation.tenant)

    def shut(self, model_id: str, tenant: str, *, stamp: Stamp | None) -> WriteReceipt:
        """Remove a tenant whose worker went by a write, everywhere, and name that write. O(1) here.

        Until the worker is written anew nobody places with it: neither who has not heard of the
        removal itself. A tree that names this write or a later one already stays as it is.

        Args:
            model_id: the model.
            tenant: the worker.
            stamp: of the write; None where all have heard of it so long ago that nobody knows it.
        """
        named = self.shut_through(model_id, tenant)
        if stamp is not None and named is not None and named >= stamp[:2]:
            return self._unchanged()
        return self._remove(model_id, tenant, stamp)

    def check(
        self,
        model_id: str,
        operations: Sequence[TreeOperation],
        *,
        characters_max: int = TREE_CHARACTERS_MAX,
    ) -> None:
        """Raise what `apply` would raise of one of these, in order; change nothing. O(texts)."""
        check_identifier("model_id", model_id)
        check_name(
            "the tree's document", tree_document(model_id), bytes_max=DOCUMENT_NAME_BYTES_MAX
        )
        for operation in operations:
            check_operation(operation, characters_max)
        tenants = {item.tenant for item in operations if isinstance(item, TreeInsert)}
        if tenants:
            self._check_room(model_id, tenants)

    def _check_room(self, model_id: str, tenants: set[str]) -> None:
        """Raise when a model can have no tree here, or not these tenants as well."""
        replica = self._documents.replica
        try:
            held = replica.get(tree_document(model_id))
        except UnknownKeyError:
            count = replica.document_count + 1
            if count > DOCUMENTS_MAX:
                raise LimitError("documents", size=count, limit=DOCUMENTS_MAX) from None
            held = self._document_type()
        if not isinstance(held, self._document_type):
            wanted = self._document_tag
            raise DocumentTypeError(tree_document(model_id), held=type_tag(held), wanted=wanted)
        document: Any = held
        size = document.cache.tenant_count(tenants)
        if size > TENANTS_MAX:
            raise LimitError("tenants", size=size, limit=TENANTS_MAX)

    def place(
        self,
        model_id: str,
        text: str,
        *,
        tenant: str,
        held: int,
        characters_max: int,
        refresh_s: float,
    ) -> None:
        """Record that a worker was given a text, unless that is known and not long ago.

        What is held already is no new operation; when it was used last is recorded again after
        `refresh_s`. Of a text longer than can be kept, the beginning is recorded. Nothing is when
        there is no room for the tree or the worker, the document is no tree, or this node's clock
        is wrong: a decision does not fail for that.

        Args:
            model_id: the model.
            text: the prompt.
            tenant: the worker.
            held: how many characters of the text it has, as `held` says.
            characters_max: characters that the tree may hold.
            refresh_s: how old the recorded last use may become, in seconds.
        """
        text = clipped(text, characters_max)
        key, size = self._key_of(text)
        if not size:
            return
        if held >= size:
            last = self._last_use(model_id, key, tenant)
            now_ms = int(self._documents.replica.clock.wall_s() * 1000)
            # A text that is held only as the beginning of a longer one lives as long as that.
            if last is None or now_ms - used_ms(last) < refresh_s * 1000:
                return
        try:
            if not held:
                # Who holds something is in the tree, so there is room for both.
                self._check_room(model_id, {tenant})
            self._insert(model_id, key, tenant, characters_max, refresh_s)
        except _UNRECORDED:
            return

    def _key_of(self, text: str) -> tuple[Any, int]:
        """Return what stands in the tree for a text, and how many characters that are."""
        return text, len(text)

    def _last_use(self, model_id: str, key: Any, tenant: str) -> int | None:
        """Return when a tenant used last what stands for a text, None where it is no entry."""
        document = self._find(model_id)
        return None if document is None else document.cache.access(key, tenant=tenant)

    def _insert(
        self, model_id: str, key: Any, tenant: str, characters_max: int, refresh_s: float = 0.0
    ) -> WriteReceipt:
        """Write that a tenant has what stands for a text; it has room, once others have made it.

        Where that is of several parts, those used in the last `refresh_s` need not be written.
        """
        del refresh_s  # a text is one entry, and the beginnings of it live as long
        text: str = key
        document = self._find(model_id)
        if document is None:
            self._documents.replica.open(tree_document(model_id), type_tag=TREE_TAG)
        elif self._is_shut(document, model_id, tenant):
            return self._unchanged()
        else:
            self._make_room(model_id, document.cache, text, characters_max)

        def insert(state: TreeDocument, context: WriteContext) -> TreeDocument:
            cache = state.cache
            count = len(cache)
            access = access_now(state.cache, context, tenant)
            delta = cache.insert_here(text, tenant=tenant, access=access)
            if len(cache) == count:
                return _delta(delta, _NOTHING_COUNTED)
            counted = state.changes.increment(by=context.actor)
            state.changes |= counted
            return _delta(delta, counted)

        size = len(text) if text.isascii() else len(text.encode())
        size += 4 * len(tenant) + INSERTION_BYTES
        replica = self._documents.replica
        return replica.write_applied(tree_document(model_id), insert, bytes_max=size)

    def _is_shut(self, document: Any, model_id: str, tenant: str) -> bool:
        """Tell whether a tenant is that of a worker of whose removal only the tree has come. O(1).

        What is put under its name is what its removal takes, whoever puts it there.
        """
        named = shut_through(document.cache.generation(tenant).epoch)
        if named is None:
            return False
        written = self.written_at(model_id, tenant)
        return written is not None and written <= named

    def _unchanged(self) -> WriteReceipt:
        replica = self._documents.replica
        return WriteReceipt(
            replica.actor, replica.version_vector.get(replica.actor, 0), is_new=False
        )

    def _remove(self, model_id: str, tenant: str, gone_by: Stamp | None = None) -> WriteReceipt:
        """Raise a tenant's epoch; `gone_by` is of the write by which its worker went, if it did.

        A tenant that is shut stays so, but for one that is a worker again.
        """
        replica = self._documents.replica
        try:
            self._check_room(model_id, {tenant})
            replica.open(tree_document(model_id), type_tag=self._document_tag)
        except (DocumentTypeError, LimitError):
            # Nothing of this tenant is here, and nothing could be.
            return self._unchanged()

        named = self.shut_through(model_id, tenant)
        written = None if named is None else self.written_at(model_id, tenant)
        is_kept_shut = named is not None and (written is None or written <= named)

        def remove(state: Any, context: WriteContext) -> Any:
            before: int = state.cache.generation(tenant).epoch
            if gone_by is not None or is_kept_shut:
                epoch = shut_epoch(gone_by, above=before)
            else:
                epoch = open_epoch(context.stamp(), above=before)
            delta = state.cache.remove_tenant(tenant, epoch=epoch)
            if not state.cache.entry_count(tenant):
                return type(state)(cache=delta)
            return type(state)(cache=delta, changes=state.changes.increment(by=context.actor))

        return self._write(model_id, remove)

    def _make_room(
        self, model_id: str, cache: PrefixCacheState, text: str, characters_max: int
    ) -> None:
        """Drop the least recently used texts, everywhere, until this one has room."""
        size_max = characters_max - len(text)
        if cache.size <= size_max or cache.size <= characters_max - (
            len(text) - cache.match(text).matched
        ):
            return
        # Far over, after a smaller size was set for example: all at once.
        self._bring_down(model_id, size_max, at_once=characters_max // 8 + len(text))

    def _bring_down(self, model_id: str, size_max: int, *, at_once: int) -> None:
        """Drop what was used least recently, everywhere, until so much is left.

        One tenant's oldest after the other, or all in one write where it is more than `at_once`.
        """
        cache = self._find(model_id).cache
        if cache.size - size_max > at_once:
            self._write(
                model_id, lambda state, _: type(state)(cache=state.cache.evict_to(size_max))
            )
            return
        while cache.size > size_max:
            oldest = cache.oldest_tenant()
            if oldest is None:
                return
            tenant, floor = oldest
            self._documents.replica.write_applied(
                tree_document(model_id),
                _evictor(tenant, floor),
                bytes_max=4 * len(tenant) + _EVICTION_BYTES,
            )

    def _find(self, model_id: str) -> Any:
        """Return a model's document, of `_document_type`; None where it is another, or none."""
        try:
            document = self._documents.replica.get(tree_document(model_id))
        except UnknownKeyError:
            return None
        return document if isinstance(document, self._document_type) else None

    def _is_readable(self, model_id: str) -> bool:
        try:
            document = self._documents.replica.get(tree_document(model_id))
        except UnknownKeyError:
            return True
        return isinstance(document, self._document_type)

    def _write(self, model_id: str, mutate: Callable[[Any, WriteContext], Any]) -> WriteReceipt:
        return self._documents.write(tree_document(model_id), mutate)


def _delta(cache: PrefixCacheState, changes: GCounter) -> TreeDocument:
    """Return `TreeDocument(cache=cache, changes=changes)`, which is made for each placement."""
    delta = TreeDocument.__new__(TreeDocument)
    delta.cache, delta.changes = cache, changes
    return delta


def _evictor(tenant: str, floor: int) -> Callable[[Any, WriteContext], Any]:
    def evict(state: Any, _context: WriteContext) -> Any:
        return type(state)(cache=state.cache.evict_here(tenant, floor=floor))

    return evict
