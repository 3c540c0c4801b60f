"""`ORMap`: a map of keys to causal states, to any depth, over one causal context.

Rule: only the root has a context. The states inside are places where dots are live; handed to
a change they see the root's context, handed out as a copy they claim their own live dots only,
so nothing that is read here can be taken elsewhere for news of a removal.
Source: Almeida, Shoker, Baquero, "Delta state replicated data types", 2018, section 7.4 (DotMap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, get_args, overload

from meshlib.arguments import check_kind, with_article
from meshlib.clock import Stamp
from meshlib.codec import canonical_order, check_key
from meshlib.crdt.causal.context import CausalContext, Dot, DotLike
from meshlib.crdt.causal.dotted import DottedState
from meshlib.crdt.causal.embedded import Embedded
from meshlib.crdt.composed.annotations import lattice_class
from meshlib.crdt.registry import register, register_family, resolve, type_tag
from meshlib.errors import DecodeError, InvalidTypeError, UnknownKeyError
from meshlib.reading import read_key, read_rows

__all__ = ["ORMap"]

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")
T = TypeVar("T")

_made: dict[type[Any], type[Any]] = {}


class ORMap(DottedState, Generic[K, V]):
    """A map whose values are states and whose removals are observed. A container.

    Made by `ORMap.of(type)`. A causal type (`ORSet`, `RemoveWinsSet`, a flag, `MVRegister`,
    another `ORMap`) is held as it is; any other type through `Embedded`. A key is there as long
    as its state has a live dot: removing it removes the dots that were seen, and what was
    concurrent survives.

    What survives is coarser for an embedded type: all that a concurrent writer contributed since
    the last removal it knew of, not its concurrent change alone. In a map of `GSet`s b adds
    "admin", a removes the key having seen that, and b, who has not heard of it, adds "write": both
    elements are there again. In a map of `ORSet`s only "write" is. So take a causal type where a
    removal must hold for what it has seen, such as a permission.
    """

    __slots__ = ("_children", "_owners")

    value_type: ClassVar[type[Any]]
    """The type of the values, as given to `of`."""

    _child_type: ClassVar[type[DottedState]]

    def __init__(self) -> None:
        if not hasattr(self, "_child_type"):
            raise InvalidTypeError("make the class first: ORMap.of(type)")
        super().__init__()
        self._children: dict[K, DottedState] = {}
        self._owners: dict[DotLike, K] = {}

    @classmethod
    def of(cls, value_type: type[W]) -> type[ORMap[Any, W]]:
        """Return the class of maps with values of a type; always the same one.

        Raises:
            InvalidTypeError: the type is not a registered lattice.
        """
        if get_args(value_type):  # `ORSet[str]`, of which the parameter is for type checkers
            value_type = lattice_class(value_type)
        check_kind("the type of a map's values", value_type, type, wanted="a class")
        if issubclass(value_type, Embedded):
            value_type = value_type.lattice_type
        made = _made.get(value_type)
        if made is None:
            tag = type_tag(value_type)
            child_type: type[Any] = value_type
            if not issubclass(value_type, DottedState):
                child_type = Embedded.of(value_type)
            contents = {
                "__slots__": (),
                "__doc__": cls.__doc__,
                "value_type": value_type,
                "_child_type": child_type,
            }
            made = type(f"ORMap[{value_type.__name__}]", (ORMap,), contents)
            register(f"or_map({tag})", made)
            _made[value_type] = made
        return made

    @classmethod
    def of_arguments(cls, arguments: Sequence[Any]) -> type[Any]:
        """Return the class that an annotation such as `ORMap[str, ORSet[str]]` means."""
        _, value_type = arguments
        return cls.of(lattice_class(value_type))

    def update(self, key: K, change: Callable[[V], V], *, dot: Dot | None = None) -> Self:
        """Return the delta that changes the state of a key, there or not. O(the change).

            tags.update("a", lambda value: value.add("x", dot=dot))
            hits.update("a", lambda value: value.increment(by=actor), dot=dot)

        Args:
            key: what `codec.check_key` takes.
            change: gets the key's state as it is here, empty for a new key, and returns a delta
                of it; must not keep or change what it gets.
            dot: a new dot of the writer, when the values are of an embedded type; a causal
                type's own writes take theirs.

        Raises:
            InvalidTypeError: the key cannot be one, the change returned another type, or a dot
                is missing or given in vain.
            InvalidValueError: the key cannot be one, or the dot was used before.
            LimitError: the key is over 1 KiB.
        """
        check_key(key)
        child = self._children.get(key)
        if child is None:
            child = self._child_type()
        child._context = self.context
        if isinstance(child, Embedded):
            if dot is None:
                raise InvalidTypeError("a value of an embedded type needs a dot for its change")
            delta = child.update(cast(Any, change), dot=dot)
        else:
            if dot is not None:
                raise InvalidTypeError("the writes of a causal type take the dot themselves")
            delta = cast(Any, change)(child)
            if type(delta) is not self._child_type:
                raise InvalidTypeError(
                    f"the change must return {with_article(self._child_type.__name__)}, "
                    f"not {with_article(type(delta).__name__)}"
                )
        made = type(self)()
        made._context = delta.context.copy()
        for leaf_dot, leaf in delta._leaves():
            made._insert(leaf_dot, (key, leaf))
        return made

    def remove(self, key: K) -> Self:
        """Return the delta that removes a key as far as it was seen here. O(its dots).

        Raises:
            UnknownKeyError: the key is not in the map.
        """
        child = self._children.get(key)
        if child is None:
            raise UnknownKeyError("key", key)
        return self._superseding(dot for dot, _ in child._leaves())

    def discard(self, key: K) -> Self:
        """Return the delta that removes a key, the bottom when it is not there."""
        return self.remove(key) if key in self._children else type(self)()

    def clear(self) -> Self:
        """Return the delta that removes every key seen here. O(n)."""
        return self._superseding(self._owners)

    def __getitem__(self, key: K) -> V:
        """Return a copy of a key's state. O(its size)."""
        child = self._children.get(key)
        if child is None:
            raise UnknownKeyError("key", key)
        return cast(V, child.value if isinstance(child, Embedded) else _detached(child))

    @overload
    def get(self, key: K, default: None = None) -> V | None: ...

    @overload
    def get(self, key: K, default: T) -> V | T: ...

    def get(self, key: K, default: Any = None) -> V | Any:
        """Return a copy of a key's state, or the default. O(its size)."""
        return self[key] if key in self._children else default

    def __contains__(self, key: object) -> bool:
        return key in self._children

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys())

    def keys(self) -> list[K]:
        """Return the keys in canonical order. O(n log n)."""
        return canonical_order(self._children)

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield the keys and copies of their states, in canonical order. O(size)."""
        for key in self.keys():
            yield key, self[key]

    @property
    def value(self) -> dict[K, Any]:
        """Key -> the value of its state. O(size)."""
        values = {}
        for key in self.keys():
            inside: Any = self._children[key]
            if isinstance(inside, Embedded):
                inside = inside.value
            values[key] = getattr(inside, "value", inside)
        return values

    def latest_stamp(self) -> Stamp | None:
        """Return the latest stamp inside, None without one. O(n)."""
        stamps = [
            stamp
            for child in self._children.values()
            if isinstance(child, Embedded | ORMap) and (stamp := child.latest_stamp()) is not None
        ]
        return max(stamps, default=None)

    def _leaves(self) -> Iterator[tuple[DotLike, Any]]:
        for key, child in self._children.items():
            for dot, leaf in child._leaves():
                yield dot, (key, leaf)

    def _live_count(self) -> int:
        return len(self._owners)

    def _leaf_at(self, dot: DotLike) -> tuple[Any] | None:
        if dot not in self._owners:
            return None
        key = self._owners[dot]
        found = self._children[key]._leaf_at(dot)
        return None if found is None else ((key, found[0]),)

    def _is_live(self, dot: DotLike, leaf: Any) -> bool:  # noqa: ARG002 - the dot alone decides
        return dot in self._owners

    def _insert(self, dot: DotLike, leaf: Any) -> None:
        key, inner = leaf
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._child_type()
        child._insert(dot, inner)
        self._owners[dot] = key

    def _discard(self, dot: DotLike, leaf: Any) -> None:
        key, inner = leaf
        child = self._children[key]
        child._discard(dot, inner)
        if child._live_count() == 0:
            del self._children[key]
        del self._owners[dot]

    def _copy_leaves_to(self, other: Any) -> None:
        other._owners = self._owners.copy()
        for key, child in self._children.items():
            copied = self._child_type()
            child._copy_leaves_to(copied)
            other._children[key] = copied

    @classmethod
    def _leaf_to_wire(cls, leaf: Any) -> Any:
        key, inner = leaf
        return (key, cls._child_type._leaf_to_wire(inner))

    @classmethod
    def _leaf_from_wire(cls, wire: Any) -> Any:
        key, inner = read_rows(wire, "a leaf of a map", count=2)
        return (read_key(key), cls._child_type._leaf_from_wire(inner))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value})"


def _detached(child: DottedState) -> DottedState:
    """Return a copy whose context is its own live dots."""
    copied = type(child)()
    child._copy_leaves_to(copied)
    copied._context = CausalContext(dot for dot, _ in child._leaves())
    return copied


def _make(parameters: Sequence[str]) -> type[Any]:
    if len(parameters) != 1:
        raise DecodeError("or_map takes one type")
    return ORMap.of(resolve(parameters[0]))


register_family("or_map", _make)
