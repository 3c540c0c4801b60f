"""States are cut into pieces that fit and join to what they were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.crdt import ORSet, encode, join_all
from meshlib.crdt.causal.context import Dot
from meshlib.identity import actor_id
from meshlib.replication.transfers.paging import encoded_pieces

A = actor_id("a", 1)


def tags(count: int) -> ORSet[str]:
    state = ORSet[str]()
    for number in range(1, count + 1):
        state.absorb(state.add(f"element-{number}", dot=Dot(A, number)))
    return state


@given(st.integers(1, 60), st.integers(64, 600))
def test_pieces_fit_and_join_to_the_whole(count: int, bytes_max: int) -> None:
    """Whatever the limit, unless a part cannot be cut."""
    state = tags(count)
    pieces = list(encoded_pieces([state], bytes_max=bytes_max))
    assert state == join_all(piece for piece, _ in pieces)
    assert all(len(data) <= bytes_max for _, data in pieces)
    assert all(encode(piece) == data for piece, data in pieces)


def test_what_fits_is_one_piece() -> None:
    """Nothing is cut without need."""
    state = tags(3)
    assert [(state, encode(state))] == list(encoded_pieces([state], bytes_max=10_000))


def test_what_cannot_be_cut_is_one_piece() -> None:
    """It is over the limit rather than lost."""
    (piece,) = encoded_pieces([tags(1)], bytes_max=1)
    assert tags(1) == piece[0]
