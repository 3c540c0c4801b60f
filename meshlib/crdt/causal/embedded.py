"""`Embedded`: any lattice as a causal type, so that an `ORMap` can hold it and remove it.

Each writer's contribution hangs on one dot, which the writer's next change replaces. Removal
removes the dots it has seen. Under a concurrent change and removal therefore

- what the removal has seen of other writers is gone;
- of the writer that changed concurrently everything it ever contributed since the last removal
  it knew of survives, not the concurrent change alone.

For a counter: one writer counted 5 and another removes the key while the first counts 1 more;
the counter then reads 6, not 1. To make it 1 would take a dot for each increment for ever. A
removal that is not concurrent with a change resets completely, and counting starts at 0 again.
Source: riak_dt's embedded counters behave the same (`riak_dt_map.erl`, "anomalies").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from meshlib.arguments import with_article
from meshlib.clock import Stamp
from meshlib.crdt.causal.context import Dot
from meshlib.crdt.causal.dotted import DottedState, PlainDottedState
from meshlib.crdt.composed.annotations import lattice_class
from meshlib.crdt.composed.product import own
from meshlib.crdt.lattice import Lattice, Stamped, join_all
from meshlib.crdt.registry import register, register_family, resolve, type_tag
from meshlib.errors import DecodeError, InvalidTypeError
from meshlib.reading import require

__all__ = ["Embedded"]

L = TypeVar("L", bound=Lattice)

_made: dict[type[Any], type[Any]] = {}


class Embedded(PlainDottedState, Generic[L]):
    """A lattice whose contributions hang on dots. A container, made by `Embedded.of(type)`."""

    __slots__ = ()

    lattice_type: ClassVar[type[Any]]
    """The type inside."""

    @classmethod
    def of(cls, lattice_type: type[L]) -> type[Embedded[L]]:
        """Return the class that embeds a type; always the same one.

        Raises:
            InvalidTypeError: not a registered lattice, or a causal one, which needs no embedding.
        """
        made = _made.get(lattice_type)
        if made is None:
            tag = type_tag(lattice_type)
            if issubclass(lattice_type, DottedState):
                raise InvalidTypeError(f"{tag} is causal itself")
            contents = {"__slots__": (), "__doc__": cls.__doc__, "lattice_type": lattice_type}
            made = type(f"Embedded[{lattice_type.__name__}]", (Embedded,), contents)
            register(f"embedded({tag})", made)
            _made[lattice_type] = made
        return made

    @classmethod
    def of_arguments(cls, arguments: Sequence[Any]) -> type[Any]:
        """Return the class that an annotation such as `Embedded[GCounter]` means."""
        [lattice_type] = arguments
        return cls.of(lattice_class(lattice_type))

    def update(self, change: Callable[[L], L], *, dot: Dot) -> Self:
        """Return the delta that makes a change. O(contributions).

        Args:
            change: gets the state as it reads here and returns a delta of it; must not keep or
                change what it gets.
            dot: a new dot of the writer.

        Raises:
            InvalidTypeError: the change returned another type, or no dot.
            InvalidValueError: the dot is malformed or was used before.
        """
        self._fresh_dot(dot)
        changed = change(self.value)
        if type(changed) is not self.lattice_type:
            raise InvalidTypeError(
                f"the change must return {with_article(self.lattice_type.__name__)}, "
                f"not {with_article(type(changed).__name__)}"
            )
        if changed.is_bottom():
            return type(self)()
        earlier = [other for other in self._live if other[0] == dot.actor]
        delta = self._superseding((dot, *earlier))
        delta._live[dot] = join_all([*(self._live[other] for other in earlier), own(changed)])
        return delta

    def clear(self) -> Self:
        """Return the delta that removes every contribution seen here."""
        return self._superseding(self._live)

    @property
    def value(self) -> L:
        """The join of all contributions: a fresh state of the type inside. O(contributions)."""
        if not self._live:
            return cast(L, self.lattice_type())
        return cast(L, own(join_all(self._live.values())))

    def latest_stamp(self) -> Stamp | None:
        """Return the latest stamp inside, None without one."""
        stamps = [
            stamp
            for leaf in self._live.values()
            if isinstance(leaf, Stamped) and (stamp := leaf.latest_stamp()) is not None
        ]
        return max(stamps, default=None)

    @classmethod
    def _leaf_to_wire(cls, leaf: Any) -> Any:
        return leaf.to_wire()

    @classmethod
    def _leaf_from_wire(cls, wire: Any) -> Any:
        leaf = cls.lattice_type.from_wire(wire)
        require(not leaf.is_bottom(), "an empty contribution")
        return leaf

    def __repr__(self) -> str:
        return f"Embedded({self.value!r})"


def _make(parameters: Sequence[str]) -> type[Any]:
    if len(parameters) != 1:
        raise DecodeError("embedded takes one type")
    return Embedded.of(resolve(parameters[0]))


register_family("embedded", _make)
