"""One try of one law: the history it is tried on, and the words when it does not hold.

Rule: a counterexample is worth what a reader can see in it, so everything that words one must
live in this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, Final, Generic, NoReturn, TypeVar

from attrs import evolve, frozen

from meshlib.errors import ConfigError
from meshlib.testing.laws.history import History, Program
from meshlib.testing.laws.profile import World
from meshlib.testing.laws.spec import CRDTSpec, Event
from meshlib.testing.laws.watching import InputChanged, with_inputs_watched

__all__ = ["PURE", "PURITY", "Draw", "Element", "Law", "LawViolation", "Trial"]

S = TypeVar("S")

PURITY: Final = "inputs_are_never_changed"
PURE: Final = "nothing but absorb changes a state, and results share nothing with inputs"
"""The law that is reported, whichever was tried, where an input was seen to change."""

SHOWN_CHARACTERS_MAX: Final = 300
EXHAUSTED_DELTAS_MAX: Final = 4
"""With so many deltas a law of three elements is tried 64 times on a history of a small world."""


class LawViolation(AssertionError):  # noqa: N818 - what happened, and what a test should report
    """A type broke one of its laws; the message holds the history that shows it.

    Args:
        spec_name: the type.
        law: the name of the law.
        statement: what the law says.
        history: the steps that lead there, one line each.
        findings: what was found, one line each.
        draw: what the history came from, to try it again.
    """

    def __init__(
        self,
        *,
        spec_name: str,
        law: str,
        statement: str,
        world: str,
        history: Sequence[str],
        findings: Sequence[str],
        draw: Draw | None = None,
    ) -> None:
        lines = [f"{spec_name} breaks the law {law}", f"  {statement}", f"in a {world}:"]
        lines += [f"  {line}" for line in history] or ["  (an empty history)"]
        lines += ["then:", *(f"  {line}" for line in findings)]
        super().__init__("\n".join(lines))
        self.spec_name = spec_name
        self.law = law
        self.statement = statement
        self.history = tuple(history)
        self.findings = tuple(findings)
        self.draw = draw


@frozen(slots=True)
class Draw:
    """What hypothesis drew for one try; prints in one line.

    Args:
        program: the steps.
        elements: which elements of the lattice to take: a kind and a number each.
        numbers: an order of deliveries, a position in bytes: what the law makes of them.
    """

    program: Program
    elements: tuple[tuple[str, int], ...] = ()
    numbers: tuple[int, ...] = ()


@frozen(slots=True, kw_only=True)
class Law:
    """One law of the kit.

    Args:
        name: what a test is called after.
        statement: one line.
        check: tries it once; raises `LawViolation` through the trial.
        applies: whether a spec says enough for it.
        elements: how many elements of the lattice it speaks of.
        is_exhaustive: in a small world also tried on every choice of deltas, not the drawn one
            alone.
        is_ordered: whether it needs drawn numbers.
    """

    name: str
    statement: str
    check: Callable[[Trial[Any]], None]
    applies: Callable[[CRDTSpec[Any]], bool] = lambda _spec: True
    elements: int = 0
    is_exhaustive: bool = False
    is_ordered: bool = False


@frozen(slots=True)
class Element(Generic[S]):
    """An element of the lattice that came out of a history.

    Args:
        state: the element.
        words: where it came from.
        events: whose deltas it is the join of.
    """

    state: S
    words: str
    events: tuple[Event, ...]


@frozen(slots=True, kw_only=True)
class Trial(Generic[S]):
    """One try: a history that has been run, and elements of the lattice that came out of it.

    Args:
        spec: the type.
        law: the law.
        world: the size of the history.
        draw: what was drawn.
        history: the history after its last step.
        chosen: the chosen elements.
    """

    spec: CRDTSpec[S]
    law: Law
    world: World
    draw: Draw
    history: History[S]
    chosen: tuple[Element[S], ...] = ()

    @classmethod
    def run(cls, spec: CRDTSpec[S], law: Law, world: World, draw: Draw) -> None:
        """Replay the drawn program and check the law on it.

        Raises:
            LawViolation: the law does not hold, or the type raised something it may not.
            ConfigError: the spec does not say what the law needs.
        """
        try:
            cls._run(spec, law, world, draw)
        except LawViolation:
            # A state that changes under another's hands breaks any law; say what it is.
            watched = with_inputs_watched(spec)
            cls._run(
                watched, evolve(law, name=PURITY, statement=PURE), world, draw, is_watched=True
            )
            raise

    @classmethod
    def _run(
        cls, spec: CRDTSpec[S], law: Law, world: World, draw: Draw, *, is_watched: bool = False
    ) -> None:
        """Try the law; with `is_watched` only what a watched spec says is a finding."""
        history = History(spec, replica_count=world.replica_count)
        trial = cls(spec=spec, law=law, world=world, draw=draw, history=history)
        try:
            history.run(draw.program)
            for chosen in trial._choices():
                trial = evolve(trial, chosen=chosen)
                law.check(trial)
        except InputChanged as error:
            raise trial.violation(str(error)) from error
        except ConfigError:
            raise
        except Exception as error:
            if is_watched:
                return
            if isinstance(error, LawViolation):
                raise
            raise trial.violation(f"{type(error).__name__} was raised: {error}") from error

    def _choices(self) -> Iterator[tuple[Element[S], ...]]:
        """Yield the drawn elements, and in a small world each choice of a few deltas."""
        yield tuple(_element(self.history, kind, number) for kind, number in self.draw.elements)
        if self.law.is_exhaustive and self.world.is_small:
            deltas = [_delta(event) for event in self.history.events[:EXHAUSTED_DELTAS_MAX]]
            yield from product(deltas, repeat=self.law.elements)

    @property
    def elements(self) -> tuple[S, ...]:
        """The chosen elements of the lattice: a, b and c."""
        return tuple(element.state for element in self.chosen)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The drawn numbers."""
        return self.draw.numbers

    def picked_events(self) -> list[Event]:
        """Return events in the drawn order, with repetitions; empty when there are none."""
        events = self.history.events
        return [events[number % len(events)] for number in self.numbers] if events else []

    def fail(self, *findings: str) -> NoReturn:
        """Say that the law does not hold.

        Raises:
            LawViolation: always.
        """
        raise self.violation(*findings)

    def violation(self, *findings: str) -> LawViolation:
        """Return the error that says what was found."""
        named = zip("abc", self.chosen, strict=False)
        return LawViolation(
            spec_name=self.spec.name,
            law=self.law.name,
            statement=self.law.statement,
            world=self.world.name,
            history=self.history.told(),
            findings=[*(f"{name} is {element.words}" for name, element in named), *findings],
            draw=self.draw,
        )

    def holds(self, condition: bool, *findings: str) -> None:
        """Require a condition."""
        if not condition:
            self.fail(*findings)

    def equal(self, left_words: str, left: S, right_words: str, right: S) -> None:
        """Require two states to be equal, and to show the same."""
        if not (self.spec.equal(left, right) and self.spec.equal(right, left)):
            self.fail(
                f"{left_words} = {self.show(left)}",
                f"{right_words} = {self.show(right)}",
                "these should be equal",
            )
        self.holds(
            bool(self.spec.value(left) == self.spec.value(right)),
            f"{left_words} shows {_short(self.spec.value(left))}",
            f"{right_words} shows {_short(self.spec.value(right))}",
            "these are equal and should show the same",
        )

    def below(self, lower_words: str, lower: S, upper_words: str, upper: S) -> None:
        """Require one state to be below or equal to another."""
        self.holds(
            bool(self.spec.order(lower, upper)),
            f"{lower_words} = {self.show(lower)}",
            f"{upper_words} = {self.show(upper)}",
            f"{lower_words} <= {upper_words} should hold",
        )

    def show(self, state: S) -> str:
        """Return a state in words: what it shows, and how it prints."""
        try:
            value = _short(self.spec.value(state))
        except Exception as error:  # noqa: BLE001 - a broken type must still be described
            value = f"{type(error).__name__} on reading it"
        return f"{_short(state)} (value {value})"


def _delta(event: Event) -> Element[Any]:
    return Element(event.delta, f"the delta of write {event.index}", (event,))


def _element(history: History[S], kind: str, number: int) -> Element[S]:
    """Return one element of the lattice: a state, a delta, or a join of some of the deltas."""
    events = history.events
    if kind == "state":
        replica = number % history.replica_count
        absorbed = tuple(history.absorbed(replica))
        return Element(history.state(replica), f"the state of replica {replica}", absorbed)
    if kind == "delta" and events:
        return _delta(events[number % len(events)])
    chosen = tuple(event for event in events if number >> event.index & 1)
    if len(chosen) == 1:
        return _delta(chosen[0])
    which = ", ".join(str(event.index) for event in chosen)
    words = f"the join of the deltas of writes {which}" if chosen else "the bottom"
    return Element(history.deltas_joined(chosen), words, chosen)


def _short(what: object) -> str:
    text = repr(what)
    if len(text) > SHOWN_CHARACTERS_MAX:
        return text[: SHOWN_CHARACTERS_MAX - 1] + "…"
    return text
