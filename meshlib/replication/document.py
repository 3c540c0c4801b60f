"""One document: a state, its type, and what its type can do, looked up once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from meshlib.clock import Stamp
from meshlib.crdt import registry
from meshlib.crdt.lattice import Container, Lattice, Numbered, Paged, Stamped, difference
from meshlib.errors import DecodeError, RejectReason
from meshlib.identity import ActorId

__all__ = ["Document", "Traits", "latest_stamp"]

Covers = Callable[[ActorId, int], bool]
"""Tells whether the write of that actor and number was absorbed here."""


class Traits:
    """What a class of lattices can do. Runtime checks of protocols are slow, so kept by class."""

    __slots__ = ("is_container", "is_numbered", "is_paged", "is_stamped")

    def __init__(self, state: Lattice) -> None:
        self.is_container: Final = isinstance(state, Container)
        self.is_numbered: Final = isinstance(state, Numbered)
        self.is_paged: Final = isinstance(state, Paged)
        self.is_stamped: Final = isinstance(state, Stamped)


_traits: dict[type[Any], Traits] = {}


def traits_of(state: Any) -> Traits:
    """Return what the class of a state can do. O(1) once seen."""
    cls = type(state)
    known = _traits.get(cls)
    if known is None:
        known = _traits[cls] = Traits(state)
    return known


def latest_stamp(state: Any) -> Stamp | None:
    """Return the latest stamp in a state, None for types without. O(state)."""
    if traits_of(state).is_stamped:
        stamp: Stamp | None = state.latest_stamp()
        return stamp
    return None


class Document:
    """A named state of one replica.

    Args:
        name: the document's name.
        tag: its type.
        state: the state it begins with; owned from here on.
    """

    __slots__ = ("name", "state", "tag", "traits")

    def __init__(self, name: str, *, tag: str, state: Any) -> None:
        self.name = name
        self.tag = tag
        self.state = state
        self.traits = traits_of(state)

    def absorb(self, delta: Any) -> Any:
        """Join a delta; return the part that was new."""
        if self.traits.is_container:
            return self.state.absorb(delta)
        if delta <= self.state:
            return type(self.state)()
        new = difference(delta, self.state)
        self.state = self.state | delta
        return new

    def absorb_known(self, part: Any, *, covers: Covers) -> Any:
        """Join what may hold writes already absorbed and removed here; return the new part.

        Rule R2: an entry whose write the clock covers and that is not here is dead. Types
        without numbered entries never drop a removal, so for them a plain join is right.
        """
        if self.traits.is_numbered:
            return self.state.absorb_snapshot(part, covers=covers)
        return self.absorb(part)

    def check_type(self, other: Any) -> None:
        """Refuse a state of another type.

        Raises:
            DecodeError: with `RejectReason.TYPE`.
        """
        if type(other) is not type(self.state):
            theirs = registry.type_tag(other)
            raise DecodeError(
                f"document {self.name!r} is a {self.tag}, not a {theirs}", reason=RejectReason.TYPE
            )


def sorted_documents(documents: dict[str, Document]) -> Iterator[Document]:
    """Yield documents by name."""
    for name in sorted(documents):
        yield documents[name]
