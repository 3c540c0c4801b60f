"""Texts by the hashes of their bytes: what is found is right, and most is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.hashing import hash64
from meshlib.prefix import RadixTree

TEXTS = st.text(st.sampled_from("ab\u00e9\U0001f600"), min_size=1, max_size=12)
STEPS = st.lists(st.tuples(st.booleans(), TEXTS, st.sampled_from(["u", "w"])), max_size=60)


def name_of(text: str) -> int:
    return hash64(text.encode())


@given(STEPS, st.integers(0, 60))
def test_a_name_leads_to_its_text_or_nowhere(
    steps: list[tuple[bool, str, str]], asked_after: int
) -> None:
    """Whatever was removed, and whenever the table was made; here each is found."""
    tree, held = RadixTree(), set[tuple[str, str]]()
    for number, (is_removal, text, tenant) in enumerate(steps):
        if number == asked_after:
            tree.data_named(1)
        if is_removal:
            tree.remove(text, tenant=tenant)
            held.discard((text, tenant))
        else:
            tree.insert(text, tenant=tenant, access=number)
            held.add((text, tenant))
    for _, text, _ in steps:
        found = tree.data_named(name_of(text))
        assert found in (None, text.encode())
        assert found is not None or all(text != each for each, _ in held)
    tree._check()


@given(STEPS, TEXTS)
def test_the_beginning_of_a_text_is_that_of_a_text_that_is_there(
    steps: list[tuple[bool, str, str]], asked: str
) -> None:
    """As far as the tree matches it."""
    tree = RadixTree()
    for number, (_, text, tenant) in enumerate(steps):
        tree.insert(text, tenant=tenant, access=number)
    data, name, size = tree.known_beginning(asked)
    assert data == asked.encode()
    assert data[:size].decode() == asked[: tree.match(asked).matched]
    if size:
        other = tree.data_named(name)
        assert other is not None
        assert other[:size] == data[:size]


def test_a_table_grows_with_its_tree() -> None:
    """Some slots at a time, and no name is lost meanwhile."""
    tree = RadixTree()
    assert tree.data_named(name_of("0")) is None
    tree.insert("first", tenant="w", access=0)
    tree.data_named(1)
    for number in range(3000):
        tree.insert(f"{number} is a text", tenant="w", access=number)
        for other in (0, number // 2, number):
            text = f"{other} is a text"
            assert tree.data_named(name_of(text)) == text.encode()


def test_the_empty_tree_knows_no_names() -> None:
    """And neither does a hash of 0."""
    tree = RadixTree()
    assert tree.data_named(0) is None
    assert tree.known_beginning("text") == (b"text", 0, 0)
