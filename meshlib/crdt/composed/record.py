"""`@lattice`: a class whose fields are lattices becomes a lattice.

    @lattice(name="worker")
    class Worker(Record):
        health: LWWRegister[bool] = LWWRegister()
        load: MaxRegister[float] = MaxRegister()
        tags: ORSet[str] = ORSet()

Joins, order, deltas, digests, encoding and registration follow from the fields; a delta is a
record in which only some fields are given: `Worker(load=worker.load.set(0.5))`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Self, TypeVar, cast, dataclass_transform, get_type_hints

import attrs

from meshlib.arguments import check_kind, check_text
from meshlib.crdt.composed.annotations import lattice_class
from meshlib.crdt.composed.product import Product
from meshlib.crdt.registry import register
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError
from meshlib.limits import KEY_BYTES_MAX
from meshlib.reading import read_rows, read_text, require

__all__ = ["Record", "lattice"]

T = TypeVar("T")

_PLUMBING: Final = frozenset(
    ("__module__", "__doc__", "__slots__", "__dict__", "__weakref__", "__annotations__")
)

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Record(Product):
    """What `lattice` gives a class. Inherit it too where a type checker should know of it."""

    __slots__ = ()

    format_version: ClassVar[int] = 1

    _since: ClassVar[Mapping[str, int]] = {}

    @property
    def value(self) -> dict[str, Any]:
        """Field -> its value."""
        return {name: getattr(part, "value", part) for name, part in self._components()}

    def to_wire(self) -> Any:
        """Return `(field, state)` for each field that is not empty, sorted by field."""
        return self._fields_to_wire(self.format_version)

    def to_version(self, version: int) -> Any:
        """Return the tree for a peer of an older version: without the fields added since."""
        return self._fields_to_wire(version)

    def _fields_to_wire(self, version: int) -> Any:
        return tuple(
            sorted(
                (name, component.to_wire())
                for name, component in self._components()
                if not component.is_bottom() and self._since.get(name, 1) <= version
            )
        )

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a record that a peer sent.

        Raises:
            DecodeError: malformed, not canonical, or with a field that is not known here.
            LimitExceeded: over a limit.
        """
        return cls.from_version(cls.format_version, wire)

    @classmethod
    def from_version(cls, version: int, wire: Any) -> Self:
        """Read a record of this or an older version; fields it did not have are empty."""
        components: dict[str, Any] = {}
        previous = ""
        for row in read_rows(wire, "a record"):
            name, body = read_rows(row, "a field", count=2)
            read_text(name, "the name of a field", bytes_max=KEY_BYTES_MAX)
            require(previous < name, "the fields of a record must be sorted, each once")
            previous = name
            kind = cls._component_types.get(name)
            if kind is None or cls._since.get(name, 1) > version:
                raise DecodeError(f"{cls.__name__} has no field {name!r}")
            components[name] = kind.from_wire(body)
            if components[name].is_bottom():
                raise DecodeError("an empty field must be left out")
        return cls(**components)


def _field_types(cls: type[Any], names: list[str]) -> dict[str, type[Any]]:
    try:
        hints = get_type_hints(cls)
    except NameError as error:
        raise InvalidTypeError(f"{cls.__name__}: {error}; declare it at module level") from error
    return {name: lattice_class(hints[name]) for name in names}


def _check_names(owner: str, names: list[str]) -> None:
    if not names:
        raise InvalidTypeError(f"{owner} has no fields")
    for name in names:
        if name.startswith("_") or hasattr(Record, name):
            raise InvalidTypeError(f"{owner}: a record has no room for a field named {name!r}")


def _declared(cls: type[Any]) -> type[Any]:
    """Return an attrs class of the annotated fields, made from a plain class."""
    if attrs.has(cls) and "__attrs_attrs__" in cls.__dict__:
        return cls
    return attrs.define(kw_only=True, eq=False, repr=False, slots=True)(cls)


def _check_default(owner: str, attribute: attrs.Attribute[Any]) -> None:
    """Refuse a default that holds something: a record without arguments is empty."""
    default: Any = attribute.default
    if default is attrs.NOTHING or default is None:
        return
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = None if default.takes_self else default.factory()
    if default is not None and not (hasattr(default, "is_bottom") and default.is_bottom()):
        raise InvalidValueError(
            f"{owner}.{attribute.name}: a default must be an empty state, such as ORSet()"
        )


def _with_defaults(cls: Any, types: Mapping[str, type[Any]]) -> None:
    """Let every field be left out, and check the class of those given.

    An empty state that a field has for a default is made anew for each record: it would be one
    container for all of them.
    """
    make: Callable[..., None] = cls.__init__
    made_anew = []
    for attribute in attrs.fields(cls):
        _check_default(cls.__name__, attribute)
        if attribute.init and not isinstance(attribute.default, attrs.Factory):  # type: ignore[arg-type]
            made_anew.append(attribute.name)

    def initialise(self: Any, **components: Any) -> None:
        for name in made_anew:
            if components.get(name) is None:
                components[name] = types[name]()
        make(self, **components)
        self._check_components()

    described: Any = initialise
    described.__signature__ = inspect.Signature(
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        + [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in types]
    )
    described.__doc__ = cls.__init__.__doc__
    cls.__init__ = initialise


def _add_methods(cls: type[Any]) -> None:
    """Give a class that does not inherit `Record` what a record has."""
    for base in (Product, Record):
        for name, member in vars(base).items():
            if name in _PLUMBING or (not name.startswith("_") and name in cls.__dict__):
                continue  # what the class says itself stays, but for what a lattice rests on
            setattr(cls, name, member)


def _declare(cls: type[Any], *, name: str, version: int, later: Mapping[str, int]) -> type[Any]:
    """Make a record of a class, and register it; see `lattice`."""
    declared: Any = _declared(cls)
    names = [attribute.name for attribute in attrs.fields(declared)]
    _check_names(cls.__name__, names)
    types = _field_types(declared, names)
    for field, added in later.items():
        if field not in types or not 1 <= added <= version:
            raise InvalidValueError(f"no field {field!r} can be there since {added}")
    if not issubclass(declared, Record):
        _add_methods(declared)
    for attribute, fixed in (
        ("_component_types", types),
        ("_since", later),
        ("format_version", version),
        ("__hash__", None),  # a container, whatever attrs made of it
    ):
        setattr(declared, attribute, fixed)
    _with_defaults(declared, types)
    register(f"record:{name}", declared)
    return cast(type[Any], declared)


@dataclass_transform(kw_only_default=True, field_specifiers=(attrs.field,))
def lattice(
    *, name: str, version: int = 1, since: Mapping[str, int] | None = None
) -> Callable[[type[T]], type[T]]:
    """Declare a class whose fields are lattices to be a lattice, and register it.

    >>> from meshlib.crdt import Dot, MaxRegister, ORSet, Record, lattice
    >>> from meshlib.identity import actor_id
    >>> here, there = actor_id("here", 1), actor_id("there", 1)

    >>> @lattice(name="example.worker")
    ... class Worker(Record):
    ...     load: MaxRegister[float] = MaxRegister()
    ...     tags: ORSet[str] = ORSet()

    A write of a field is a record in which only that field is given:

    >>> idle = Worker()
    >>> busy = idle | Worker(load=idle.load.set(0.5))
    >>> tagged = idle | Worker(tags=idle.tags.add("gpu", dot=Dot(there, 1)))
    >>> both = busy | tagged
    >>> both.load.value, sorted(both.tags)
    (0.5, ['gpu'])

    Whoever has seen a tag can remove it, and each field is joined for itself:

    >>> gone = both | Worker(tags=both.tags.remove("gpu"))
    >>> gone.load.value, sorted(gone.tags), tagged <= gone
    (0.5, [], True)

    The class may be a plain one with annotations or an attrs class; either way its objects are
    containers: changed in place by `absorb`, and not hashable. Each field can be left out of
    the constructor and is then empty, one of its own for each record. A type checker knows that
    of fields that say so, as above, and what a record can do of a class that inherits `Record`;
    a plain class, and fields without a default, do the same when they run.

    A field that is added later is no new type: give the record the next version and say since
    when the field is there. A node one version behind is then written to without it
    (`encode(record, version=1)`), and is read without it.

    Args:
        name: the record's name on the wire: a letter, then letters, digits, `_`, `.` or `-`;
            at most 64 characters. The tag is `record:` and the name.
        version: the record's own format version; 1 or more.
        since: the version in which each later field was added.

    Raises:
        InvalidValueError: a bad name or version, the name is taken, or a field's default is not
            empty.
        InvalidTypeError: a field that is no lattice, no field at all, or an argument of another
            type.
    """
    check_text("a record's name", name)
    if since is not None:
        check_kind("since", since, Mapping, wanted="a mapping of fields to versions")
    if not _NAME.fullmatch(name):
        raise InvalidValueError(f"{name!r} cannot name a record")
    if type(version) is not int or version < 1:
        raise InvalidValueError(f"a version is 1 or more, not {version!r}")
    later = dict(since or {})

    def declare(cls: type[T]) -> type[T]:
        return cast(type[T], _declare(cls, name=name, version=version, later=later))

    return declare
