"""The ring spreads keys evenly, agrees everywhere and moves as little as it must."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.errors import (
    EmptyRingError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    UnknownKeyError,
)
from meshlib.ring import ConsistentHashRing, rendezvous

NAMES = st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=12)
GOLDEN = {
    "global": ("node3", "node4", "node2"),
    "tenant/7": ("node1", "node2", "node4"),
    "": ("node4", "node2", "node5"),
    "Grüße": ("node2", "node1", "node4"),
}
KEYS = [f"key-{number}" for number in range(3000)]


def owners_of(ring: ConsistentHashRing, *, count: int = 1) -> dict[str, tuple[str, ...]]:
    return {key: ring.owners(key, count=count) for key in KEYS}


@given(names=NAMES, key=st.text(), data=st.data())
def test_the_order_of_insertion_does_not_matter(
    names: list[str], key: str, data: st.DataObject
) -> None:
    """Two rings of the same membership own the same, however they came to it."""
    if not names:
        return
    shuffled = data.draw(st.permutations(names))
    built = ConsistentHashRing(names, virtual_nodes=8)
    grown = ConsistentHashRing(("passing through",), virtual_nodes=8)
    for name in shuffled:
        grown.add(name)
    if "passing through" not in names:
        grown.remove("passing through")
    assert built.owners(key, count=5) == grown.owners(key, count=5)


@given(names=NAMES, key=st.text(), count=st.integers(1, 15))
def test_owners_are_distinct_nodes_of_the_ring(names: list[str], key: str, count: int) -> None:
    """A key has as many distinct owners as asked for, or all nodes when there are fewer."""
    if not names:
        return
    owners = ConsistentHashRing(names, virtual_nodes=4).owners(key, count=count)
    assert min(count, len(names)) == len(owners) == len(set(owners))
    assert set(owners) <= set(names)


def test_a_key_has_three_owners_by_default() -> None:
    """The specification's K."""
    assert len(ConsistentHashRing(["a", "b", "c", "d"]).owners("key")) == 3


def test_owners_stay_what_they_were_in_the_first_release() -> None:
    """Owners are part of the wire: nodes of two releases must agree."""
    ring = ConsistentHashRing(["node1", "node2", "node3", "node4", "node5"])
    assert {key: ring.owners(key) for key in GOLDEN} == GOLDEN


def test_the_first_owner_is_the_owner() -> None:
    """`owner` is the head of `owners`."""
    ring = ConsistentHashRing(["a", "b", "c"])
    assert [ring.owners(key)[0] for key in KEYS] == [ring.owner(key) for key in KEYS]


def test_keys_spread_evenly() -> None:
    """With 150 virtual nodes no node of ten owns less than half or more than double its part."""
    ring = ConsistentHashRing([f"n{i}" for i in range(10)])
    counts = Counter(ring.owner(key) for key in KEYS)
    assert len(counts) == 10
    assert len(KEYS) / 20 < min(counts.values())
    assert max(counts.values()) < len(KEYS) / 5


def test_short_names_that_differ_in_one_letter_share_no_points() -> None:
    """Names that hash from almost the same bytes still stand at points of their own."""
    ring = ConsistentHashRing([f"n{i:02}" for i in range(100)])
    assert len(set(ring._points)) == 100 * 150


def test_a_new_node_only_takes_keys() -> None:
    """Adding a node moves keys to it and between no others."""
    ring = ConsistentHashRing(["a", "b", "c", "d"])
    before = owners_of(ring)
    ring.add("e")
    moved = {after for key, after in owners_of(ring).items() if after != before[key]}
    assert {("e",)} == moved


def test_a_removed_node_only_gives_its_keys() -> None:
    """Removing a node moves the keys it owned and no others."""
    ring = ConsistentHashRing(["a", "b", "c", "d"])
    before = owners_of(ring)
    ring.remove("b")
    moved_from = {before[key] for key, after in owners_of(ring).items() if after != before[key]}
    assert {("b",)} == moved_from


def test_the_next_owner_takes_over() -> None:
    """When the first of three owners goes, the other two stay and keep their order."""
    ring = ConsistentHashRing(["a", "b", "c", "d", "e"])
    first, second, third = ring.owners("key")
    ring.remove(first)
    assert (second, third) == ring.owners("key")[:2]


def test_adding_twice_changes_nothing() -> None:
    """A node that is on the ring stays as it is."""
    ring = ConsistentHashRing(["a", "b"])
    ring.add("a")
    assert ring.nodes == ("a", "b")
    assert len(ring._points) == 300


def test_update_replaces_the_membership() -> None:
    """After `update` the ring holds exactly what was named."""
    ring = ConsistentHashRing(["a", "b"])
    ring.update(["c", "b"])
    assert ring.nodes == ("b", "c")
    assert "a" not in ring
    assert owners_of(ConsistentHashRing(["b", "c"])) == owners_of(ring)


def test_an_empty_ring_has_no_owners() -> None:
    """Asking an empty ring says so instead of looping."""
    with pytest.raises(EmptyRingError):
        ConsistentHashRing().owners("key")


def test_removing_an_unknown_node_is_refused() -> None:
    """And changes nothing."""
    ring = ConsistentHashRing(["a"])
    with pytest.raises(UnknownKeyError):
        ring.remove("b")
    assert ring.nodes == ("a",)


def test_count_must_be_positive() -> None:
    """No owners at all is no answer."""
    with pytest.raises(InvalidValueError):
        ConsistentHashRing(["a"]).owners("key", count=0)


@pytest.mark.parametrize("virtual_nodes", [0, -1])
def test_virtual_nodes_must_be_positive(virtual_nodes: int) -> None:
    """A node without points owns nothing and would never be found."""
    with pytest.raises(InvalidValueError):
        ConsistentHashRing(virtual_nodes=virtual_nodes)


def test_virtual_nodes_are_limited() -> None:
    """The limit is a clear error."""
    with pytest.raises(LimitError):
        ConsistentHashRing(virtual_nodes=4097)


def test_nodes_are_limited() -> None:
    """One node more than the limit is refused and the ring stays as it was."""
    ring = ConsistentHashRing(["a"], virtual_nodes=1)
    with pytest.raises(LimitError):
        ring.update(str(number) for number in range(4097))
    assert ring.nodes == ("a",)


@pytest.mark.parametrize(("name", "error"), [("", InvalidValueError), (b"a", InvalidTypeError)])
def test_names_are_checked(name: str, error: type[Exception]) -> None:
    """Names that cannot be names are refused, and nothing changes."""
    ring = ConsistentHashRing(["a"])
    with pytest.raises(error):
        ring.add(name)
    assert ring.nodes == ("a",)


@given(names=NAMES, key=st.text())
def test_rendezvous_orders_all_candidates_the_same_everywhere(names: list[str], key: str) -> None:
    """The order does not depend on how the candidates were listed."""
    assert sorted(names) == sorted(rendezvous(key, names))
    assert rendezvous(key, names) == rendezvous(key, [*reversed(names), *names])


@given(names=NAMES, key=st.text(), data=st.data())
def test_rendezvous_keeps_the_others_in_order(
    names: list[str], key: str, data: st.DataObject
) -> None:
    """Without one candidate the rest stand as before."""
    if not names:
        return
    gone = data.draw(st.sampled_from(names))
    rest = [name for name in names if name != gone]
    assert [name for name in rendezvous(key, names) if name != gone] == rendezvous(key, rest)


def test_rendezvous_spreads_evenly() -> None:
    """No candidate of four is first for less than a fifth of the keys."""
    counts = Counter(rendezvous(key, ["w1", "w2", "w3", "w4"])[0] for key in KEYS)
    assert min(counts.values()) > len(KEYS) / 5


def test_rendezvous_checks_names() -> None:
    """An empty name is no candidate."""
    with pytest.raises(InvalidValueError):
        rendezvous("key", [""])
