"""Strict structuring of JSON and YAML trees into records, and strict reading of YAML.

Rule: nothing is coerced or dropped. A boolean is no integer, a number is no text, an unknown
key is an error, and so is one that is given twice. Every error names the full path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_args, get_origin

import attrs
import cattrs
import yaml
from attrs import frozen
from cattrs.errors import (
    AttributeValidationNote,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from meshlib.errors import ConfigError

__all__ = ["AtMost", "StructureError", "read_yaml", "structure"]

Record = TypeVar("Record")
Hook = Callable[[Any, Any], Any]

_KINDS: Mapping[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    type(None): "nothing",
}


@frozen
class AtMost:
    """How long a list may be, in `Annotated[tuple[X, ...], AtMost(n)]`.

    It is checked before any item is looked at, so what is too long costs nothing more.

    Args:
        items: the largest number of items.
    """

    items: int


class StructureError(ValueError):
    """A tree that is not the record it should be. Nothing was made.

    Args:
        problems: a path and a message for each thing that is wrong; paths are dotted, and empty
            for the tree itself.
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {text}" if path else text for path, text in problems))
        self.problems = problems


def structure(tree: Any, kind: type[Record]) -> Record:
    """Make an attrs record from a decoded tree, strictly. O(size).

    Args:
        tree: what a JSON or YAML parser returned.
        kind: an attrs class whose fields are bool, int, float, str, dict, tuples of these
            (of `AtMost` so many), other such classes, or any of them or None.

    Raises:
        StructureError: with a path and a message for each thing that is wrong.
    """
    try:
        return _CONVERTER.structure(tree, kind)
    except Exception as error:  # noqa: BLE001 - cattrs raises whatever the field's class raised
        raise StructureError(list(_problems(error, ""))) from None


def _describe(value: object) -> str:
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _expect(value: object, kind: type) -> None:
    if type(value) is not kind:
        raise TypeError(f"expected {_KINDS[kind]}, got {_describe(value)}")


def _exactly(kind: type) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        _expect(value, kind)
        return value

    return hook


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"expected a number, got {_describe(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _text(value: Any, _: Any) -> str:
    _expect(value, str)
    text: str = value
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is no Unicode text") from None
    return text


def _record_hook(kind: Any) -> Hook:
    make = make_dict_structure_fn(kind, _CONVERTER, _cattrs_forbid_extra_keys=True)

    def hook(value: Any, _: Any) -> Any:
        _expect(value, dict)
        return make(value, kind)

    return hook


def _tuple_hook(kind: Any) -> Hook:
    items = GenericAlias(list, get_args(kind)[:1])
    make = _CONVERTER.get_structure_hook(items)

    def hook(value: Any, _: Any) -> Any:
        _expect(value, list)
        return tuple(make(value, items))

    return hook


def _limited_hook(kind: Any) -> Hook:
    inner, limit = get_args(kind)
    make = _CONVERTER.get_structure_hook(inner)

    def hook(value: Any, _: Any) -> Any:
        if type(value) is list and len(value) > limit.items:
            raise ValueError(f"at most {limit.items:,} at once, got {len(value):,}")
        return make(value, inner)

    return hook


def _is_limited(kind: Any) -> bool:
    return get_origin(kind) is Annotated and isinstance(get_args(kind)[1], AtMost)


def _is_a(origin: type) -> Callable[[Any], bool]:
    return lambda kind: bool(get_origin(kind) == origin)


_CONVERTER = cattrs.Converter(detailed_validation=True)
_CONVERTER.register_structure_hook(bool, _exactly(bool))
_CONVERTER.register_structure_hook(int, _exactly(int))
_CONVERTER.register_structure_hook(float, _number)
_CONVERTER.register_structure_hook(str, _text)
_CONVERTER.register_structure_hook_func(_is_a(dict), _exactly(dict))
_CONVERTER.register_structure_hook_factory(attrs.has, _record_hook)
_CONVERTER.register_structure_hook_factory(_is_a(tuple), _tuple_hook)
_CONVERTER.register_structure_hook_factory(_is_limited, _limited_hook)


def _problems(error: BaseException, path: str) -> Iterator[tuple[str, str]]:
    """Walk cattrs' tree of errors, and yield each leaf with its path."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            path = f"{path}.{note.name}" if path else note.name
        elif isinstance(note, IterableValidationNote):
            path = f"{path}[{note.index}]"
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _problems(inner, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        for name in sorted(error.extra_fields):
            yield f"{path}.{name}" if path else name, "unknown key"
    elif isinstance(error, KeyError) and len(error.args) == 1:
        yield path, "missing"
    else:
        yield path, str(error)


class _Strict:
    """Refuses a key that is given twice, where YAML takes the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping, and refuse a key that is there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} is given twice", key.start_mark
                )
            seen.add(name)
        made: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]
        return made


class _DataLoader(_Strict, yaml.SafeLoader):
    """Makes plain data: numbers, truth values, dates and text."""


class _TextLoader(_Strict, yaml.BaseLoader):
    """Leaves every scalar the text that it is."""


def read_yaml(path: str, *, is_text: bool = False) -> dict[str, Any]:
    """Read a file of sections.

    Args:
        path: the file.
        is_text: whether every value is wanted as it is written, such as `050` or `1e3`.

    Returns:
        the sections; none for an empty file.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or holds no sections.
    """
    try:
        with Path(path).open("rb") as file:
            # Both make plain data only.
            tree = yaml.load(file, Loader=_TextLoader if is_text else _DataLoader)  # noqa: S506
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{path} is no valid YAML: {detail}") from None
    if tree is None or tree == "":
        return {}
    if type(tree) is not dict:
        raise ConfigError(f"{path}: expected sections such as `mesh:`")
    return tree
