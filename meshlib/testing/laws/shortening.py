"""Makes a counterexample shorter once hypothesis is done: no step of it can be left out.

Hypothesis shrinks what it drew, and a number that picks a write picks another one once a write
before it is gone; so it leaves writes in that have nothing to do with what was found. Here a step
is taken out together with what was said of it, and stays out if the law is still broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

from attrs import evolve

from meshlib.errors import ConfigError
from meshlib.testing.laws.history import History, Program, Step
from meshlib.testing.laws.profile import World
from meshlib.testing.laws.spec import CRDTSpec
from meshlib.testing.laws.trial import Draw, Law, LawViolation, Trial

__all__ = ["shortened"]

S = TypeVar("S")

TRIES_MAX: Final = 1000
"""Tries of a law for one counterexample; a history of 16 steps needs 200 at the most."""


def shortened(spec: CRDTSpec[S], law: Law, world: World, found: LawViolation) -> LawViolation:
    """Return a violation of the same law with steps left out until each is needed. O(steps²) tries.

    Args:
        spec: the type.
        law: the law that was tried.
        world: in which it was.
        found: what hypothesis ended with; it is returned where nothing can be left out.
    """
    tries = 0
    is_shorter = found.draw is not None
    while is_shorter:
        is_shorter = False
        assert found.draw is not None
        for draw in _shorter(spec, world, found.draw):
            tries += 1
            if tries > TRIES_MAX:
                return found
            again = _tried(spec, law, world, draw)
            if again is not None and again.law == found.law:
                found, is_shorter = again, True
                break
    return found


def _tried(spec: CRDTSpec[S], law: Law, world: World, draw: Draw) -> LawViolation | None:
    try:
        Trial.run(spec, law, world, draw)
    except LawViolation as violation:
        return violation
    except ConfigError:
        return None  # it asks for another thing than what is looked for
    return None


def _shorter(spec: CRDTSpec[S], world: World, draw: Draw) -> Iterator[Draw]:
    """Yield draws with one thing less: a step, a number, a write of a join."""
    program, written = _named_writes(spec, world, draw.program)
    event_count = sum(event is not None for event in written)
    # From the end, for the last steps need none of the others.
    for position in reversed(range(len(program))):
        fewer = [*program[:position], *program[position + 1 :]]
        event = written[position]
        if event is None:
            yield evolve(draw, program=fewer)
            continue
        left = _Left(event, event_count)
        without = evolve(
            draw,
            program=[left.step(step) for step in fewer],
            elements=tuple(left.element(*element) for element in draw.elements),
        )
        yield evolve(without, numbers=tuple(map(left.index, draw.numbers)))
        yield without  # where numbers are none of writes
    for position in range(len(draw.numbers)):
        yield evolve(draw, numbers=draw.numbers[:position] + draw.numbers[position + 1 :])
    for position, (kind, number) in enumerate(draw.elements):
        for event in range(event_count) if kind == "join" else ():
            if number >> event & 1:
                elements = list(draw.elements)
                elements[position] = kind, number & ~(1 << event)
                yield evolve(draw, elements=tuple(elements))


def _named_writes(
    spec: CRDTSpec[S], world: World, program: Program
) -> tuple[list[Step], list[int | None]]:
    """Return the steps, with deliveries naming their writes, and which write each step made."""
    history = History(spec, replica_count=world.replica_count)
    steps: list[Step] = []
    written: list[int | None] = []
    for step in program:
        before = len(history.events)
        is_delivery = step[0] == "deliver" and before > 0
        steps.append((*step[:2], step[2] % before) if is_delivery else step)
        try:
            history.run([step])
        except Exception:  # noqa: BLE001 - that is what was found, and no later step counts
            break
        written.append(before if len(history.events) > before else None)
    return steps, written + [None] * (len(steps) - len(written))


class _Left:
    """Numbers that picked writes, of a history from which one write is left out."""

    def __init__(self, event: int, event_count: int) -> None:
        self._event = event
        self._event_count = event_count

    def index(self, number: int) -> int:
        """Return what picks the same write, or the one after it where that is the one left out."""
        index = number % self._event_count
        return index - (index > self._event)

    def element(self, kind: str, number: int) -> tuple[str, int]:
        """Return the same element of the lattice, without the write that is left out."""
        if kind == "delta":
            return kind, self.index(number)
        if kind == "join":
            low = number & ((1 << self._event) - 1)
            return kind, low | number >> (self._event + 1) << self._event
        return kind, number

    def step(self, step: Step) -> Step:
        """Return the same step."""
        if step[0] == "deliver" and step[2] > self._event:
            return (*step[:2], step[2] - 1)
        return step
