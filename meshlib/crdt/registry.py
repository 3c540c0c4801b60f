"""Which type a document is of: tags, and the one encoding of a state with its type and version.

`encode` writes `[tag, format version, body]`; `decode` reads it strictly. Types with parameters
have tags such as `or_map(or_set)` and are made from their families on first sight. One class has
one tag; the class called without arguments is the bottom of the type.

A type may carry `format_version: ClassVar[int]` (1 without it). A type past version 1 also has
`to_version(version) -> tree` and the classmethod `from_version(version, tree)`, so that nodes
one version apart still speak during a rolling upgrade.
Source: riak_dt's `to_version` and its downgrade property.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, Self, cast, runtime_checkable

from meshlib.arguments import check_kind, check_text
from meshlib.codec import pack
from meshlib.crdt.lattice import Lattice
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LimitExceeded,
    RejectReason,
    VersionMismatch,
)
from meshlib.limits import FRAME_BYTES_MAX
from meshlib.reading import read_integer, read_rows, read_text, read_tree

__all__ = [
    "FORMAT_VERSION",
    "Versioned",
    "bottom",
    "decode",
    "encode",
    "register",
    "register_family",
    "resolve",
    "type_tag",
]

FORMAT_VERSION: Final = 1
"""The format version of every type of this package."""

TAG_CHARACTERS_MAX: Final = 256
"""A tag with all its parameters; five levels of the longest names fit."""

PARAMETRIC_TYPES_MAX: Final = 1024
"""Types made from families: a peer cannot make this process create classes without end."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]+")

_LATTICE: Final = (
    "__or__", "__le__", "is_bottom", "decompose", "digest", "to_wire", "from_wire",
)  # fmt: skip
"""What every document needs: see `meshlib.crdt.lattice.Lattice`."""

_VERSIONED: Final = ("to_version", "from_version")

_classes: dict[str, type[Any]] = {}
_tags: dict[type[Any], str] = {}
_versions: dict[type[Any], int] = {}
_families: dict[str, Callable[[Sequence[str]], type[Any]]] = {}


@runtime_checkable
class Versioned(Protocol):
    """A type that can be written and read in an older format version."""

    def to_version(self, version: int) -> Any:
        """Return the tree of this state in an older format version."""
        ...

    @classmethod
    def from_version(cls, version: int, wire: Any) -> Self:
        """Read a state from the tree of an older format version."""
        ...


def register(tag: str, cls: type[Any]) -> None:
    """Make a type known under a tag, so that it can be a document. O(1).

    Registering the same class again changes nothing; a class of the same module and name (one
    that was loaded again) replaces the earlier one.

    Args:
        tag: the type's name on the wire; never changes once documents of it exist.
        cls: a lattice; `cls()` is its bottom.

    Raises:
        InvalidValueError: the tag is malformed or names another class.
        InvalidTypeError: the tag is no text, or what is given no class, or the class lacks
            something that a document of it would need, which is named. State unchanged after
            either.
    """
    check_text("a type tag", tag)
    check_kind("a type to register", cls, type, wanted="a class")
    name = tag.partition("(")[0]
    if not _NAME.fullmatch(name) or len(tag) > TAG_CHARACTERS_MAX:
        raise InvalidValueError(f"{tag!r} is no type tag")
    lacking = _lacking(cls)
    if lacking:
        raise InvalidTypeError(f"{cls.__qualname__} is no lattice: it lacks {', '.join(lacking)}")
    known = _classes.get(tag)
    if known is not None and known is not cls:
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InvalidValueError(f"the type tag {tag!r} already names {known.__qualname__}")
        _tags.pop(known, None)
        _versions.pop(known, None)
    _classes[tag] = cls
    _tags[cls] = tag
    _versions[cls] = getattr(cls, "format_version", FORMAT_VERSION)


def _lacking(cls: type[Any]) -> tuple[str, ...]:
    """Return what a class lacks to be a document, as a reader would add it; empty when nothing.

    Looked for are the names that the first write, its log entry and an exchange need, not what
    they do: `meshlib.testing.laws` checks that.
    """
    needed: list[str] = list(_LATTICE)
    if _own(cls, "absorb") is not None:
        needed.append("copy")  # what is changed in place is copied first
    version = getattr(cls, "format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        needed += _VERSIONED
    lacking = [name for name in needed if _own(cls, name) is None]
    lacking += [
        f"{name} as a classmethod"
        for name in ("from_wire", "from_version")
        if name in needed
        and name not in lacking
        and not isinstance(_own(cls, name), classmethod | staticmethod)
    ]
    if type(version) is not int or version < 1:
        lacking.append(f"a format_version of 1 or more (it is {version!r})")
    if not lacking:
        try:
            cls()
        except TypeError as error:
            lacking.append(f"a bottom, for {cls.__qualname__}() raises: {error}")
    return tuple(lacking)


def _own(cls: type[Any], name: str) -> Any:
    """Return what a class has under a name, None where only every object and every class has it."""
    for base in cls.__mro__:
        if base is not object and name in vars(base):
            return vars(base)[name]
    return None


def register_family(name: str, make: Callable[[Sequence[str]], type[Any]]) -> None:
    """Make a family of types known: `make` gets the parameters of `name(...)` as written.

    `make` returns a class that it has registered, or raises `DecodeError`.
    """
    if not _NAME.fullmatch(name):
        raise InvalidValueError(f"{name!r} is no name of a family")
    _families[name] = make


def _parameters(tag: str) -> tuple[str, list[str]]:
    """Split `name(a,b(c,d))` into its name and its parameters."""
    name, parenthesis, rest = tag.partition("(")
    if not parenthesis or not rest.endswith(")"):
        raise DecodeError(f"{tag!r} is no type known here", reason=RejectReason.TYPE)
    parameters, depth, start = [], 0, 0
    inner = rest[:-1]
    for position, character in enumerate(inner):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            parameters.append(inner[start:position])
            start = position + 1
        if depth < 0:
            raise DecodeError(f"{tag!r} is no type tag", reason=RejectReason.TYPE)
    parameters.append(inner[start:])
    return name, parameters


def resolve(tag: str) -> type[Any]:
    """Return the class of a tag. O(1) once seen.

    Raises:
        DecodeError: no such type here, with `RejectReason.TYPE`.
        LimitExceeded: one more type made from a family than allowed.
    """
    known = _classes.get(tag)
    if known is not None:
        return known
    if len(tag) > TAG_CHARACTERS_MAX:
        raise LimitExceeded("type tag characters", size=len(tag), limit=TAG_CHARACTERS_MAX)
    name, parameters = _parameters(tag)
    make = _families.get(name)
    if make is None:
        raise DecodeError(f"{tag!r} is no type known here", reason=RejectReason.TYPE)
    if len(_classes) >= PARAMETRIC_TYPES_MAX:
        raise LimitExceeded("types", size=len(_classes) + 1, limit=PARAMETRIC_TYPES_MAX)
    try:
        made = make(parameters)
    except (InvalidTypeError, InvalidValueError, DecodeError) as error:
        raise DecodeError(str(error), reason=RejectReason.TYPE) from error
    if _tags.get(made) != tag:
        raise DecodeError(f"{tag!r} is not how its type is written", reason=RejectReason.TYPE)
    return made


def bottom(tag: str) -> Lattice:
    """Return a fresh empty state of a type.

    Raises:
        DecodeError: no such type here.
    """
    return cast(Lattice, resolve(tag)())


def type_tag(state: Lattice | type[Any]) -> str:
    """Return the tag of a state, or of a class.

    Raises:
        InvalidTypeError: the class is not registered.
    """
    cls = state if isinstance(state, type) else type(state)
    tag = _tags.get(cls)
    if tag is None:
        raise InvalidTypeError(f"{cls.__qualname__} is not a registered lattice")
    return tag


def encode(state: Lattice, *, version: int | None = None) -> bytes:
    """Write a state with its type and format version, as canonical bytes. O(size).

    Args:
        state: a state of a registered type.
        version: an older format version, for a peer that is behind; the current one by default.

    Raises:
        InvalidTypeError: the class is not registered.
        InvalidValueError: the type has no such version.
    """
    tag = type_tag(state)
    current = _versions[type(state)]
    if version is None or version == current:
        return _pack(tag, current, state.to_wire())
    if not isinstance(state, Versioned) or not 1 <= version < current:
        raise InvalidValueError(f"{tag} has no format version {version}")
    return _pack(tag, version, state.to_version(version))


def _pack(tag: str, version: int, body: Any) -> bytes:
    data: bytes = pack((tag, version, body))
    return data


def decode(data: bytes | memoryview, *, bytes_max: int = FRAME_BYTES_MAX) -> Lattice:
    """Read a state that `encode` wrote, strictly. O(size).

    Raises:
        DecodeError: not such bytes, or a type not known here (`RejectReason.TYPE`).
        VersionMismatch: a format version this node does not read.
        LimitExceeded: it holds more than a limit allows.
    """
    tag, version, body = read_rows(read_tree(data, bytes_max=bytes_max), "a state", count=3)
    read_text(tag, "a type tag", bytes_max=4 * TAG_CHARACTERS_MAX)
    cls = _classes.get(tag) or resolve(tag)
    current = _versions[cls]
    if read_integer(version, "the format version", minimum=1) == current:
        state: Lattice = cls.from_wire(body)
        return state
    if version < current and hasattr(cls, "from_version"):
        state = cls.from_version(version, body)
    else:
        raise VersionMismatch(f"the format of {tag}", ours=current, theirs=version)
    return state
