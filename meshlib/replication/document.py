"""One document: a state, its type, and what its type can do, looked up once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

from meshlib.clock import Stamp
from meshlib.crdt import (
    Container,
    Lattice,
    Numbered,
    Paged,
    Stamped,
    components_of,
    difference,
    registry,
)
from meshlib.errors import (
    DecodeError,
    DocumentTypeError,
    InvalidTypeError,
    LimitError,
    LimitExceeded,
    LocalError,
    RejectReason,
    RemoteError,
    UnknownKeyError,
)
from meshlib.identity import ActorId, check_name
from meshlib.invariants import require
from meshlib.limits import DOCUMENT_NAME_BYTES_MAX, DOCUMENTS_MAX
from meshlib.replication.vector import marked_number

__all__ = [
    "Covers",
    "DocumentTable",
    "HeldDocument",
    "Prunable",
    "Traits",
    "latest_stamp",
    "size_of",
]

TAKE_OVER_FACTOR: Final = 4
"""How many times as much must come as is here, for what comes to take the place of what is here."""

TAKE_OVER_MIN: Final = 1024
"""And at least how many entries: fewer are joined as quickly, and told as what was new."""

Covers = Callable[[ActorId, int], bool]
"""Tells whether the write of that actor and number was absorbed here."""


class _Entry(Protocol):
    @property
    def stamp(self) -> Stamp:
        """When it was written."""
        ...

    @property
    def sequence(self) -> int:
        """Which write of its writer made it."""
        ...

    @property
    def payload(self) -> bytes | None:
        """The value's bytes; None for a tombstone."""
        ...


@runtime_checkable
class Prunable(Protocol):
    """A numbered state whose entries can be looked at and dropped one by one: `LWWMap`."""

    def entries(self) -> Iterator[tuple[Any, _Entry]]:
        """Yield every key and entry, tombstones included."""
        ...

    def entry(self, key: Any, /) -> _Entry | None:
        """Return what is held for a key, tombstones included."""
        ...

    def written_by(self, actors: Collection[ActorId]) -> Iterator[tuple[Any, ActorId, int]]:
        """Yield key, actor and number of the entries of some writers, in no order."""
        ...

    def part(self, buckets: Collection[int]) -> Prunable:
        """Return the state of these buckets."""
        ...

    def drop(self, keys: Iterable[Any], /) -> int:
        """Drop entries, live ones too, and return how many. Not a join."""
        ...


class Traits:
    """What a class of lattices can do. Runtime checks of protocols are slow, so kept by class."""

    __slots__ = ("is_container", "is_numbered", "is_paged", "is_prunable", "is_stamped")

    def __init__(self, state: Lattice) -> None:
        self.is_container: Final = isinstance(state, Container)
        self.is_numbered: Final = isinstance(state, Numbered)
        self.is_paged: Final = isinstance(state, Paged)
        self.is_prunable: Final = self.is_numbered and isinstance(state, Prunable)
        self.is_stamped: Final = isinstance(state, Stamped)


_traits: dict[type[Any], Traits] = {}


def _traits_of(state: Any) -> Traits:
    cls = type(state)
    known = _traits.get(cls)
    if known is None:
        known = _traits[cls] = Traits(state)
    return known


def latest_stamp(state: Any) -> Stamp | None:
    """Return the latest stamp in a state, None for types without. O(state)."""
    if _traits_of(state).is_stamped:
        stamp: Stamp | None = state.latest_stamp()
        return stamp
    return None


def size_of(state: Any) -> int:
    """Return how many entries a state has, with those of its components; 0 without any. O(1)."""
    components = components_of(state)
    if components:
        return sum(size_of(component) for component in components.values())
    return len(state) if hasattr(state, "__len__") else 0


def _is_numbered_inside(state: Any) -> bool:
    components = components_of(state)
    if components:
        return any(_is_numbered_inside(component) for component in components.values())
    return _traits_of(state).is_numbered


class HeldDocument:
    """A named state of one replica.

    Args:
        name: the document's name.
        tag: its type.
        state: the state it begins with; owned from here on.
        skipped: for each writer the last entry that could not be read and was passed over.
            While there is one, what is absent here proves nothing: nothing is claimed to be
            removed to a peer, and nothing that comes is taken for dead.

    Rule: what a transfer has brought so far may be shown to readers before it is joined. It is in
    `view` then, beside `state` and not in it: nothing that peers or disks are given is made from
    it, and no vector counts it. See `Replica.keep_early`, which ends that.
    """

    __slots__ = ("_shown", "name", "skipped", "state", "tag", "traits")

    def __init__(
        self, name: str, *, tag: str, state: Any, skipped: dict[ActorId, int] | None = None
    ) -> None:
        self.name = name
        self.tag = tag
        self.state = state
        self.traits = _traits_of(state)
        self.skipped: dict[ActorId, int] = {} if skipped is None else skipped
        self._shown: Any = None

    @property
    def view(self) -> Any:
        """What readers and writers are given: the state, joined with what is shown early."""
        return self.state if self._shown is None else self._shown

    @property
    def is_early(self) -> bool:
        """Whether readers see more than the state."""
        return self._shown is not None

    def show(self, part: Any, *, covers: Covers) -> Any:
        """Let readers see a part of a peer's state that is not joined yet; return what is new.

        By rule R2, as when it will be joined. O(part), and O(state) the first time.
        """
        if self._shown is None:
            self._shown = self.state.copy()
        return self._shown.absorb_transfer(part, covers=covers)

    def show_written(self, delta: Any) -> None:
        """Let readers see what was written into the state itself. O(1) but for early readers."""
        if self._shown is not None:
            self._shown.absorb(delta)

    def hide(self) -> bool:
        """Let readers see the state alone again; tell whether they saw more. O(1)."""
        was_early, self._shown = self.is_early, None
        return was_early

    def empty(self) -> HeldDocument:
        """Return an empty document of this name and type. O(1)."""
        return HeldDocument(self.name, tag=self.tag, state=type(self.state)())

    def copy(self) -> HeldDocument:
        """Return a document that does not change with this one. O(n) for containers."""
        state = self.state.copy() if self.traits.is_container else self.state
        return HeldDocument(self.name, tag=self.tag, state=state, skipped=dict(self.skipped))

    def copy_content(self) -> HeldDocument:
        """Return a `copy` that leaves out what can be made again, for use on another thread. O(n).

        Nothing that changes is shared between the two.
        """
        if not hasattr(self.state, "copy_content"):
            return self.copy()
        state = self.state.copy_content()
        return HeldDocument(self.name, tag=self.tag, state=state, skipped=dict(self.skipped))

    def absorb(self, delta: Any) -> Any:
        """Join a delta; return the part that was new."""
        if self.traits.is_container:
            if self._shown is not None:
                self._shown.absorb(delta)
            return self.state.absorb(delta)
        if delta <= self.state:
            return type(self.state)()
        new = difference(delta, self.state)
        self.state = self.state | delta
        return new

    def absorb_known(self, part: Any, *, covers: Covers) -> Any:
        """Join what may hold writes already absorbed and removed here; return the new part.

        Rule R2: an entry whose write the vector covers and that is not here is dead. Types
        without numbered entries never drop a removal, so for them a plain join is right.
        """
        if self.traits.is_numbered and not self.skipped:
            if self._shown is not None:
                self._shown.absorb_transfer(part, covers=covers)
            return self.state.absorb_transfer(part, covers=covers)
        return self.absorb(part)

    def take_over(self, gathered: Any) -> bool:
        """Become a state that was gathered, joined with what is here, where that is much less.

        A large state that comes to a node which has next to nothing is in place at once then, and
        need not be joined into the small one. For types without numbered entries alone, whose join
        never drops anything. The state belongs to this document from then on.

        Returns:
            whether it did; otherwise nothing was changed. O(what was here).
        """
        state = self.state
        if not self.traits.is_container or self.skipped or _is_numbered_inside(state):
            return False
        size = size_of(gathered)
        if size < TAKE_OVER_MIN or size < TAKE_OVER_FACTOR * size_of(state):
            return False
        gathered.absorb(state)
        self.state = gathered
        return True

    def check_type(self, other: Any) -> None:
        """Refuse a state of another type.

        Raises:
            DecodeError: with `RejectReason.TYPE`.
        """
        if type(other) is not type(self.state):
            theirs = registry.type_tag(other)
            raise DecodeError(
                f"document {self.name!r} is of type {self.tag}, not of type {theirs}",
                reason=RejectReason.TYPE,
            )


class DocumentTable:
    """Documents by name, and which of them lack an entry that was passed over."""

    __slots__ = ("_documents", "_skipped")

    def __init__(self) -> None:
        self._documents: dict[str, HeldDocument] = {}
        self._skipped: dict[str, dict[ActorId, int]] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[HeldDocument]:
        """Yield the documents by name."""
        for name in sorted(self._documents):
            yield self._documents[name]

    def find(self, name: str) -> HeldDocument | None:
        """Return a document, None when it is not here. O(1)."""
        return self._documents.get(name)

    def get(self, name: str) -> HeldDocument:
        """Return a document. O(1).

        Raises:
            UnknownKeyError: it is not here.
        """
        document = self._documents.get(name)
        if document is None:
            raise UnknownKeyError("document", name)
        return document

    def put(self, document: HeldDocument) -> None:
        """Keep a document. O(1)."""
        self._documents[document.name] = document

    def open(self, name: str, tag: str) -> HeldDocument:
        """Return a document, made empty when it is not here: see `Replica.open`."""
        document = self._documents.get(name)
        if document is None:
            check_name("the document's name", name, bytes_max=DOCUMENT_NAME_BYTES_MAX)
            if len(self._documents) >= DOCUMENTS_MAX:
                raise LimitError("documents", size=DOCUMENTS_MAX + 1, limit=DOCUMENTS_MAX)
            try:
                state = registry.bottom(tag)
            except RemoteError as error:
                raise InvalidTypeError(str(error)) from error
            document = self._documents[name] = self._new(name, tag, state)
        if document.tag != tag:
            raise DocumentTypeError(name, held=document.tag, wanted=tag)
        return document

    def for_remote(self, name: str, state: Any) -> HeldDocument:
        """Return the document that a peer's state belongs to, a new and empty one if need be.

        A new one is not kept: that is for the caller, once the state was absorbed.

        Raises:
            DecodeError: it has another type, or a malformed name.
            LimitExceeded: one more document than allowed.
        """
        document = self._documents.get(name)
        if document is not None:
            if type(state) is not type(document.state):
                document.check_type(state)
            return document
        if len(self._documents) >= DOCUMENTS_MAX:
            raise LimitExceeded("documents", size=DOCUMENTS_MAX + 1, limit=DOCUMENTS_MAX)
        try:
            check_name("the document's name", name, bytes_max=DOCUMENT_NAME_BYTES_MAX)
        except LocalError as error:
            raise DecodeError(str(error)) from error
        return self._new(name, registry.type_tag(state), type(state)())

    def _new(self, name: str, tag: str, bottom: Any) -> HeldDocument:
        document = HeldDocument(name, tag=tag, state=bottom, skipped=self._skipped.get(name))
        if document.traits.is_paged:
            # Kept up from here on: made when they are first asked for they hold up everything.
            bottom.bucket_digests()
        return document

    def skip(self, name: str, actor: ActorId, sequence: int) -> None:
        """Note that a document lacks an entry that was passed over. O(1)."""
        skipped = self._skipped.setdefault(name, {})
        skipped[actor] = sequence
        document = self._documents.get(name)
        if document is not None:
            document.skipped = skipped
        if len(self._skipped) > DOCUMENTS_MAX:
            del self._skipped[next(iter(self._skipped))]

    def skipped(self) -> list[str]:
        """Return the names of the documents that lack an entry, sorted; some may not be here."""
        return sorted(self._skipped)

    def heal(self, name: str, vector: Mapping[ActorId, int]) -> None:
        """Note that a whole document of a peer with this vector was absorbed. O(skipped)."""
        skipped = self._skipped.get(name)
        if skipped is not None and all(
            marked_number(vector.get(a, 0)) >= n for a, n in skipped.items()
        ):
            skipped.clear()
            del self._skipped[name]

    def diagnostics(self) -> Mapping[str, Any]:
        """Show which documents there are, of which type, and which lack an entry."""
        return {
            "tags": {name: document.tag for name, document in self._documents.items()},
            "skipped": MappingProxyType(self._skipped),
        }

    def _check(self) -> None:
        """Assert that documents are what they are called, and lack what the table says."""
        require(self, len(self._documents) <= DOCUMENTS_MAX, "there are too many documents")
        require(self, len(self._skipped) <= DOCUMENTS_MAX, "too many documents lack something")
        require(self, all(self._skipped.values()), "a document is said to lack nothing")
        for name, document in self._documents.items():
            require(self, document.name == name, "a document is kept under another name")
            is_right = registry.type_tag(document.state) == document.tag
            require(self, is_right, "a document is of another type than its tag")
            skipped = self._skipped.get(name)
            is_known = skipped is None or document.skipped is skipped
            require(self, is_known, "a document does not know what it lacks")
            is_seen = not document.is_early or document.state <= document.view
            require(self, is_seen, "readers do not see all that is there")
