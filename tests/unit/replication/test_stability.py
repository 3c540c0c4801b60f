"""Who has seen what, and which removals are settled."""

from __future__ import annotations

from typing import Any

from meshlib.identity import ActorId, actor_id
from meshlib.replication import StabilityTracker
from meshlib.replication.stability import GracePeriod
from meshlib.replication.vector import MARK

A, B, C = actor_id("a", 1), actor_id("b", 1), actor_id("c", 1)


def heard(
    tracker: StabilityTracker,
    peer: str,
    vector: dict[ActorId, int],
    *,
    ours: dict[ActorId, int],
    actor: ActorId = B,
    **rest: Any,
) -> None:
    tracker.observe(peer, vector, actor=actor, our_vector=ours, now=0.0, **rest)


def test_seen_by_names_the_peers_that_have_a_write() -> None:
    """It answers from the peers' own vectors."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4}, ours={})
    heard(tracker, "c", {A: 2}, ours={}, actor=C)
    assert frozenset({"b"}) == tracker.seen_by(A, 3)
    assert frozenset({"b", "c"}) == tracker.seen_by(A, 2)


def test_a_forgotten_writer_counts_as_seen_up_to_its_number() -> None:
    """A peer that forgot it before it wrote more has not got that."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: MARK | 2}, ours={A: 9})
    assert frozenset({"b"}) == tracker.seen_by(A, 2)
    assert frozenset() == tracker.seen_by(A, 3)
    assert {A: 2} == tracker.stable(["b"], our_vector={A: 9})
    assert {A: 2} == tracker.settled(["b"], our_vector={A: 9})


def test_what_a_peer_had_of_a_writer_that_it_forgot_must_be_here_too() -> None:
    """Unless this node never heard of the writer, or has forgotten it as well."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: MARK | 5, B: 1}, ours={A: 4, B: 1})
    assert {} == tracker.settled(["b"], our_vector={A: 4, B: 1})
    assert {A: 5, B: 1} == tracker.settled(["b"], our_vector={A: 5, B: 1})
    heard(tracker, "b", {A: MARK | 5, B: 1}, ours={B: 1})
    assert {B: 1} == tracker.settled(["b"], our_vector={B: 1})


def test_who_has_forgotten_a_writer_with_less_is_told() -> None:
    """Not who still counts it, and not who is behind with what another writer wrote."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: MARK | 2, B: 7}, ours={})
    heard(tracker, "c", {B: 4}, ours={}, actor=C)
    assert tracker.forgot_with_less(["b", "c"], A, 3) == ("b",)
    assert tracker.forgot_with_less(["b", "c"], A, 2) == ()
    assert tracker.forgot_with_less(["c", "unheard"], A, 3) == ()
    assert tracker.forgot_with_less(["b", "c"], B, 7) == ()
    heard(tracker, "b", {A: MARK | 3, B: 7}, ours={})
    assert tracker.forgot_with_less(["b", "c"], A, 3) == ()


def test_stable_is_what_all_of_them_have() -> None:
    """The pointwise minimum, this node's vector included."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4, B: 7}, ours={})
    heard(tracker, "c", {A: 6, C: 1}, ours={}, actor=C)
    assert {A: 4} == tracker.stable(["b", "c"], our_vector={A: 5, B: 7})


def test_nothing_is_stable_while_a_member_was_never_heard() -> None:
    """It may have nothing."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4}, ours={A: 4})
    assert {} == tracker.stable(["b", "c"], our_vector={A: 4})
    assert {} == tracker.settled(["b", "c"], our_vector={A: 4})


def test_alone_everything_is_stable() -> None:
    """A cluster of one waits for nobody."""
    tracker = StabilityTracker()
    assert {A: 4} == tracker.stable([], our_vector={A: 4}) == tracker.settled([], our_vector={A: 4})


def test_a_removal_settles_when_both_conditions_hold() -> None:
    """The member has seen it, and this node has what the member had then."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4, B: 3}, ours={A: 4, B: 3})
    assert {A: 4, B: 3} == tracker.settled(["b"], our_vector={A: 4, B: 3})


def test_having_been_seen_is_not_enough() -> None:
    """The member may hold an older write that is still on its way here."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4, B: 3}, ours={A: 4, B: 2})
    assert {} == tracker.settled(["b"], our_vector={A: 4, B: 2})


def test_a_relayed_write_counts_too() -> None:
    """What the member had of others must have come as well, not only its own writes."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4, B: 3, C: 9}, ours={A: 4, B: 3, C: 8})
    assert {} == tracker.settled(["b"], our_vector={A: 4, B: 3, C: 8})


def test_a_partial_vector_settles_nothing() -> None:
    """It does not tell what else the peer had by then."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4}, ours={A: 4}, is_partial=True)
    assert {} == tracker.settled(["b"], our_vector={A: 4})
    assert {A: 4} == tracker.stable(["b"], our_vector={A: 4})


def test_a_busy_peer_is_caught_up_with() -> None:
    """A vector once heard is waited for, though newer ones keep coming."""
    tracker = StabilityTracker()
    for number in range(2, 9):
        heard(tracker, "b", {A: 4, B: number}, ours={A: 4, B: number - 1})
    assert 6 <= tracker.settled(["b"], our_vector={A: 4, B: 7})[B]


def test_a_peer_that_began_again_has_nothing() -> None:
    """A new actor under an old name starts over."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4}, ours={A: 4})
    heard(tracker, "b", {}, ours={A: 4}, actor=actor_id("b", 2))
    assert frozenset() == tracker.seen_by(A, 1)
    assert {} == tracker.settled(["b"], our_vector={A: 4})


def test_what_a_peer_has_forgotten_holds_nothing_up() -> None:
    """A mark in its vector need not be reached."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4, C: MARK | 7}, ours={A: 4})
    assert {A: 4} == tracker.settled(["b"], our_vector={A: 4})


def test_a_peer_can_be_forgotten() -> None:
    """It no longer counts anywhere."""
    tracker = StabilityTracker()
    heard(tracker, "b", {A: 4}, ours={})
    tracker.forget("b")
    assert ((), None, None) == (tracker.peers(), tracker.vector("b"), tracker.heard_at("b"))


def test_the_latest_vector_and_time_are_kept() -> None:
    """For exchanges that send what a peer lacks."""
    tracker = StabilityTracker()
    tracker.observe("b", {A: 4}, actor=B, our_vector={}, now=1.5)
    tracker.observe("b", {A: 3, C: 1}, actor=B, our_vector={}, now=2.5)
    assert ({A: 4, C: 1}, 2.5) == (tracker.vector("b"), tracker.heard_at("b"))


def test_a_grace_period_passes_from_when_a_write_came() -> None:
    """What came within the period is not aged, what came before it is."""
    grace = GracePeriod(80.0)
    assert {} == grace.aged({A: 1}, now=0.0)
    assert {} == grace.aged({A: 2}, now=40.0)
    assert {A: 1} == grace.aged({A: 3}, now=80.0)
    assert {A: 2} == grace.aged({A: 4}, now=121.0)


def test_a_grace_period_keeps_few_samples() -> None:
    """However often it is asked."""
    grace = GracePeriod(80.0)
    for step in range(1000):
        grace.aged({A: step}, now=step / 2)
    assert len(grace._samples) <= 10


def test_without_a_grace_period_all_is_aged() -> None:
    """For tests with equal vectors."""
    assert {A: 1} == GracePeriod(0.0).aged({A: 1}, now=0.0)
