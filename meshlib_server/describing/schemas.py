"""JSON Schema of the records that read bodies, and of the shapes of answers.

Rule: what `structure` refuses the schema refuses: unknown keys, and numbers in a text's place.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from enum import EnumMeta
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import field, frozen

from meshlib_server.structure import AtMost

__all__ = ["Shape", "schema_of"]

_PLAIN: Final[Mapping[Any, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
}


@frozen
class Shape:
    """An object of an answer.

    Args:
        fields: the fields that are always there, with the kind of each.
        optional: those that may be.
    """

    fields: Mapping[str, Any]
    optional: Mapping[str, Any] = field(factory=dict)

    def schema(self) -> dict[str, Any]:
        """Return its schema."""
        kinds = {**self.fields, **self.optional}
        return {
            "type": "object",
            "properties": {name: schema_of(kind) for name, kind in kinds.items()},
            "required": list(self.fields),
            "additionalProperties": False,
        }


def schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a kind. O(its size).

    Args:
        kind: bool, int, float, str, None, `Any`, an attrs class, an enumeration of texts, a
            `Shape`, a literal, a union, a dict of texts to a kind, a tuple or a list of one kind
            (`Annotated` with `AtMost`), or a list that holds the kind of its items.

    Raises:
        TypeError: another one.
    """
    if isinstance(kind, Shape):
        return kind.schema()
    if isinstance(kind, list):
        return {"type": "array", "items": schema_of(kind[0])}
    if kind is Any:
        return {}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if isinstance(kind, EnumMeta):
        return {"type": "string", "enum": [str(each.value) for each in kind]}  # type: ignore[var-annotated]
    if attrs.has(kind):
        return _of_record(kind)
    return _of_generic(kind)


def _of_record(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    fields = attrs.fields(kind)
    return {
        "type": "object",
        "properties": {each.name: schema_of(hints[each.name]) for each in fields},
        "required": [each.name for each in fields if each.default is attrs.NOTHING],
        "additionalProperties": False,
    }


def _of_generic(kind: Any) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        schema = schema_of(arguments[0])
        for note in arguments[1:]:
            if isinstance(note, AtMost):
                schema["maxItems"] = note.items
        return schema
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each) for each in arguments]}
    if origin in (tuple, list):
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    raise TypeError(f"there is no schema of {kind!r}")
