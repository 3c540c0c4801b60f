"""Checks of what a caller passes, so that a mistake is told where it is made and not later.

Rule: a message names the argument, what is wanted and what was given; of what was given it shows
the type alone, for the value may be a secret.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from attrs import Attribute

from meshlib.errors import InvalidTypeError, InvalidValueError

__all__ = [
    "check_callable",
    "check_count",
    "check_kind",
    "check_number",
    "check_path",
    "check_text",
    "checked_types",
    "kind_of",
    "with_article",
]

_WORDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "True or False",
}
"""What a simple type is called in a message."""


def kind_of(value: object) -> str:
    """Return how a message names the type of a value: `None`, or the name of its class."""
    return "None" if value is None else type(value).__name__


def with_article(name: str) -> str:
    """Return a class's name as a sentence has it: `an ORSet`, `a GSet`, `an LWWMap`. O(1)."""
    is_spelt = len(name) > 1 and name[:2].isupper() and name[0] in "FHLMNRSX"
    return f"an {name}" if is_spelt or name[:1] in "AEIOaeio" else f"a {name}"


def check_kind(what: str, value: object, kind: type | tuple[type, ...], *, wanted: str) -> None:
    """Refuse an argument of another type. O(1).

    Args:
        what: the argument's name.
        value: what was given.
        kind: the class, or several.
        wanted: what the class is called, with its article.

    Raises:
        InvalidTypeError: it is of none of them.
    """
    if not isinstance(value, kind):
        raise InvalidTypeError(f"{what} must be {wanted}, not {kind_of(value)}")


def check_text(what: str, value: object) -> None:
    """Refuse what is no text. O(1).

    Raises:
        InvalidTypeError: it is none.
    """
    check_kind(what, value, str, wanted="a string")


def check_callable(what: str, value: object, *, wanted: str) -> None:
    """Refuse what cannot be called. O(1).

    Raises:
        InvalidTypeError: it cannot.
    """
    if not callable(value):
        raise InvalidTypeError(f"{what} must be {wanted}, not {kind_of(value)}")


def check_path(what: str, value: object) -> None:
    """Refuse what is no path. O(1).

    Raises:
        InvalidTypeError: neither text nor a path of text.
    """
    if not isinstance(value, str) and not hasattr(value, "__fspath__"):
        raise InvalidTypeError(f"{what} must be a path, not {kind_of(value)}")


def check_number(what: str, value: object, *, wanted: str = "a number") -> None:
    """Refuse what is no number; whether it is one that can be is the caller's question. O(1).

    Raises:
        InvalidTypeError: neither int nor float; a bool is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"{what} must be {wanted}, not {kind_of(value)}")


def check_count(what: str, value: object, *, least: int) -> None:
    """Refuse what is no count. O(1).

    Raises:
        InvalidTypeError: no integer; a bool is none.
        InvalidValueError: it is under `least`.
    """
    if type(value) is not int:
        raise InvalidTypeError(f"{what} must be an integer, not {kind_of(value)}")
    if value < least:
        raise InvalidValueError(f"{what} must be at least {least:,}, got {value}")


def checked_types(_cls: type, fields: list[Attribute[Any]]) -> list[Attribute[Any]]:
    """Have a configuration's fields checked by their annotations; for attrs' `field_transformer`.

    Whatever else a field's validator says is asked afterwards. An annotation names one class or
    several, simple ones or such as the class's module knows; a field with any other is left alone.

    The error is InvalidTypeError.
    """
    return [field.evolve(validator=_of_type(field)) for field in fields]


def _of_type(field: Attribute[Any]) -> Callable[[Any, Attribute[Any], Any], None]:
    names = [name.strip() for name in str(field.type).split("|")]

    def check(instance: Any, attribute: Attribute[Any], value: Any) -> None:
        if not any(_fits(name, value, instance) for name in names):
            wanted = " or ".join(_WORDS.get(name) or with_article(name) for name in names)
            raise InvalidTypeError(f"{attribute.name} must be {wanted}, not {kind_of(value)}")
        if field.validator is not None:
            field.validator(instance, attribute, value)

    return check


def _fits(name: str, value: object, instance: object) -> bool:
    if name == "None":
        return value is None
    if name == "bool":
        return isinstance(value, bool)
    if name == "int":
        return type(value) is int
    if name == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name == "str":
        return isinstance(value, str)
    known = getattr(sys.modules[type(instance).__module__], name, None)
    return isinstance(value, known) if isinstance(known, type) else True
