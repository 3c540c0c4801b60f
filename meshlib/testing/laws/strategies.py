"""Hypothesis strategies for histories of a type, and for its states and deltas.

Everything is drawn as literals before anything is run, so hypothesis shrinks a program step by
step, and what it prints can be replayed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from meshlib.testing.laws.history import DISK_KEPT, DISK_LOST, History, Program, Step
from meshlib.testing.laws.profile import DEFAULT_WORLD, World
from meshlib.testing.laws.spec import CRDTSpec

__all__ = ["deltas", "histories", "programs", "states"]

S = TypeVar("S")

NUMBER_MAX = 4095
"""Numbers pick events by `number % count` and sets of events by their bits."""


def programs(spec: CRDTSpec[S], *, world: World = DEFAULT_WORLD) -> SearchStrategy[Program]:
    """Return a strategy for programs of a type: see `meshlib.testing.laws.history` for their form.

    In a small world each argument that the spec pins is drawn once for the whole program.

    Args:
        spec: the type.
        world: how many replicas and steps.
    """
    pinned: dict[str, SearchStrategy[Any]] = {}
    if world.is_small:
        for operation in spec.operations.values():
            for name, strategy in operation.arguments.items():
                if name in spec.pinned:
                    pinned.setdefault(name, strategy)
    replica = st.integers(0, world.replica_count - 1)
    number = st.integers(0, NUMBER_MAX)
    disk = st.sampled_from([DISK_LOST, DISK_KEPT, DISK_LOST])
    performs = [
        st.tuples(
            st.just("perform"),
            replica,
            st.just(name),
            st.fixed_dictionaries(
                {name: what for name, what in operation.arguments.items() if name not in pinned}
            ),
        )
        for name, operation in spec.operations.items()
    ]
    deliver = st.tuples(st.just("deliver"), replica, number)
    exchange = st.tuples(st.just("exchange"), replica, replica)
    restart = st.tuples(st.just("restart"), replica, disk)
    rebirth = st.tuples(replica, st.one_of(performs)).map(partial(_rebirth, world.replica_count))
    # Of ten draws five write, two deliver, and one each exchanges, restarts, or is a rebirth.
    # `one_of` takes a strategy that stands there twice for one, so each share is mapped anew.
    each = len(performs)
    shares = [(perform, 5) for perform in performs]
    shares += [(deliver, 2 * each), (exchange, each), (restart, each)]
    drawn = st.one_of(
        [step.map(_alone) for step, share in shares for _ in range(share)]
        + [rebirth.map(tuple) for _ in range(each)]
    )
    half = st.lists(drawn, max_size=world.steps_max // 2)  # one list would be short on average
    steps = st.tuples(half, half).map(_flat)
    if not pinned:
        return steps
    wanted = {
        name: [argument for argument in operation.arguments if argument in pinned]
        for name, operation in spec.operations.items()
    }

    def with_pinned(drawn: tuple[dict[str, Any], list[tuple[Any, ...]]]) -> Program:
        values, program = drawn
        return [
            (*step[:3], {**step[3], **{name: values[name] for name in wanted[step[2]]}})
            if step[0] == "perform"
            else step
            for step in program
        ]

    return st.tuples(st.fixed_dictionaries(pinned), steps).map(with_pinned)


def _alone(step: Step) -> tuple[Step, ...]:
    return (step,)


def _flat(halves: tuple[list[tuple[Step, ...]], list[tuple[Step, ...]]]) -> list[Step]:
    return [step for half in halves for group in half for step in group]


def _rebirth(replica_count: int, drawn: tuple[int, Step]) -> tuple[Step, ...]:
    """Return the steps that show whether a writer who lost everything passes for itself.

    Another replica hears from it before and after, and it writes at once: a sequence that
    single steps seldom make.
    """
    replica, (_, _, operation, arguments) = drawn
    other = (replica + 1) % replica_count
    return (
        ("exchange", other, replica),
        ("restart", replica, DISK_LOST),
        ("perform", replica, operation, arguments),
        ("exchange", other, replica),
    )


def histories(spec: CRDTSpec[S], *, world: World = DEFAULT_WORLD) -> SearchStrategy[History[S]]:
    """Return a strategy for histories: programs that have been run.

    Args:
        spec: the type.
        world: how many replicas and steps.
    """

    def run(program: Program) -> History[S]:
        history = History(spec, replica_count=world.replica_count)
        history.run(program)
        return history

    return programs(spec, world=world).map(run)


def states(spec: CRDTSpec[S], *, world: World = DEFAULT_WORLD) -> SearchStrategy[S]:
    """Return a strategy for states as replicas reach them, partly delivered ones included.

    Args:
        spec: the type.
        world: how many replicas and steps.
    """
    return st.tuples(histories(spec, world=world), st.integers(0, world.replica_count - 1)).map(
        lambda drawn: drawn[0].state(drawn[1])
    )


def deltas(spec: CRDTSpec[S], *, world: World = DEFAULT_WORLD) -> SearchStrategy[S]:
    """Return a strategy for single deltas, each made on some state that a history reaches.

    Args:
        spec: the type.
        world: how many replicas and steps.
    """
    return (
        st.tuples(histories(spec, world=world), st.integers(0, NUMBER_MAX))
        .filter(lambda drawn: bool(drawn[0].events))
        .map(lambda drawn: drawn[0].events[drawn[1] % len(drawn[0].events)].delta)
    )
