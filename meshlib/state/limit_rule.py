"""Rules: limits for all keys of a pattern, and which of them a key is under.

Rule: what a pattern is, and which of two is the more specific, is decided in this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import define, field, frozen

from meshlib.arguments import check_text
from meshlib.errors import InvalidFieldError, InvalidTypeError
from meshlib.limits import LIMITS_PER_RULE_MAX, RATE_KEY_BYTES_MAX
from meshlib.state.limit import Limit, parse
from meshlib.state.records import check_identifier

__all__ = ["LimitRule", "RuleIndex", "check_rate_key"]

_SEGMENTS_MAX: Final = 16
_PLACE: Final = re.compile(r"\*|\{[A-Za-z_][A-Za-z0-9_]*\}", re.ASCII)
_RESERVED: Final = re.compile(r"[*{}\x00]")


def check_rate_key(key: str) -> str:
    """Return a rate-limit key that rules may be asked about.

    Raises:
        InvalidFieldError: it is empty, longer than 1,000 bytes of UTF-8, or has a zero character.
        InvalidTypeError: no text.
    """
    check_text("key", key)
    if not key or "\0" in key:
        raise InvalidFieldError("key", "must not be empty, nor have a zero character")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidFieldError("key", "must be Unicode text without lone surrogates") from None
    if size > RATE_KEY_BYTES_MAX:
        raise InvalidFieldError(
            "key", f"must be at most {RATE_KEY_BYTES_MAX:,} bytes, got {size:,}"
        )
    return key


def _segments(pattern: str) -> tuple[str, ...]:
    """Return the parts of a pattern, each place as `*`."""
    parts = tuple(check_rate_key(pattern).split(":"))
    if len(parts) > _SEGMENTS_MAX:
        raise InvalidFieldError("pattern", f"must have at most {_SEGMENTS_MAX} parts")
    read = []
    for part in parts:
        is_place = _PLACE.fullmatch(part) is not None
        if not is_place and _RESERVED.search(part):
            raise InvalidFieldError(
                "pattern", f"a place must be a whole part between colons, got {part[:40]!r}"
            )
        read.append("*" if is_place else part)
    return tuple(read)


def _pattern(pattern: object) -> str:
    check_text("pattern", pattern)
    text = str(pattern)
    try:
        _segments(text)
    except InvalidFieldError as error:
        raise InvalidFieldError("pattern", error.problem) from None
    return text


def _name(name: object) -> str:
    return check_identifier("name", name)


def _limits(limits: object) -> tuple[Limit, ...]:
    given = (limits,) if isinstance(limits, str | Limit) else limits
    if not isinstance(given, Iterable):
        raise InvalidTypeError(f"limits must be several limits, not {type(limits).__name__}")
    read = []
    for limit in given:
        read.append(limit if isinstance(limit, Limit) else parse(limit))
        if len(read) > LIMITS_PER_RULE_MAX:
            raise InvalidFieldError("limits", f"must be at most {LIMITS_PER_RULE_MAX}")
    if not read:
        raise InvalidFieldError("limits", "must be at least one")
    codes = [limit.code for limit in read]
    if len(set(codes)) < len(codes):
        raise InvalidFieldError("limits", "must be of different periods, or counted differently")
    return tuple(read)


@frozen(slots=True)
class LimitRule:
    """Limits for every key of a pattern.

    A pattern is parts between colons. A part is text, or a place: `*`, or `{name}`, which is the
    same. A place stands for one part of a key that is not empty; the last one for all the rest.

    Args:
        name: of the rule, 1 to 1,000 bytes.
        pattern: which keys; a pattern without places is that one key.
        limits: all of them hold at once; or their texts, or one. Up to 8.

    Raises:
        InvalidFieldError: names the field that cannot be, and is a ValueError.
        InvalidTypeError: a field of another type.
    """

    name: str = field(converter=_name)
    pattern: str = field(converter=_pattern, kw_only=True)
    limits: tuple[Limit, ...] = field(converter=_limits, kw_only=True)

    def matches(self, key: str) -> bool:
        """Tell whether a key is one of the pattern. O(parts)."""
        return bool(RuleIndex([self]).find(key))


@define(slots=True)
class _Node:
    literal: dict[str, _Node] = field(factory=dict)
    place: _Node | None = None
    rule: LimitRule | None = None


class RuleIndex:
    """The rules in force, found by key.

    The most specific one wins: part by part from the left, text before a place. Of two rules with
    patterns that match the same keys the one whose name comes first.

    Args:
        rules: in any order.
    """

    __slots__ = ("_root", "rules")

    def __init__(self, rules: Iterable[LimitRule]) -> None:
        self.rules = {rule.name: rule for rule in sorted(rules, key=lambda rule: rule.name)}
        self._root = _Node()
        for rule in self.rules.values():
            node = self._root
            for part in _segments(rule.pattern):
                if part == "*":
                    node.place = node.place or _Node()
                    node = node.place
                else:
                    node = node.literal.setdefault(part, _Node())
            node.rule = node.rule or rule

    def find(self, key: str) -> LimitRule | None:
        """Return the rule that a key is under; None when there is none. O(parts of patterns)."""
        if not self.rules:
            return None
        return next(_found(self._root, key.split(":", _SEGMENTS_MAX), 0), None)


def _found(node: _Node, parts: list[str], place: int) -> Iterator[LimitRule]:
    if place == len(parts):
        if node.rule is not None:
            yield node.rule
        return
    part = parts[place]
    if part in node.literal:
        yield from _found(node.literal[part], parts, place + 1)
    if node.place is not None and part:
        yield from _found(node.place, parts, place + 1)
        if node.place.rule is not None:
            yield node.place.rule  # the last place takes all the rest
