"""`laws(spec)`: one test for each law that every state-based CRDT must obey.

    from meshlib.testing import CRDTSpec, Operation, laws

    TestVotes = laws(CRDTSpec(name="votes", bottom=Votes, operations={...}, value=..., oracle=...))

pytest and unittest collect the class. Each law is tried on histories of a small world and of a
larger one; a failure prints the shortest history that hypothesis finds, step by step.

Source: Shapiro, Preguiça, Baquero, Zawirski 2011 (the lattice); Almeida, Shoker, Baquero 2018
(deltas); Enes, Almeida, Baquero, Leitão 2019 (decomposition).
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, TypeVar

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from meshlib.errors import InvalidValueError, check_several
from meshlib.testing.laws.algebra import ALGEBRA
from meshlib.testing.laws.delivery import DELIVERY
from meshlib.testing.laws.profile import WORLDS, Profile, World, current_profile
from meshlib.testing.laws.representation import REPRESENTATION
from meshlib.testing.laws.shortening import shortened
from meshlib.testing.laws.spec import CRDTSpec
from meshlib.testing.laws.strategies import NUMBER_MAX, programs
from meshlib.testing.laws.trial import Draw, Law, LawViolation, Trial

__all__ = ["LAWS", "LawViolation", "check_law", "first_violation", "law_names", "laws"]

S = TypeVar("S")

LAWS: Final = {law.name: law for law in (*ALGEBRA, *DELIVERY, *REPRESENTATION)}
"""Every law of the kit, by name, in the order of their tests."""

NUMBERS_MAX: Final = 8


def law_names(spec: CRDTSpec[Any]) -> tuple[str, ...]:
    """Return the names of the laws that a spec says enough for, in the order of their tests."""
    return tuple(name for name, law in LAWS.items() if law.applies(spec))


def laws(spec: CRDTSpec[S], *, exclude: Collection[str] = ()) -> type[unittest.TestCase]:
    """Return a class with one test for each law, for pytest or unittest to collect.

    How many examples are tried is up to `MESHLIB_LAWS_PROFILE` (`meshlib.testing.laws.profile`).

    Args:
        spec: the type.
        exclude: names of laws that the type does not claim to obey.

    Raises:
        InvalidValueError: `exclude` names a law that does not exist.
        InvalidTypeError: it is one text in place of the names.
    """
    _check_names(exclude)
    methods: dict[str, Any] = {
        f"test_{name}": _test_of(spec, name) for name in law_names(spec) if name not in exclude
    }
    methods["__doc__"] = f"The laws of {spec.name}."
    title = "".join(word.title() for word in spec.name.replace("_", " ").split())
    return type(f"Test{title}Laws", (unittest.TestCase,), methods)


def _test_of(spec: CRDTSpec[Any], name: str) -> Callable[[unittest.TestCase], None]:
    def test(_self: unittest.TestCase) -> None:
        check_law(spec, name)

    test.__name__ = test.__qualname__ = f"test_{name}"
    test.__doc__ = f"{LAWS[name].statement[0].upper()}{LAWS[name].statement[1:]}."
    return test


def check_law(
    spec: CRDTSpec[S],
    law: str,
    *,
    profile: Profile | None = None,
    worlds: Iterable[World] = WORLDS,
    is_shrunk: bool = True,
) -> None:
    """Try one law on a type, in each world in turn.

    Args:
        spec: the type.
        law: the name of the law.
        profile: how many examples; default: what `MESHLIB_LAWS_PROFILE` names.
        worlds: the sizes of the histories.
        is_shrunk: look for the shortest history once one has failed.

    Raises:
        LawViolation: the type breaks it; the message holds the history.
        InvalidValueError: there is no such law.
        InvalidTypeError: one text in place of the names.
    """
    _check_names([law])
    profile = profile or current_profile()
    worlds = tuple(worlds)
    for world in worlds:
        settings = profile.settings(profile.law_examples // len(worlds), is_shrunk=is_shrunk)
        try:
            _runner(spec, LAWS[law], world, settings)()
        except LawViolation as found:
            if not is_shrunk:
                raise
            raise shortened(spec, LAWS[law], world, found) from None


def first_violation(
    spec: CRDTSpec[S],
    *,
    laws: Iterable[str] | None = None,
    profile: Profile | None = None,
    is_shrunk: bool = True,
) -> LawViolation | None:
    """Return how a type first breaks one of its laws, or None when no example shows it.

    Args:
        spec: the type.
        laws: the names of the laws to try, in turn; default: all that apply.
        profile: how many examples; default: what `MESHLIB_LAWS_PROFILE` names.
        is_shrunk: look for the shortest history.

    Raises:
        InvalidValueError: there is no such law.
    """
    if laws is not None:
        check_several("the names of laws", laws)
    for name in law_names(spec) if laws is None else laws:
        try:
            check_law(spec, name, profile=profile, is_shrunk=is_shrunk)
        except LawViolation as violation:
            return violation
    return None


def _runner(spec: CRDTSpec[Any], law: Law, world: World, settings: Any) -> Callable[[], None]:
    def try_law(draw: Draw) -> None:
        Trial.run(spec, law, world, draw)

    try_law.__name__ = law.name
    runner: Callable[[], None] = settings(given(draw=_draws(spec, law, world))(try_law))
    return runner


def _draws(spec: CRDTSpec[Any], law: Law, world: World) -> SearchStrategy[Draw]:
    element = st.tuples(st.sampled_from(["delta", "join", "state"]), st.integers(0, NUMBER_MAX))
    numbers = st.lists(st.integers(0, NUMBER_MAX), max_size=NUMBERS_MAX).map(tuple)
    return st.builds(
        Draw,
        programs(spec, world=world),
        st.tuples(*[element] * law.elements),
        numbers if law.is_ordered else st.just(()),
    )


def _check_names(names: Iterable[str]) -> None:
    check_several("the names of laws", names)
    for name in names:
        if name not in LAWS:
            raise InvalidValueError(f"no law is called {name!r}; there are: {', '.join(LAWS)}")
