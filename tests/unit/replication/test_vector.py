"""Vectors, their hash, and writers that were forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.identity import ActorId, actor_id
from meshlib.replication import vector
from meshlib.replication.vector import VersionVector, is_mark, marked_number, vector_hash

A, B = actor_id("a", 1), actor_id("b", 1)

moves = st.lists(st.tuples(st.sampled_from([A, B, actor_id("c", 3)]), st.integers(1, 5)))


def made(**numbers: int) -> VersionVector:
    vector = VersionVector()
    for name, number in numbers.items():
        vector.set(actor_id(name, 1), number)
    return vector


@given(moves)
def test_the_hash_is_kept_up(steps: list[tuple[ActorId, int]]) -> None:
    """Whatever moves, the hash is that of the vector."""
    vector = VersionVector()
    for actor, step in steps:
        vector.set(actor, vector.get(actor) + step)
    assert vector_hash(vector.view) == vector.hash()


def test_the_hash_does_not_depend_on_order() -> None:
    """Two nodes that heard the writers in another order are equal."""
    assert made(a=1, b=2).hash() == made(b=2, a=1).hash()
    assert made(a=1).hash() != made(a=2).hash()


def test_a_write_without_a_number_is_never_covered() -> None:
    """Number 0 says that a write was not numbered."""
    vector = made(a=3)
    assert [False, True, True, False] == [vector.covers(A, n) for n in (0, 1, 3, 4)]


def test_a_forgotten_writer_leaves_vector_and_hash() -> None:
    """Vectors do not grow with every restart."""
    vector = made(a=3, b=1)
    vector.forget(A, 3)
    assert {B: 1} == vector.view
    assert made(b=1).hash() == vector.hash()


def test_a_forgotten_writers_writes_stay_covered() -> None:
    """What it wrote was absorbed here, whether or not it is named."""
    vector = made(a=3)
    vector.forget(A, 3)
    assert [True, False] == [vector.covers(A, n) for n in (3, 4)]


def test_a_vector_that_is_sent_marks_the_forgotten() -> None:
    """A peer learns that nothing of them is needed."""
    vector = made(a=3, b=1)
    vector.forget(A, 3)
    sent = vector.advertised()
    assert 1 == sent[B]
    assert is_mark(sent[A])
    assert 3 == marked_number(sent[A])
    assert vector.hash() == vector_hash(sent)


def test_a_peer_with_a_mark_is_reached() -> None:
    """What a peer has forgotten and this node never heard of is not waited for."""
    peer = made(a=3)
    peer.forget(A, 3)
    assert made(b=1).reaches(peer.advertised())
    ours = made(a=3)
    ours.forget(A, 3)
    assert ours.reaches({A: 3})
    assert ours.reaches(peer.advertised())
    assert not ours.reaches({A: 4})
    assert not made(a=3).reaches({A: 4})


def test_a_mark_beyond_what_is_held_is_not_reached() -> None:
    """The peer has had more of the writer than came here."""
    peer = made(a=3)
    peer.forget(A, 3)
    assert not made(a=2).reaches(peer.advertised())
    assert made(a=3).reaches(peer.advertised())
    ours = made(a=2)
    ours.forget(A, 2)
    assert not ours.reaches(peer.advertised())


def test_a_writer_is_counted_again_once_more_of_it_came() -> None:
    """It is in the vector and in its hash as if it had never been forgotten."""
    vector = made(a=2, b=1)
    vector.forget(A, 2)
    vector.recall(A, 5)
    assert {B: 1, A: 5} == vector.view
    assert {} == vector.forgotten
    assert vector.hash() == vector_hash({A: 5, B: 1})


def test_a_peer_behind_a_forgotten_writer_lacks_it() -> None:
    """With a number or a mark below ours it has not got everything."""
    ours, theirs = made(a=3), made(a=2)
    ours.forget(A, 3)
    assert ours.lacks_forgotten({A: 2})
    assert not ours.lacks_forgotten({A: 3})
    assert not ours.lacks_forgotten({B: 1})
    theirs.forget(A, 2)
    assert ours.lacks_forgotten(theirs.advertised())
    assert made(a=3).lacks_forgotten(theirs.advertised())
    assert not made(a=2).lacks_forgotten(theirs.advertised())
    assert not made(b=1).lacks_forgotten(theirs.advertised())


def test_the_forgotten_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is no longer remembered beyond the limit."""
    monkeypatch.setattr(vector, "FORGOTTEN_MAX", 2)
    ours = VersionVector()
    for incarnation in (1, 2, 3):
        ours.forget(actor_id("a", incarnation), 5)
    assert [actor_id("a", 2), actor_id("a", 3)] == list(ours.forgotten)


def test_only_the_newest_marks_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector on the wire stays small."""
    monkeypatch.setattr(vector, "MARKS_MAX", 1)
    ours = VersionVector()
    for incarnation in (1, 2):
        ours.forget(actor_id("a", incarnation), 5)
    assert [actor_id("a", 2)] == list(ours.advertised())
