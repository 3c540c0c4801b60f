"""The laws of replication: what deltas do whatever the network does, and what readers then see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from typing import Any, Final

from meshlib.testing.laws.spec import Event
from meshlib.testing.laws.trial import Law, Trial

__all__ = ["DELIVERY"]

SUBSET_EVENTS_MAX: Final = 5
"""Writes of a history in a small world of which every subset is compared with the oracle."""


def _delta_equals_full(trial: Trial[Any]) -> None:
    spec, history = trial.spec, trial.history
    for replica in range(history.replica_count):
        trial.equal(
            f"the state of replica {replica}",
            history.state(replica),
            "the join of the deltas that reached it",
            history.deltas_joined(history.absorbed(replica)),
        )
    for write in history.transitions:
        words = f"the state after write {write.event.index}"
        again = spec.join(write.after, write.event.delta)
        trial.equal(f"{words}, joined with its delta again", again, words, write.after)
        if write.full is not None:
            trial.equal("the full operation", write.full, f"{words} by its delta", write.after)


def _any_order_converges(trial: Trial[Any]) -> None:
    spec, history = trial.spec, trial.history
    in_order = history.deltas_joined(history.events)
    shuffled = history.deltas_joined([*trial.picked_events(), *reversed(history.events)])
    order = [event.index for event in trial.picked_events()]
    words = f"all deltas, {order} first and then each from the newest to the oldest"
    trial.equal("all deltas in order", in_order, words, shuffled)
    held = {event.index for r in range(history.replica_count) for event in history.absorbed(r)}
    lost = [event for event in history.events if event.index not in held]
    replicas = spec.join(spec.fold(history.states()), history.deltas_joined(lost))
    trial.equal("all deltas in order", in_order, "the join of the replicas", replicas)


def _loss_is_repaired(trial: Trial[Any]) -> None:
    spec, history = trial.spec, trial.history
    picked = trial.picked_events()
    half = len(picked) // 2
    here, there = history.deltas_joined(picked[:half]), history.deltas_joined(picked[half:])
    got = [event.index for event in picked[:half]], [event.index for event in picked[half:]]
    left = f"a replica that got {got[0]}, after the exchange"
    right = f"one that got {got[1]}, after the exchange"
    trial.equal(left, spec.join(here, there), right, spec.join(there, here))
    complete = history.deltas_joined(history.events)
    trial.equal(
        f"a replica that got {got[0]}, after an exchange with one that got all",
        spec.join(here, complete),
        "the one that got all",
        complete,
    )


def _local_effects_hold(trial: Trial[Any]) -> None:
    spec, history = trial.spec, trial.history
    for write in history.transitions:
        event = write.event
        ensures = spec.operations[event.operation].ensures
        trial.holds(
            ensures is None or bool(ensures(write.before, write.after, **event.arguments)),
            f"before write {event.index}: {trial.show(write.before)}",
            f"its delta: {trial.show(event.delta)}",
            f"after it: {trial.show(write.after)}",
            f"{event.operation} did not do what it promises",
        )
    for refusal in history.refusals:
        words = f"the state after {refusal.operation} was refused ({refusal.error})"
        trial.equal(words, refusal.after, "the state before", refusal.before)


def _value_matches_oracle(trial: Trial[Any]) -> None:
    history = trial.history
    for replica in range(history.replica_count):
        _shows_its_due(
            trial, f"replica {replica}", history.state(replica), history.visible(replica)
        )
    a, b = trial.chosen
    _shows_its_due(trial, "a", a.state, history.shown_by(a.events))
    both = history.shown_by((*a.events, *b.events))
    _shows_its_due(trial, "a | b", trial.spec.join(a.state, b.state), both)
    if trial.world.is_small:
        for some in _subsets(history.events[:SUBSET_EVENTS_MAX]):
            words = f"the join of the deltas of writes {[event.index for event in some]}"
            _shows_its_due(trial, words, history.deltas_joined(some), history.shown_by(some))


def _shows_its_due(trial: Trial[Any], words: str, state: Any, visible: Sequence[Event]) -> None:
    assert trial.spec.oracle is not None
    shown, due = trial.spec.value(state), trial.spec.oracle(visible)
    trial.holds(
        bool(shown == due),
        f"{words} = {state!r}",
        f"the writes visible there: {[event.index for event in visible]}",
        f"it shows   {shown!r}",
        f"it ought to {due!r}",
    )


def _subsets(events: Sequence[Event]) -> Iterator[tuple[Event, ...]]:
    return chain.from_iterable(combinations(events, size) for size in range(1, len(events) + 1))


DELIVERY: Final = (
    Law(
        name="delta_equals_full",
        statement="a state is the join of the deltas that reached it, however they came",
        check=_delta_equals_full,
    ),
    Law(
        name="any_order_converges",
        statement="deltas in any order and any number make the join of the replicas",
        check=_any_order_converges,
        is_ordered=True,
    ),
    Law(
        name="loss_is_repaired",
        statement="whatever was lost, one exchange of states makes two replicas equal",
        check=_loss_is_repaired,
        is_ordered=True,
    ),
    Law(
        name="local_effects_hold",
        statement="an operation does what it promises, and one that is refused does nothing",
        check=_local_effects_hold,
    ),
    Law(
        name="value_matches_oracle",
        statement="a replica shows what its visible writes amount to",
        check=_value_matches_oracle,
        elements=2,
        applies=lambda spec: spec.oracle is not None,
    ),
)
"""The laws of this module, in the order of their tests."""
