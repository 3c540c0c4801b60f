"""The radix tree finds the longest prefix, counts exactly and forgets what it is told to."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.hashing import hash64_text
from meshlib.limits import TEXT_CHARACTERS_MAX, TREE_CHARACTERS_MAX
from meshlib.prefix import ACCESS_MAX, Entry, Match, Placement, RadixTree
from meshlib.prefix.comparing import common_length


def tree_of(*entries: tuple[str, str, int]) -> RadixTree:
    tree = RadixTree()
    for text, tenant, access in entries:
        tree.insert(text, tenant=tenant, access=access)
    tree._check()
    return tree


def entries_of(tree: RadixTree) -> dict[tuple[str, str], int]:
    return {
        (text, tenant): access for tenant in tree.tenants() for text, access in tree.entries(tenant)
    }


# Matching


def test_an_empty_tree_matches_nothing() -> None:
    """Nobody holds anything."""
    assert Match((), 0) == RadixTree().match("Hello")


def test_the_specification_s_example_matches() -> None:
    """The request "Hello world" finds the worker that has "Hello"."""
    tree = tree_of(("Hello", "worker1", 1), ("Help", "worker2", 2))
    assert Match(("worker1",), 5) == tree.match("Hello world")


def test_a_match_may_end_inside_an_edge() -> None:
    """A request that is shorter than the entry, or parts from it, matches what they share."""
    tree = tree_of(("Hello world", "worker1", 1))
    assert Match(("worker1",), 5) == tree.match("Hello")
    assert Match(("worker1",), 8) == tree.match("Hello woman")


def test_a_shared_prefix_belongs_to_all_who_hold_it() -> None:
    """All tenants of the deepest matched point are named, sorted."""
    tree = tree_of(("Help", "worker2", 2), ("Hello", "worker1", 1), ("Halo", "worker3", 1))
    assert Match(("worker1", "worker2"), 3) == tree.match("Hel")
    assert Match(("worker1", "worker2", "worker3"), 1) == tree.match("H")


def test_nothing_in_common_is_no_match() -> None:
    """Then nobody is named either."""
    assert Match((), 0) == tree_of(("Hello", "worker1", 1)).match("World")
    assert Match((), 0) == tree_of(("Hello", "worker1", 1)).match("")


def test_each_tenant_has_a_match_of_its_own() -> None:
    """`match_each` says how far each one comes, `match_tenant` how far one does."""
    tree = tree_of(("Hello world", "a", 1), ("Hello", "b", 1), ("Help", "c", 1), ("x", "d", 1))
    assert tree.match_each("Hello woods") == {"a": 8, "b": 5, "c": 3}
    assert [tree.match_tenant("Hello woods", tenant=tenant) for tenant in "abcde"] == [
        8,
        5,
        3,
        0,
        0,
    ]


@given(
    shared=st.text(alphabet="ab\N{EURO SIGN}", max_size=600).map("x".__add__),
    one=st.text(alphabet="ab\U0001f600", max_size=3),
    other=st.text(alphabet="ab\U0001f600", max_size=3),
)
def test_the_point_of_a_mismatch_is_found_exactly(shared: str, one: str, other: str) -> None:
    """Wherever two texts part, whatever their width in memory."""
    edge, text = shared + one, "before" + shared + other
    expected = next(
        (
            index
            for index, pair in enumerate(zip(edge, text[6:], strict=False))
            if pair[0] != pair[1]
        ),
        min(len(edge), len(text) - 6),
    )
    assert expected == common_length(edge, text, 6)


@pytest.mark.parametrize(
    "text",
    ["a\0b", "\ud800\udfff", "e\u0301", "\U0001f468\u200d\U0001f469", "ßẞ", "\u202e\ufeff", " "],
)
def test_any_unicode_is_text(text: str) -> None:
    """Characters are code points; nothing is normalised or refused."""
    tree = tree_of((text, "w", 1), (text + "tail", "v", 1))
    assert Match(("v", "w"), len(text)) == tree.match(text + "other")
    assert {(text, "w"): 1, (text + "tail", "v"): 1} == entries_of(tree)


def test_composed_and_decomposed_letters_differ() -> None:
    """The tree compares code points, as the tokeniser that fills the cache does."""
    assert Match((), 0) == tree_of(("\u00e9", "w", 1)).match("e\u0301")


# Inserting


def test_an_entry_keeps_its_highest_access() -> None:
    """Accesses may arrive in any order."""
    tree = RadixTree()
    assert [True, False, False, True] == [
        tree.insert("Hello", tenant="w", access=access) for access in (5, 3, 5, 7)
    ]
    assert tree.access("Hello", tenant="w") == 7


def test_only_exact_entries_have_an_access() -> None:
    """A prefix of an entry is held, and is no entry."""
    tree = tree_of(("Hello", "w", 5))
    assert [None, None, None, 5] == [
        tree.access("Hell", tenant="w"),
        tree.access("Hello!", tenant="w"),
        tree.access("Hello", tenant="v"),
        tree.access("Hello", tenant="w"),
    ]


def test_placing_tells_the_hash_and_what_was_there() -> None:
    """What a digest over the entries needs comes out of the one descent."""
    tree = RadixTree()
    expected = hash64_text("Hello")
    assert Placement(expected, None) == tree.place("Hello", tenant="w", access=5)
    assert Placement(expected, 5) == tree.place("Hello", tenant="w", access=7)
    assert Placement(expected, 7) == tree.place("Hello", tenant="w", access=6)
    assert Placement(expected, None) == tree.place("Hello", tenant="v", access=6)


def test_shared_characters_count_once() -> None:
    """The tree's total counts tree characters, a tenant's total those it holds."""
    tree = tree_of(("Hello", "a", 1), ("Help", "b", 1), ("Hello", "b", 1))
    assert (len("Hello") + len("p")) == tree.characters_total
    assert (len("Hello"), len("Hello") + len("p"), 0) == tuple(map(tree.characters, "abc"))


@pytest.mark.parametrize(
    ("text", "tenant", "access", "error"),
    [
        ("", "w", 1, InvalidValueError),
        (b"text", "w", 1, InvalidTypeError),
        ("x" * (TEXT_CHARACTERS_MAX + 1), "w", 1, LimitError),
        ("text", "", 1, InvalidValueError),
        ("text", None, 1, InvalidTypeError),
        ("text", "\ud800", 1, InvalidValueError),
        ("text", "w" * 1025, 1, LimitError),
        ("text", "w", -1, InvalidValueError),
        ("text", "w", ACCESS_MAX + 1, InvalidValueError),
        ("text", "w", True, InvalidTypeError),
        ("text", "w", 1.0, InvalidTypeError),
    ],
)
def test_what_is_no_entry_is_refused(
    text: str, tenant: str, access: int, error: type[Exception]
) -> None:
    """And the tree is unchanged."""
    tree = tree_of(("tex", "v", 1))
    with pytest.raises(error):
        tree.insert(text, tenant=tenant, access=access)
    tree._check()
    assert {("tex", "v"): 1} == entries_of(tree)


def test_the_size_is_enforced_at_insertion() -> None:
    """An entry of which too many characters are new is refused before anything changes."""
    tree = RadixTree(characters_max=9)
    tree.insert("Hello", tenant="w", access=1)
    tree.insert("Help us", tenant="w", access=1)
    for text in ("Helicopter", "World", "Hello world"):
        with pytest.raises(LimitError):
            tree.insert(text, tenant="v", access=9)
    tree._check()
    assert {("Hello", "w"): 1, ("Help us", "w"): 1} == entries_of(tree)


def test_what_is_there_already_needs_no_room() -> None:
    """A full tree still takes touches, prefixes and further tenants."""
    tree = RadixTree(characters_max=5)
    tree.insert("Hello", tenant="w", access=1)
    assert tree.insert("Hello", tenant="v", access=1)
    assert tree.insert("Hell", tenant="v", access=1)
    assert tree.characters_total == 5


def test_tenants_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tenant too many is refused, a known one is not."""
    monkeypatch.setattr("meshlib.prefix.prefix_tree.TENANTS_MAX", 2)
    tree = tree_of(("a", "w1", 1), ("a", "w2", 1))
    with pytest.raises(LimitError):
        tree.insert("a", tenant="w3", access=1)
    assert tree.insert("b", tenant="w2", access=1)


@pytest.mark.parametrize(
    ("characters_max", "error"), [(0, InvalidValueError), (4 * TREE_CHARACTERS_MAX + 1, LimitError)]
)
def test_the_size_setting_is_checked(characters_max: int, error: type[Exception]) -> None:
    """A tree without room, or over the package's limit, is not made."""
    with pytest.raises(error):
        RadixTree(characters_max=characters_max)


# Matching and inserting in one


def test_matching_and_inserting_in_one_does_both() -> None:
    """What is chosen from is the match before the insertion."""
    tree = tree_of(("Hello", "a", 1))
    seen: list[Match] = []

    def choose(match: Match) -> str:
        seen.append(match)
        return "b"

    found = tree.match_and_insert("Help", choose, access=2)
    tree._check()
    assert [Match(("a",), 3)] == seen
    assert (Match(("a",), 3), Placement(hash64_text("Help"), None)) == found
    assert {("Hello", "a"): 1, ("Help", "b"): 2} == entries_of(tree)


def test_choosing_nobody_inserts_nothing() -> None:
    """The match is told all the same."""
    tree = tree_of(("Hello", "a", 1))
    assert (Match(("a",), 3), None) == tree.match_and_insert("Help", lambda _: None, access=2)
    tree._check()
    assert {("Hello", "a"): 1} == entries_of(tree)


def test_a_choice_that_fails_changes_nothing() -> None:
    """The error comes through, and so does that of a tenant which is none."""
    tree = tree_of(("Hello", "a", 1))

    def fail(match: Match) -> str:
        raise KeyError(match.matched)

    with pytest.raises(KeyError):
        tree.match_and_insert("Help", fail, access=2)
    with pytest.raises(InvalidValueError):
        tree.match_and_insert("Help", lambda _: "", access=2)
    tree._check()
    assert {("Hello", "a"): 1} == entries_of(tree)


# What it costs, in things that can be counted


class Counted(list[bytes]):
    """Edges that count how often one is looked at."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)


def test_texts_that_extend_each_other_are_not_walked_from_the_root_each_time() -> None:
    """Neither one that extends the last one nor the same one again, however deep it stands."""
    tree = RadixTree()
    tree._nodes.edges = edges = Counted(tree._nodes.edges)
    for turn in range(1, 1025):
        tree.insert("a turn. " * turn, tenant="w", access=turn)
        tree.insert("a turn. " * turn, tenant="v", access=turn)
    assert edges.looks < 4 * 2048
    tree._check()
    assert len(tree) == 2048


def test_to_ask_and_then_insert_is_one_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a text leads is remembered until the tree changes, as for each routed prompt."""
    tree = tree_of(("the quick", "v", 1), ("the quack", "w", 2))
    text, descents = "the quick brown fox", list[str]()
    descend = RadixTree._descend

    def counting(self: RadixTree, key: str, data: bytes) -> Any:
        descents.append(key)
        return descend(self, key, data)

    monkeypatch.setattr(RadixTree, "_descend", counting)
    tree.match_each(text)
    assert Match(("v",), 9) == tree.match(text)
    assert 9 == tree.match_tenant(text, tenant="v")
    assert tree.access(text, tenant="v") is None
    tree.insert(text, tenant="w", access=3)
    assert [text] == descents


def test_what_is_remembered_of_a_text_ends_with_a_change() -> None:
    """Insertions, removals and evictions between two questions are seen by the second."""
    tree = tree_of(("the quick", "v", 1))
    text = "the quick brown fox"
    assert {"v": 9} == tree.match_each(text)
    tree.insert("the quick brown", tenant="w", access=2)
    assert {"v": 9, "w": 15} == tree.match_each(text)
    tree.remove("the quick brown", tenant="w")
    assert {"v": 9} == tree.match_each(text)
    tree.evict("v", floor=1)
    assert {} == tree.match_each(text)
    assert Match((), 0) == tree.match(text)
    tree.insert(text, tenant="w", access=3)
    assert {"w": 19} == tree.match_each(text)
    assert Match(("w",), 19) == tree.match(text)
    tree._check()


def test_finding_the_oldest_of_all_asks_few_tenants() -> None:
    """Dropping one entry after the other does not look at all tenants for each."""
    tree = tree_of(*((f"{n} text", f"tenant {n % 500}", n) for n in range(2000)))
    asked: list[str] = []
    recency_of = tree._eldest._recency_of

    def count(tenant: str) -> Any:
        asked.append(tenant)
        return recency_of(tenant)

    tree._eldest._recency_of = count
    for expected in range(1000):
        assert (f"tenant {expected % 500}", expected) == tree.oldest_tenant()
        tree.evict(f"tenant {expected % 500}", floor=expected)
    assert len(asked) < 4 * 1000


def test_an_entry_is_nothing_that_the_garbage_collector_follows() -> None:
    """A full tree has as many containers as an empty one."""
    tree = RadixTree()
    tree.insert("0", tenant="w", access=0)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1, 2001):
        tree.insert(chr(200 + number) * 20, tenant="w", access=number)
    gc.collect()
    assert len(gc.get_objects()) < before + 100


@pytest.mark.parametrize("wide", ["\N{RIGHT SINGLE QUOTATION MARK}", "\U0001f600"])
def test_one_wide_character_does_not_widen_the_others(wide: str) -> None:
    """A text takes its length in UTF-8, and is counted in characters."""
    tree = tree_of(("x" * 500 + wide + "y" * 500, "w", 1), ("x" * 400 + wide, "w", 1))
    assert sum(map(len, tree._nodes.edges)) == 1000 + 2 * len(wide.encode())
    assert tree.characters_total == 1002


def test_a_match_ends_between_two_characters() -> None:
    """Not between two bytes of one: these share the first two of three, or the first of two."""
    tree = tree_of(("a\u4e2d", "w", 1), ("b\xe9", "w", 1))
    assert Match(("w",), 1) == tree.match("a\u4e2e")
    tree.insert("a\u4e2e", tenant="v", access=2)
    tree.insert("b\xe8", tenant="v", access=2)
    tree._check()
    assert Match(("v", "w"), 1) == tree.match("a\u4e00")
    assert Match(("v",), 2) == tree.match("b\xe8\xe9")


def test_a_conversation_that_went_to_several_workers_stays_small() -> None:
    """Its turns share what they say of who holds them, until one of them changes."""
    turns = ["turn" * length for length in range(1, 30)]
    tree = tree_of(*((text, "vw"[n % 2], n) for n, text in enumerate(turns)))
    assert len({id(held) for held in tree._nodes.shared}) < 6
    twin = tree.copy()
    twin._check()
    for n, text in enumerate(turns):
        assert tree.remove(text, tenant="vw"[n % 2])
        tree._check()
    assert len(twin) == len(turns)
    assert tree.characters_total == 0


def test_a_tenant_takes_the_place_of_another_without_its_name() -> None:
    """Names that were sorted before are sorted again."""
    tree = tree_of(("ab", "v", 1), ("ac", "w", 1))
    assert Match(("v", "w"), 1) == tree.match("a")
    tree.remove_tenant("v")
    tree.insert("ab", tenant="x", access=1)
    tree._check()
    assert Match(("w", "x"), 1) == tree.match("a")


# Removing and evicting


def test_removing_an_entry_keeps_what_is_above_and_below() -> None:
    """Entries on the same path are independent of each other."""
    tree = tree_of(("ab", "w", 1), ("abcd", "w", 2), ("abcdef", "w", 3))
    assert tree.remove("abcd", tenant="w")
    tree._check()
    assert {("ab", "w"): 1, ("abcdef", "w"): 3} == entries_of(tree)
    assert Match(("w",), 5) == tree.match("abcde")


def test_removing_what_is_not_there_changes_nothing() -> None:
    """It only says so."""
    tree = tree_of(("abcd", "w", 1))
    assert not tree.remove("ab", tenant="w")
    assert not tree.remove("abcd", tenant="v")
    assert not tree.remove("", tenant="w")
    assert {("abcd", "w"): 1} == entries_of(tree)


def test_an_entry_that_was_removed_can_come_back_older() -> None:
    """The access of an earlier life is forgotten."""
    tree = tree_of(("ab", "v", 1), ("ab", "w", 9))
    tree.remove("ab", tenant="w")
    tree.insert("ab", tenant="w", access=2)
    tree.insert("abc", tenant="w", access=3)
    tree._check()
    assert tree.oldest("w") == Entry("w", "ab", 2)
    assert [2] == [access for _, access in tree.evict("w", floor=2)]


def test_a_copy_knows_the_age_of_an_entry_that_came_back_older() -> None:
    """Not the age that it had in its earlier life."""
    tree = tree_of(("ab", "v", 1), ("ab", "w", 9), ("z", "w", 9))
    tree.remove("ab", tenant="w")
    tree.insert("ab", tenant="w", access=2)
    twin = tree.copy()
    twin._check()
    assert len(twin.evict("w", floor=2)) == 1


def test_coming_and_going_leaves_nothing_behind() -> None:
    """The order of eviction stays small though one entry is removed over and over."""
    tree = tree_of(("ab", "v", 1))
    for access in range(5000):
        tree.insert("ab", tenant="w", access=access)
        tree.remove("ab", tenant="w")
    tree.insert("ab", tenant="w", access=1)
    tree._check()
    assert len(tree._holdings["w"].recency.heap) < 200


def test_removing_a_tenant_leaves_the_others() -> None:
    """And says how many entries went."""
    tree = tree_of(("Hello", "a", 1), ("Help", "a", 2), ("Hello", "b", 1))
    assert tree.remove_tenant("a") == 2
    tree._check()
    assert {("Hello", "b"): 1} == entries_of(tree)
    assert tree.remove_tenant("a") == 0


def test_the_last_tenant_takes_the_nodes_with_it() -> None:
    """An emptied tree is as good as new."""
    tree = tree_of(("Hello", "a", 1), ("Help", "a", 2), ("Hello", "b", 1))
    tree.remove_tenant("a")
    tree.remove_tenant("b")
    assert (0, 0, (), {}) == (
        tree.characters_total,
        len(tree),
        tree.tenants(),
        tree._nodes.below[0],
    )


def test_eviction_drops_what_is_at_or_under_the_floor() -> None:
    """Oldest first, of that tenant alone."""
    tree = tree_of(("a", "w", 3), ("ab", "w", 1), ("abc", "w", 2), ("b", "w", 4), ("c", "v", 1))
    expected = [(hash64_text("ab"), 1), (hash64_text("abc"), 2), (hash64_text("a"), 3)]
    assert expected == tree.evict("w", floor=3)
    tree._check()
    assert {("b", "w"): 4, ("c", "v"): 1} == entries_of(tree)


def test_a_touch_saves_an_entry_from_eviction() -> None:
    """Also when it comes after younger entries."""
    tree = tree_of(("a", "w", 1), ("b", "w", 2), ("a", "w", 3))
    tree.evict("w", floor=2)
    assert {("a", "w"): 3} == entries_of(tree)


def test_a_shared_prefix_outlives_its_oldest_user() -> None:
    """A prefix is as young as the youngest entry below it."""
    tree = tree_of(("system: one", "w", 1), ("system: two", "w", 9))
    tree.evict("w", floor=5)
    tree._check()
    assert Match(("w",), len("system: ")) == tree.match("system: one")


def test_the_oldest_entry_is_known_for_one_tenant_and_for_all() -> None:
    """Ties between tenants go to the smaller name."""
    tree = tree_of(("a", "w", 2), ("b", "w", 5), ("c", "v", 2), ("d", "u", 3))
    assert [Entry("w", "a", 2), Entry("v", "c", 2), None] == [
        tree.oldest("w"),
        tree.oldest(),
        tree.oldest("nobody"),
    ]
    assert RadixTree().oldest() is None


def test_the_floor_for_a_size_leaves_no_more_than_that() -> None:
    """A shared prefix goes with its youngest user, and no more is evicted than ties require."""
    entries = ("aa-1", "w", 1), ("aa-2", "w", 3), ("bbb", "v", 2), ("c", "v", 3)
    sizes = [(size, tree_of(*entries).floor_for(size)) for size in (9, 8, 7, 5, 4, 0)]
    assert sizes == [(9, 0), (8, 1), (7, 2), (5, 2), (4, 3), (0, 3)]
    for size, floor in sizes:
        tree = tree_of(*entries)
        for tenant in ("v", "w"):
            tree.evict(tenant, floor=floor)
        assert tree.characters_total <= size


def test_entries_can_be_asked_for_by_the_top_byte_of_their_hash() -> None:
    """Without building the texts of the others."""
    texts = [f"text {number}" for number in range(50)]
    tree = tree_of(*((text, "w", 1) for text in texts))
    chosen = range(100)
    assert {(text, 1) for text in texts if hash64_text(text) >> 56 in chosen} == set(
        tree.entries("w", buckets=chosen)
    )
    assert {(hash64_text(text), 1) for text in texts} == set(tree.entry_hashes("w"))


def test_entry_counts_follow() -> None:
    """For each tenant and for all."""
    tree = tree_of(("a", "w", 2), ("ab", "w", 5), ("a", "v", 2))
    assert [3, 2, 1, 0] == [len(tree), *map(tree.entry_count, ("w", "v", "u"))]
    assert ("v", "w") == tuple(tree.tenants())


# Depth and copies


def test_a_path_of_many_nodes_needs_no_recursion() -> None:
    """Every prefix of a text may be an entry of its own."""
    tree = RadixTree()
    for length in range(1, 3001):
        tree.insert("a" * length, tenant="w", access=length)
    assert Match(("w",), 3000) == tree.match("a" * 5000)
    assert tree.copy().remove_tenant("w") == 3000
    tree.evict("w", floor=2999)
    tree._check()
    assert {("a" * 3000, "w"): 3000} == entries_of(tree)


def test_a_copy_is_independent() -> None:
    """Neither tree sees what happens to the other."""
    tree = tree_of(("Hello", "a", 1), ("Help", "b", 2), ("Hel", "b", 3))
    before = entries_of(tree)
    twin = tree.copy()
    twin._check()
    assert before == entries_of(twin)
    twin.insert("Helium", tenant="c", access=1)
    twin.evict("b", floor=2)
    twin._check()
    tree._check()
    assert before == entries_of(tree)


@given(
    st.lists(
        st.tuples(st.text(alphabet="ab", min_size=1, max_size=6), st.sampled_from("vw")),
        unique=True,
        max_size=12,
    ),
    st.data(),
)
def test_the_shape_follows_from_the_entries(
    entries: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Whatever the order of insertion, and whatever was there in between."""

    def shape(tree: RadixTree) -> set[tuple[str, str, tuple[str, ...]]]:
        nodes, found = tree._nodes, set()
        for node in range(1, len(nodes.edges)):
            if nodes.edges[node]:
                text = nodes.data(node).decode()
                found.add((text, nodes.edges[node].decode(), nodes.names(node, tree._names)))
        return found

    built = tree_of(*((text, tenant, 1) for text, tenant in entries))
    detour = tree_of(*((text, tenant, 1) for text, tenant in data.draw(st.permutations(entries))))
    for text in ("aab", "abab", "bba", "a"):
        detour.insert(text, tenant="x", access=1)
    detour.remove_tenant("x")
    assert shape(built) == shape(detour)


@given(
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=30),
    st.integers(0, 29),
    st.integers(0, 20),
)
def test_two_texts_share_whole_characters(text: str, place: int, bit: int) -> None:
    """In any Unicode, lone surrogates too, whichever bit of a character is another one."""
    at = place % len(text)
    near = ord(text[at]) ^ 1 << bit
    other = text[:at] + (chr(near) if near < 0x110000 else "") + text[at + 1 :]
    shared = at
    while shared < min(len(text), len(other)) and text[shared] == other[shared]:
        shared += 1
    tree = tree_of((text, "v", 1))

    assert Match(("v",) if shared else (), shared) == tree.match(other)
    if other:
        tree.insert(other, tenant="w", access=2)
        each = {"v": len(text), "w": shared} if shared else {"v": len(text)}
        assert each == tree.match_each(text)
        assert [text] == [known for known, _ in tree.entries("v")]
    tree._check()
