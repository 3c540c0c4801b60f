"""Pairs of lattices: side by side, or one before the other.

`Pair.of(A, B)` and `Lexicographic.of(A, B)` return a class, always the same for the same two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from meshlib.crdt.composed.annotations import lattice_class
from meshlib.crdt.composed.product import Product, own
from meshlib.crdt.lattice import Lattice, absorb, difference
from meshlib.crdt.registry import register, register_family, resolve, type_tag
from meshlib.crdt.wire import wire_digest
from meshlib.errors import DecodeError, InvalidTypeError
from meshlib.reading import read_rows

__all__ = ["Lexicographic", "Pair"]

A = TypeVar("A", bound=Lattice)
B = TypeVar("B", bound=Lattice)

_made: dict[tuple[type[Any], type[Any], type[Any]], type[Any]] = {}


class Pair(Product, Generic[A, B]):
    """Two lattices side by side, joined each for itself. A container.

    Made from a class of `Pair.of(A, B)`, with a bottom for what is left out; a delta is a pair
    in which one side is a delta.
    """

    __slots__ = ("first", "second")

    _family: ClassVar[str] = "pair"

    def __init__(self, first: A | None = None, second: B | None = None) -> None:
        types = self._component_types
        if not types:
            raise InvalidTypeError(f"make the class first: {type(self).__name__}.of(A, B)")
        self.first: A = types["first"]() if first is None else first
        self.second: B = types["second"]() if second is None else second
        self._check_components()

    @classmethod
    def of(cls, first: type[A], second: type[B]) -> type[Self]:
        """Return the class of pairs of two types.

        Raises:
            InvalidTypeError: one of them is not a registered lattice.
        """
        base: Any = Pair if issubclass(cls, Pair) and cls._family == "pair" else Lexicographic
        made: Any = _made.get((base, first, second))
        if made is None:
            tag = f"{base._family}({type_tag(first)},{type_tag(second)})"
            contents = {
                "__slots__": (),
                "__doc__": base.__doc__,
                "_component_types": {"first": first, "second": second},
            }
            name = f"{base.__name__}[{first.__name__}, {second.__name__}]"
            made = type(name, (base,), contents)
            register(tag, made)
            _made[base, first, second] = made
        return cast(type[Self], made)

    @classmethod
    def of_arguments(cls, arguments: Sequence[Any]) -> type[Any]:
        """Return the class that an annotation such as `Pair[GCounter, GSet[str]]` means."""
        first, second = arguments
        return cls.of(lattice_class(first), lattice_class(second))

    @property
    def value(self) -> tuple[Any, Any]:
        """The values of both sides."""
        first: Any = self.first
        second: Any = self.second
        return (first.value, second.value)

    def to_wire(self) -> Any:
        """Return both sides."""
        return (self.first.to_wire(), self.second.to_wire())

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a pair that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: over a limit.
        """
        first, second = read_rows(wire, "a pair", count=2)
        types = cls._component_types
        return cls(types["first"].from_wire(first), types["second"].from_wire(second))


class Lexicographic(Pair[A, B]):
    """Two lattices one before the other: the second counts under an equal first only. A container.

    A higher first replaces both; equal firsts join their seconds; of two firsts that cannot be
    compared the join has the join of the firsts and an empty second. With an epoch that one
    writer raises (a `MaxRegister`, a `GCounter`) as first, raising it is a reset that wins over
    all concurrent changes of the second.
    Source: Almeida, Shoker, Baquero, "Delta state replicated data types", 2018, appendix B.
    """

    __slots__ = ()

    _family: ClassVar[str] = "lexicographic"
    _is_side_by_side: ClassVar[bool] = False

    def _absorb(self, delta: Any) -> Self:
        is_under, is_over = self.first <= delta.first, delta.first <= self.first
        if is_under and is_over:
            self.second, second = absorb(self.second, delta.second)
            return type(self)() if second.is_bottom() else type(self)(own(self.first), second)
        if is_over:
            return type(self)()
        if delta.second.is_bottom():
            new = type(self)(difference(delta.first, self.first))
        else:
            new = delta.copy()
        joined = self | delta
        self.first, self.second = joined.first, joined.second
        return new

    def _join(self, other: Any) -> Self:
        is_under, is_over = self.first <= other.first, other.first <= self.first
        if is_under and is_over:
            return type(self)(own(self.first), self.second | other.second)
        if is_under:
            return type(self)(own(other.first), own(other.second))
        if is_over:
            return type(self)(own(self.first), own(self.second))
        return type(self)(self.first | other.first)

    def _is_under(self, other: Any) -> bool:
        if not self.first <= other.first:
            return False
        return not other.first <= self.first or self.second <= other.second

    def decompose(self) -> Iterator[Self]:
        """Yield the first with each part of the second, or the parts of the first alone."""
        if self.second.is_bottom():
            for part in self.first.decompose():
                yield type(self)(part)
        else:
            for second in self.second.decompose():
                yield type(self)(own(self.first), second)

    def digest(self) -> int:
        """Hash both sides to 64 bits."""
        return wire_digest((self.first.digest(), self.second.digest()))

    # A part of the second means nothing without its first, so there are no pages of one.

    def bucket_digests(self) -> tuple[int, ...]:
        """Return 256 digests, of which only the first is used: the state is one page."""
        return (0 if self.is_bottom() else self.digest(), *(0 for _ in range(255)))

    def part(self, buckets: Any) -> Self:
        """Return the whole state for bucket 0, the bottom for all others."""
        return self.copy() if 0 in buckets else type(self)()

    def _absorb_transfer(self, part: Any, covers: Callable[[Any, int], bool]) -> Self:  # noqa: ARG002
        # An entry under another first is no older write of the same map: nothing is skipped.
        return self._absorb(part)

    def collect(self, is_stable: Callable[[Any], bool]) -> int:  # noqa: ARG002
        """Drop nothing: a tombstone of the second may be missed under the same first."""
        return 0


def _make(family: type[Pair[Any, Any]]) -> Callable[[Sequence[str]], type[Any]]:
    def make(parameters: Sequence[str]) -> type[Any]:
        if len(parameters) != 2:
            raise DecodeError("a pair is of two types")
        return family.of(resolve(parameters[0]), resolve(parameters[1]))

    return make


register_family("pair", _make(Pair))
register_family("lexicographic", _make(Lexicographic))
