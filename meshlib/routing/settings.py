"""How the JSON configuration of a policy is read: strictly when it is written, leniently later."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol, TypeVar

from attrs import frozen

from meshlib.errors import ConfigError, InvalidValueError
from meshlib.limits import TREE_CHARACTERS_MAX

__all__ = [
    "Configured",
    "Range",
    "check_config",
    "check_ranges",
    "number_from",
    "one_of",
    "parse_config",
    "size",
]

_DEFAULTS: Final = frozenset({"", "..."})
"""Texts that are no JSON and stand for the defaults; the second is the specification's."""

_SHOWN_CHARACTERS_MAX: Final = 100


@frozen(slots=True)
class Range:
    """What a field may be.

    Args:
        words: the same for a reader, after "must be".
        holds: tells whether a value may be there.
    """

    words: str
    holds: Callable[[Any], bool]


class Configured(Protocol):
    """A class of settings whose fields have ranges."""

    RANGES: ClassVar[Mapping[str, Range]]


ConfiguredT = TypeVar("ConfiguredT", bound=Configured)


def number_from(minimum: float, maximum: float = math.inf, *, words: str | None = None) -> Range:
    """Return the range of finite numbers from one to another; a bool is none."""

    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return minimum <= value <= maximum and value < math.inf

    if words is None:
        words = (
            f"a number of {minimum:g} or more"
            if maximum == math.inf
            else f"a number from {minimum:g} to {maximum:g}"
        )
    return Range(words, holds)


def size(maximum: int = TREE_CHARACTERS_MAX, *, minimum: int = 1) -> Range:
    """Return the range of integers from `minimum` to a maximum; a bool is none."""
    return Range(
        f"an integer from {minimum} to {maximum}",
        lambda value: type(value) is int and minimum <= value <= maximum,
    )


def one_of(*values: str) -> Range:
    """Return the range of some words."""
    return Range(f"one of {', '.join(map(repr, values))}", lambda value: value in values)


def check_ranges(settings: Configured) -> None:
    """Check the fields of settings that were made by a program.

    Raises:
        ConfigError: names the setting and what it must be.
    """
    for name, allowed in settings.RANGES.items():
        value = getattr(settings, name)
        if not allowed.holds(value):
            raise ConfigError(f"{name} must be {allowed.words}, got {value}")


def parse_config(cls: type[ConfiguredT], config: str) -> ConfiguredT:
    """Read the JSON object of a stored configuration. O(size); never raises.

    A field that is missing or cannot hold keeps its default, and so do all when the text is no
    JSON object; fields that are not known are passed over.
    """
    try:
        tree = json.loads(config)
    except (ValueError, RecursionError):
        return cls()
    if not isinstance(tree, dict):
        return cls()
    ranges = cls.RANGES
    return cls(**{name: tree[name] for name, one in ranges.items() if one.holds(tree.get(name))})


def check_config(cls: type[ConfiguredT], config: str) -> ConfiguredT:
    """Read a configuration that somebody is about to write. O(size).

    The empty text, `{}` and the specification's `...` are the defaults.

    Raises:
        InvalidValueError: no JSON object, a field that is not known or there twice, or a value
            that is of another type or out of its range. Names the field as `config.NAME`.
    """
    if config.strip() in _DEFAULTS:
        return cls()
    try:
        tree = json.loads(config, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"config: not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise InvalidValueError("config: expected a JSON object")
    ranges = cls.RANGES
    for name, value in tree.items():
        if name not in ranges:
            known = ", ".join(ranges) or "none"
            raise InvalidValueError(f"config.{_shown(name)}: unknown; known: {known}")
        if not ranges[name].holds(value):
            raise InvalidValueError(
                f"config.{name}: expected {ranges[name].words}, got {_shown(json.dumps(value))}"
            )
    return cls(**tree)


def _shown(text: str) -> str:
    """Return a text from outside, short enough for a line."""
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "..."


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a field is there twice")
    return tree
