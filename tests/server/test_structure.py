"""Strict structuring: nothing is coerced, and errors name the full path."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import frozen

from meshlib_server.structure import StructureError, structure


@frozen(kw_only=True)
class Inner:
    """A record inside another."""

    count: int
    load: float = 0.5

    def __attrs_post_init__(self) -> None:
        """Check the count."""
        if self.count < 0:
            raise ValueError("count must not be negative")


@frozen(kw_only=True)
class Outer:
    """A record with each kind of field."""

    name: str | None = None
    is_on: bool = True
    inner: Inner | None = None
    items: tuple[Inner, ...] = ()
    words: tuple[str, ...] = ()
    free: dict[str, Any] | None = None


def test_a_whole_tree_becomes_a_record() -> None:
    """Nested records, lists and free-form objects are made."""
    tree = {
        "name": "a",
        "is_on": False,
        "inner": {"count": 1, "load": 2},
        "items": [{"count": 3}],
        "words": ["x"],
        "free": {"y": [1]},
    }

    assert Outer(
        name="a",
        is_on=False,
        inner=Inner(count=1, load=2.0),
        items=(Inner(count=3),),
        words=("x",),
        free={"y": [1]},
    ) == structure(tree, Outer)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "expected an object, got a list"),
        ({"surprise": 1}, "surprise: unknown key"),
        ({"name": 1}, "name: expected text, got an integer"),
        ({"name": "\ud800"}, "name: a lone surrogate is no Unicode text"),
        ({"is_on": 1}, "is_on: expected a boolean, got an integer"),
        ({"is_on": None}, "is_on: expected a boolean, got nothing"),
        ({"inner": {}}, "inner.count: missing"),
        ({"inner": {"count": True}}, "inner.count: expected an integer, got a boolean"),
        ({"inner": {"count": 1.0}}, "inner.count: expected an integer, got a number"),
        ({"inner": {"count": 1, "load": "1"}}, "inner.load: expected a number, got text"),
        ({"inner": {"count": 1, "load": True}}, "inner.load: expected a number, got a boolean"),
        ({"inner": {"count": 1, "load": 1e999}}, "inner.load: expected a finite number"),
        ({"inner": {"count": 1, "load": 10**400}}, "inner.load: expected a finite number"),
        ({"inner": {"count": 1, "more": 1}}, "inner.more: unknown key"),
        ({"inner": {"count": -1}}, "inner: count must not be negative"),
        ({"items": {}}, "items: expected a list, got an object"),
        (
            {"items": [{"count": 1}, {"count": "1"}]},
            "items[1].count: expected an integer, got text",
        ),
        ({"words": "abc"}, "words: expected a list, got text"),
        ({"words": ["a", 1]}, "words[1]: expected text, got an integer"),
        ({"free": []}, "free: expected an object, got a list"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(tree: Any, message: str) -> None:
    """Each kind of mistake is an error that says where and what."""
    with pytest.raises(StructureError) as caught:
        structure(tree, Outer)

    assert message == str(caught.value)


def test_every_mistake_of_a_tree_is_told_at_once() -> None:
    """Somebody with two mistakes need not run twice."""
    with pytest.raises(StructureError) as caught:
        structure({"name": 1, "inner": {"count": "x"}}, Outer)

    assert ["name", "inner.count"] == [path for path, _ in caught.value.problems]
