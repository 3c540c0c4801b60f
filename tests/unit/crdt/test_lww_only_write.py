"""The short way of reading and writing a map with one write, held against the way for any map."""

from __future__ import annotations

from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.codec import encode_value
from meshlib.crdt.lww import wire
from meshlib.errors import RemoteError

ACTORS = tuple(bytes([number]) * 16 for number in (1, 2))
NUMBERS = (0, 1, 255, 256, 65_535, 65_536, 1 << 32, (1 << 48) - 1, 1 << 62, (1 << 63) - 1)

COLUMNS = (
    b"", b"\0", b"\1", b"\xff", b"\0\0", b"\0\1", b"\1\1", bytes(4), b"\1\0\1\0", b"\1\0\1",
    *(number.to_bytes(8, "little") for number in (*NUMBERS, 1 << 63)),
)  # fmt: skip


def trees() -> st.SearchStrategy[list[Any]]:
    """Trees of a map with one write: a good one, with a column and a part replaced at most."""
    number = st.sampled_from(NUMBERS)
    column = st.sampled_from(COLUMNS)
    changes = st.one_of(
        st.integers(-1, 3), st.just((ACTORS[0][:8], 1)), st.just((ACTORS[1][:8], 2)), st.none()
    )
    payload = st.one_of(st.none(), st.integers(0, 300).map(encode_value), st.binary(max_size=3))
    odd = st.sampled_from((None, True, 1.0, "x", b"", (), (None,), -1))
    parts: tuple[st.SearchStrategy[Any], ...] = (
        st.lists(st.sampled_from((*ACTORS, b"short")), max_size=2).map(tuple),
        st.one_of(number, st.just(-1)),
        st.just(("key",)),
        st.lists(column, min_size=3, max_size=5).map(tuple),
        st.lists(payload, max_size=2).map(tuple),
        st.lists(changes, max_size=2).map(tuple),
    )
    good = st.tuples(number, st.integers(0, 65_535), st.integers(1, 70_000), payload)

    def damaged(
        drawn: tuple[int, int, int, bytes | None],
        columns_replaced: dict[int, bytes],
        replaced: list[tuple[int, Any]],
    ) -> list[Any]:
        wall_ms, logical, sequence, value = drawn
        packed = (b"\0", b"\0", wire._pack_column((logical,)), wire._pack_column((sequence,)))
        columns = tuple(columns_replaced.get(place, each) for place, each in enumerate(packed))
        tree: list[Any] = [(ACTORS[0],), wall_ms, ("key",), columns, (value,), (1,)]
        for place, part in replaced:
            tree[place] = part
        return tree

    places = [0, 1, 3, 4, 5]
    replacement = st.sampled_from(places).flatmap(
        lambda place: st.tuples(st.just(place), st.one_of(parts[place], odd))
    )
    other_columns = st.dictionaries(st.integers(0, 3), column, max_size=1)
    return st.builds(damaged, good, other_columns, st.lists(replacement, max_size=1))


def outcome(read: Any, tree: list[Any]) -> Any:
    """Return what a reader makes of a tree; None when it refuses it."""
    try:
        return read(tree)
    except RemoteError:
        return None


def read_as_any(tree: list[Any]) -> Any:
    """Return the row that the reader of any number of writes makes of a tree with one."""
    rows, removal_count = wire._read_writes(tree)
    (row,) = rows
    assert removal_count == (row[4] is None)
    return row


@settings(max_examples=1000)
@given(trees())
def test_one_write_is_read_as_by_the_reader_of_any_number(tree: list[Any]) -> None:
    """Both readers refuse the same trees, and make the same row of the others."""
    assert outcome(wire._read_only_write, tree) == outcome(read_as_any, tree)


def test_each_column_of_one_write_is_read_as_by_the_reader_of_any_number() -> None:
    """Every odd column in every place is taken by both readers, or by none."""
    for place, column in product(range(4), COLUMNS):
        columns = [b"\0", b"\0", b"\5", b"\7"]
        columns[place] = column
        tree = [(ACTORS[0],), 1, ("key",), tuple(columns), (None,), (1,)]
        assert outcome(wire._read_only_write, tree) == outcome(read_as_any, tree), (place, column)


@given(trees())
def test_one_write_is_written_as_it_is_read(tree: list[Any]) -> None:
    """What is read of one write is written as the same tree again: it is canonical."""
    read = outcome(wire.map_from_wire, [*tree, ()])
    if read is not None:
        entries, _ = read
        assert wire.map_to_wire(entries) == (*tree, ())
