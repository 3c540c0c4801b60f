"""The lattice of a few named components, which pairs and records share.

A product joins, orders and decomposes component by component. It also passes on what its
components can: stamps, transfers of numbered entries, and pages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar, Final, Self, cast

from meshlib.arguments import with_article
from meshlib.clock import Stamp
from meshlib.codec import pack
from meshlib.crdt.lattice import Container, Numbered, Paged, Restampable, absorb
from meshlib.crdt.wire import cannot_join, wire_digest
from meshlib.errors import InvalidTypeError
from meshlib.hashing import HASH64_MASK, hash64
from meshlib.identity import ActorId

__all__ = ["Product", "components_of", "own"]

BUCKET_COUNT: Final = 256
"""Buckets of a product: as many as any type of this package has."""


def own(state: Any) -> Any:
    """Return a state that may be changed in place without changing the given one."""
    return state.copy() if isinstance(state, Container) else state


def components_of(state: Any) -> dict[str, Any]:
    """Return by name the components of which a state is the join, each for itself. O(components).

    Empty for what is no product, and for one whose components mean nothing alone.
    """
    if not getattr(state, "_is_side_by_side", False):
        return {}
    return dict(state._components())


class Product:
    """A container of components, each a lattice under a name.

    Subclasses have the components as attributes and can be made from them by keyword, with
    the bottom for each one left out.
    """

    __slots__ = ()

    _component_types: ClassVar[dict[str, type[Any]]] = {}
    _is_side_by_side: ClassVar[bool] = True

    def _components(self) -> Iterator[tuple[str, Any]]:
        for name in self._component_types:
            yield name, getattr(self, name)

    def _put_component(self, name: str, component: Any) -> None:
        # Around a frozen attrs class too: a product changes in place and is not hashable.
        object.__setattr__(self, name, component)

    def _check_components(self) -> None:
        for name, expected in self._component_types.items():
            component = getattr(self, name)
            if type(component) is not expected:
                raise InvalidTypeError(
                    f"{type(self).__name__}.{name} is {with_article(expected.__name__)}, "
                    f"not {with_article(type(component).__name__)}"
                )

    def _require_same(self, other: object) -> None:
        if type(other) is not type(self):
            raise cannot_join(self, other)

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new.

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
        """
        self._require_same(delta)
        return self._absorb(delta)

    def _absorb(self, delta: Any) -> Self:
        """Absorb a state of this very class."""
        new = {}
        for name in self._component_types:
            theirs = getattr(delta, name)
            if theirs.is_bottom():  # as a rule a delta is of one or two components
                continue
            joined, new[name] = absorb(getattr(self, name), theirs)
            self._put_component(name, joined)
        return type(self)(**new)

    def absorb_transfer(self, part: Self, *, covers: Callable[[ActorId, int], bool]) -> Self:
        """Join a part of a peer's whole state: numbered components by their own rule."""
        self._require_same(part)
        return self._absorb_transfer(part, covers)

    def _absorb_transfer(self, part: Any, covers: Callable[[ActorId, int], bool]) -> Self:
        new = {}
        for name, component in self._components():
            theirs = getattr(part, name)
            if isinstance(component, Numbered):
                new[name] = component.absorb_transfer(cast(Any, theirs), covers=covers)
            else:
                joined, new[name] = absorb(component, theirs)
                self._put_component(name, joined)
        return type(self)(**new)

    def collect(self, is_stable: Callable[[Any], bool]) -> int:
        """Drop the stable tombstones of every numbered component, and return how many."""
        return sum(
            component.collect(is_stable)
            for _, component in self._components()
            if isinstance(component, Numbered)
        )

    def latest_stamp(self) -> Stamp | None:
        """Return the latest stamp inside, None without one."""
        # For each delta that comes; what a protocol costs to be asked for is most of it.
        asked = [getattr(component, "latest_stamp", None) for _, component in self._components()]
        stamps = [ask() for ask in asked if ask is not None]
        return max([stamp for stamp in stamps if stamp is not None], default=None)

    def restamp(self, change: Callable[[Stamp], Stamp]) -> Self:
        """Put the writes of those components under other stamps, in place, that can be."""
        for name, component in self._components():
            if isinstance(component, Restampable):
                self._put_component(name, component.restamp(change))
        return self

    def bucket_digests(self) -> tuple[int, ...]:
        """Return 256 digests: each paged component's own, the others whole in bucket 0."""
        sums = [0] * BUCKET_COUNT
        for name, component in self._components():
            label: bytes = pack(name)
            if isinstance(component, Paged):
                digests = component.bucket_digests()
            else:
                digests = (0 if component.is_bottom() else component.digest(),)
            for bucket, digest in enumerate(digests):
                if digest:
                    sums[bucket] += hash64(label + digest.to_bytes(8, "big"))
        return tuple(digest & HASH64_MASK for digest in sums)

    def part(self, buckets: Collection[int]) -> Self:
        """Return the state of some buckets; see `bucket_digests`."""
        parts: dict[str, Any] = {}
        for name, component in self._components():
            if isinstance(component, Paged):
                count = len(component.bucket_digests())
                parts[name] = component.part([b for b in buckets if b < count])
            elif 0 in buckets:
                parts[name] = own(component)
        return type(self)(**parts)

    def __or__(self, other: Self, /) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return self._join(other)

    def _join(self, other: Any) -> Self:
        """Return the join with a state of this very class."""
        return type(self)(**{n: mine | getattr(other, n) for n, mine in self._components()})

    def __le__(self, other: Self, /) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._is_under(other)

    def _is_under(self, other: Any) -> bool:
        """Tell whether a state of this very class holds everything this one does."""
        return all(mine <= getattr(other, name) for name, mine in self._components())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(mine == getattr(other, name) for name, mine in self._components())

    def is_bottom(self) -> bool:
        """Tell whether every component is empty."""
        # Asked of each write, and as a rule the first has something: no generator is made.
        for name in self._component_types:  # noqa: SIM110
            if not getattr(self, name).is_bottom():
                return False
        return True

    def decompose(self) -> Iterator[Self]:
        """Yield the parts of each component, alone."""
        for name, component in self._components():
            for part in component.decompose():
                yield type(self)(**{name: part})

    def copy(self) -> Self:
        """Return an independent copy. O(size)."""
        return type(self)(**{name: own(component) for name, component in self._components()})

    def copy_content(self) -> Self:
        """Return a `copy` that leaves out what can be made again, where components can."""
        copies = {
            name: component.copy_content() if hasattr(component, "copy_content") else own(component)
            for name, component in self._components()
        }
        return type(self)(**copies)

    def digest(self) -> int:
        """Hash the components' digests to 64 bits. Empty components do not count."""
        digests = []
        for name, component in self._components():
            digest = component.digest()
            if digest != self._component_types[name]().digest():
                digests.append((name, digest))
        return wire_digest(tuple(sorted(digests)))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={component!r}" for name, component in self._components())
        return f"{type(self).__name__}({inside})"

    def _check(self) -> None:
        """Assert every invariant."""
        self._check_components()
        for _, component in self._components():
            check = getattr(component, "_check", None)
            if check is not None:
                check()
