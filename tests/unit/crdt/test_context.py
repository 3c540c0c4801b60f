"""Exact causal contexts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.crdt import CausalContext, Dot
from meshlib.crdt.causal.context import check_dot
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError, LimitExceeded
from meshlib.identity import ActorId, actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)

dots = st.builds(Dot, st.sampled_from([ALICE, BOB]), st.integers(1, 12))
dot_sets = st.sets(dots, max_size=20)


def context_of(*sequences: int, actor: ActorId = ALICE) -> CausalContext:
    return CausalContext(Dot(actor, sequence) for sequence in sequences)


@given(dot_sets)
def test_a_context_is_the_set_of_its_dots(seen: set[Dot]) -> None:
    """Whatever order dots come in, exactly these are contained, counted and listed."""
    context = CausalContext(seen)
    context._check()
    assert sorted(seen) == list(context)
    assert len(seen) == len(context)
    for actor in (ALICE, BOB):
        for sequence in range(1, 14):
            assert ((actor, sequence) in seen) == context.contains(Dot(actor, sequence))


@given(dot_sets, dot_sets)
def test_the_operations_are_those_of_sets(first: set[Dot], second: set[Dot]) -> None:
    """Join is union, order is inclusion, minus is difference, absorb returns what is new."""
    one, two = CausalContext(first), CausalContext(second)
    joined = one | two
    joined._check()
    assert CausalContext(first | second) == joined
    assert (first <= second) == (one <= two)
    assert CausalContext(first - second) == one.minus(two)
    copy = one.copy()
    assert CausalContext(second - first) == copy.absorb(two)
    assert joined == copy
    assert CausalContext(first) == one


@given(dot_sets)
def test_the_wire_form_comes_back(seen: set[Dot]) -> None:
    """A context is read back from its tree, and equal contexts have equal digests."""
    context = CausalContext(seen)
    again = CausalContext.from_wire(context.to_wire())
    again._check()
    assert context == again
    assert context.digest() == CausalContext(sorted(seen, reverse=True)).digest()


def test_a_gap_is_not_compacted_to_the_maximum() -> None:
    """What lies between two dots that were seen was not seen."""
    context = context_of(1, 5)
    assert not context.contains(Dot(ALICE, 3))
    assert 1 == context.vector[ALICE]
    assert 1 == context.gap_count


def test_a_filled_gap_becomes_part_of_the_vector() -> None:
    """The range above a gap joins the contiguous part when the gap closes."""
    context = context_of(1, 4, 5, 3)
    context.add(Dot(ALICE, 2))
    assert {ALICE: 5} == dict(context.vector)
    assert 0 == context.gap_count


def test_the_next_dot_is_after_every_dot_seen() -> None:
    """Even dots above a gap are never minted again."""
    context = context_of(1, 7)
    assert Dot(ALICE, 8) == context.next_dot(ALICE)
    assert Dot(BOB, 1) == context.next_dot(BOB)


def test_a_decomposition_has_one_context_for_each_dot() -> None:
    """The parts are the single dots."""
    context = context_of(1, 2, 4)
    assert [context_of(1), context_of(2), context_of(4)] == list(context.decompose())
    assert context_of().is_bottom()


@pytest.mark.parametrize(
    "wire",
    [
        None,
        ((ALICE,),),
        ((b"short", (1,)),),
        ((ALICE, ()),),
        ((ALICE, (0,)),),
        ((ALICE, (1, 2)),),
        ((ALICE, (1, 0, 2)),),
        ((ALICE, (1, 2, 0)),),
        ((ALICE, (True,)),),
        ((ALICE, (-1,)),),
        ((ALICE, (1 << 63,)),),
        ((ALICE, ((1 << 63) - 1, 1, 1)),),
        ((BOB, (1,)), (ALICE, (1,))) if ALICE < BOB else ((ALICE, (1,)), (BOB, (1,))),
        ((ALICE, (1,)), (ALICE, (1,))),
    ],
)
def test_a_malformed_context_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read."""
    with pytest.raises(DecodeError):
        CausalContext.from_wire(wire)


def test_too_many_gaps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer cannot make this node hold ranges without end."""
    monkeypatch.setattr("meshlib.crdt.causal.context.CLOUD_DOTS_MAX", 2)
    assert 2 == CausalContext.from_wire(context_of(3, 5).to_wire()).gap_count
    with pytest.raises(LimitExceeded):
        CausalContext.from_wire(context_of(3, 5, 7).to_wire())


def test_a_huge_claimed_range_costs_nothing() -> None:
    """A context of 2**62 dots is read and compared without walking them."""
    context = CausalContext.from_wire(((ALICE, (0, 1, 1 << 62)),))
    assert 1 << 62 == len(context)
    assert context.contains(Dot(ALICE, 1 << 61))
    assert (context | context_of(1)) >= context


@pytest.mark.parametrize("dot", [(ALICE, 1), None, 3])
def test_what_is_no_dot_is_refused(dot: object) -> None:
    """A plain tuple is not taken for a dot."""
    with pytest.raises(InvalidTypeError):
        check_dot(dot)


@pytest.mark.parametrize("dot", [Dot(ALICE, 0), Dot(ALICE, 1 << 63), Dot(ActorId(b"x"), 1)])
def test_a_dot_out_of_range_is_refused(dot: Dot) -> None:
    """A sequence is at least 1 and fits 63 bits, an actor is 16 bytes."""
    with pytest.raises(InvalidValueError):
        check_dot(dot)
