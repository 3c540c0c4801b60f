"""Limits and rules: what they may be, how they are written, and which one a key is under."""

from __future__ import annotations

import math
from typing import Any

import pytest

from meshlib.errors import InvalidFieldError, InvalidTypeError
from meshlib.ratelimit import Algorithm, Limit, LimitRule, parse
from meshlib.state import RuleIndex

# Limits


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("5/second", Limit(5)),
        ("100/minute; burst=20", Limit(100, per=60, burst=20)),
        ("1_000 / 10s; algorithm=sliding", Limit(1000, per=10, algorithm=Algorithm.SLIDING)),
        ("7/31d", Limit(7, per=31 * 86_400)),
        ("3/weeks", Limit(3, per="week")),
        ("9/month", Limit(9, per="month")),
        ("2/h;algorithm=gcra", Limit(2, per="hour", burst=2)),
    ],
)
def test_a_limit_is_read_from_text_and_written_as_text(text: str, limit: Limit) -> None:
    """What was written is read as the same limit."""
    assert limit == parse(text) == Limit.parse(str(limit))


@pytest.mark.parametrize(
    ("given", "written"),
    [("7/2678400s", "7/31d"), ("7/7200s", "7/2h"), ("7/600s", "7/10min"), ("7/3601s", "7/3601s"),
     ("7/60s", "7/minute"), ("7/604800s", "7/week")],
)  # fmt: skip
def test_a_period_is_written_in_the_longest_unit_that_fits(given: str, written: str) -> None:
    """So that a person can read it."""
    assert written == str(parse(given))


def test_a_burst_makes_a_bucket_of_it() -> None:
    """As many as the burst at once; without one, as many as the rate, by windows."""
    assert (Algorithm.GCRA, 20) == (
        parse("100/minute; burst=20").algorithm,
        parse("100/minute; burst=20").capacity,
    )
    assert (Algorithm.WINDOW, 100) == (Limit(100).algorithm, Limit(100).capacity)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("rate", {"rate": -1}),
        ("rate", {"rate": 0}),
        ("rate", {"rate": 2**53 + 1}),
        ("rate", {"rate": math.nan}),
        ("rate", {"rate": math.inf}),
        ("rate", {"rate": 1.5}),
        ("per", {"per": 0}),
        ("per", {"per": 31 * 86_400 + 1}),
        ("per", {"per": "fortnight"}),
        ("per", {"per": math.nan}),
        ("per", {"per": "month", "algorithm": "sliding"}),
        ("burst", {"burst": 0}),
        ("burst", {"burst": 5, "algorithm": "window"}),
        ("algorithm", {"algorithm": "leaky"}),
    ],
)
def test_a_limit_that_cannot_be_names_its_field(field: str, arguments: dict[str, Any]) -> None:
    """With a ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError, match=field) as caught:
        Limit(**{"rate": 5, **arguments})

    assert isinstance(caught.value, InvalidFieldError)
    assert field == caught.value.field


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("rate", "-1/second"),
        ("rate", "nan/second"),
        ("rate", "1.5/second"),
        ("per", "5/fortnight"),
        ("per", "5/32d"),
        ("burst", "5/second; burst=x"),
        ("limit", ""),
        ("limit", "5"),
        ("limit", "5/second; burst=1; burst=2"),
        ("limit", "5/second; colour=red"),
        ("limit", "5/second" + " " * 200),
        ("rate", "9" * 32 + "/s"),
    ],
)
def test_text_that_is_no_limit_names_what_is_wrong(field: str, text: str) -> None:
    """And is refused, whatever its length."""
    with pytest.raises(InvalidFieldError) as caught:
        parse(text)

    assert field == caught.value.field


@pytest.mark.parametrize("value", [None, 5, b"5/s", True])
def test_a_limit_is_read_from_text_only(value: Any) -> None:
    """Another type is one."""
    with pytest.raises(InvalidTypeError):
        parse(value)


# Rules


def rule(name: str, pattern: str) -> LimitRule:
    return LimitRule(name, pattern=pattern, limits="1/second")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("user:ann", "ann"),
        ("user:bob", "user"),
        ("user:bob:chat", "user"),
        ("user:ann:chat", "deep"),
        ("user:", "all"),
        ("team:x", "all"),
        ("x", "all"),
        ("a:b:c", "middle"),
        ("a:b:d", "all"),
    ],
)
def test_the_most_specific_rule_wins(key: str, name: str) -> None:
    """Part by part from the left, text before a place; the last place takes the rest."""
    index = RuleIndex(
        [
            rule("all", "*"),
            rule("user", "user:{id}"),
            rule("ann", "user:ann"),
            rule("deep", "user:*:chat"),
            rule("middle", "a:*:c"),
        ]
    )
    if key == "user:bob:chat":
        name = "deep"
    found = index.find(key)

    assert found is not None
    assert name == found.name


def test_a_key_under_no_pattern_has_no_rule() -> None:
    """Nor has one whose place would be empty."""
    index = RuleIndex([rule("user", "user:*")])

    assert [None] * 4 == [index.find(key) for key in ("user", "user:", "team:a", "")]
    assert rule("user", "user:*").matches("user:a:b")


def test_of_two_rules_with_one_pattern_the_first_name_holds() -> None:
    """On every node the same."""
    index = RuleIndex([rule("b", "user:*"), rule("a", "user:{id}")])
    found = index.find("user:x")

    assert found is not None
    assert "a" == found.name


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("pattern", {"pattern": ""}),
        ("pattern", {"pattern": "user*"}),
        ("pattern", {"pattern": "user:{}"}),
        ("pattern", {"pattern": "a\0b"}),
        ("pattern", {"pattern": "x" * 1001}),
        ("pattern", {"pattern": ":".join("*" * 17)}),
        ("limits", {"limits": []}),
        ("limits", {"limits": ["1/second", "2/second"]}),
        ("limits", {"limits": [f"1/{n}s" for n in range(1, 10)]}),
        ("rate", {"limits": "0/second"}),
    ],
)
def test_a_rule_that_cannot_be_names_its_field(field: str, arguments: dict[str, Any]) -> None:
    """With a ValueError."""
    with pytest.raises(InvalidFieldError) as caught:
        LimitRule("name", **{"pattern": "user:*", "limits": "1/second", **arguments})

    assert field == caught.value.field


def test_a_pattern_made_to_be_slow_is_not() -> None:
    """Each part of the rules is looked at once at most."""
    patterns = [":".join("*" if n >> i & 1 else "a" for i in range(9)) for n in range(500)]
    index = RuleIndex([rule(f"r{n}", f"{p}:end") for n, p in enumerate(patterns)])

    assert index.find(":".join("a" * 9) + ":other") is None
