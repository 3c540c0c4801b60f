"""The laws of a lattice: join, order and parts, over states, deltas and partial joins alike.

A type whose full states obey these may still break them on deltas, which is where the damage
is done; so the elements are drawn from all three.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Final

from meshlib.testing.laws.trial import Law, Trial

__all__ = ["ALGEBRA"]

PARTS_MAX: Final = 12
"""Parts of one state that are left out one after the other; more would only repeat."""


def _bottom_is_neutral(trial: Trial[Any]) -> None:
    spec = trial.spec
    (a,) = trial.elements
    bottom = spec.bottom()
    trial.equal("bottom | a", spec.join(bottom, a), "a", a)
    trial.equal("a | bottom", spec.join(a, bottom), "a", a)
    trial.below("bottom", bottom, "a", a)
    if spec.is_bottom is not None:
        trial.holds(bool(spec.is_bottom(bottom)), "the bottom does not say that it is the bottom")
        trial.holds(
            bool(spec.is_bottom(a)) == bool(spec.equal(a, bottom)),
            f"a = {trial.show(a)}",
            f"it says that is_bottom is {spec.is_bottom(a)}",
        )


def _join_is_idempotent(trial: Trial[Any]) -> None:
    spec = trial.spec
    a, b = trial.elements
    trial.equal("a | a", spec.join(a, a), "a", a)
    joined = spec.join(a, b)
    trial.equal("(a | b) | b", spec.join(joined, b), "a | b", joined)


def _join_is_commutative(trial: Trial[Any]) -> None:
    a, b = trial.elements
    trial.equal("a | b", trial.spec.join(a, b), "b | a", trial.spec.join(b, a))


def _join_is_associative(trial: Trial[Any]) -> None:
    join = trial.spec.join
    a, b, c = trial.elements
    trial.equal("(a | b) | c", join(join(a, b), c), "a | (b | c)", join(a, join(b, c)))


def _join_inflates(trial: Trial[Any]) -> None:
    spec = trial.spec
    a, b = trial.elements
    joined = spec.join(a, b)
    trial.below("a", a, "a | b", joined)
    trial.below("b", b, "a | b", joined)
    for write in trial.history.transitions:
        index = write.event.index
        after = f"the state after write {index}"
        trial.below(f"the state before write {index}", write.before, after, write.after)
        trial.below("its delta", write.event.delta, after, write.after)


def _order_agrees_with_join(trial: Trial[Any]) -> None:
    spec = trial.spec
    named = list(zip("abc", trial.elements, strict=True))
    for (left_name, left), (right_name, right) in combinations(named, 2):
        for low_name, low, high_name, high in (
            (left_name, left, right_name, right),
            (right_name, right, left_name, left),
        ):
            is_below = bool(spec.order(low, high))
            is_absorbed = bool(spec.equal(spec.join(low, high), high))
            trial.holds(
                is_below == is_absorbed,
                f"{low_name} = {trial.show(low)}",
                f"{high_name} = {trial.show(high)}",
                f"{low_name} <= {high_name} is {is_below}",
                f"{low_name} | {high_name} == {high_name} is {is_absorbed}",
            )
        if spec.order(left, right) and spec.order(right, left):
            trial.equal(left_name, left, right_name, right)
    a, b, c = trial.elements
    trial.below("a", a, "a", a)
    if spec.order(a, b) and spec.order(b, c):
        trial.below("a", a, "c", c)


def _decomposition_is_irredundant(trial: Trial[Any]) -> None:
    spec = trial.spec
    a, b = trial.elements
    assert spec.decompose is not None
    joined = spec.join(a, b)
    parts = list(spec.decompose(joined))
    trial.equal("the join of the parts of a | b", spec.fold(parts), "a | b", joined)
    for number, part in enumerate(parts[:PARTS_MAX]):
        words = f"part {number} of a | b"
        trial.holds(
            not spec.equal(part, spec.bottom()), f"{words} is the bottom, which says nothing"
        )
        rest = spec.fold(parts[:number] + parts[number + 1 :])
        trial.holds(
            not spec.order(part, rest),
            f"a | b = {trial.show(joined)}",
            f"{words} = {trial.show(part)}",
            "the other parts say all of it, so it is redundant",
        )
        trial.holds(
            len(list(spec.decompose(part))) == 1,
            f"{words} = {trial.show(part)}",
            "it has several parts itself",
        )
        if spec.is_distributive:
            trial.holds(
                bool(spec.order(part, a) or spec.order(part, b)),
                f"{words} = {trial.show(part)}",
                "it is below neither a nor b, so it can be split further",
            )


ALGEBRA: Final = (
    Law(
        name="bottom_is_neutral",
        statement="bottom | a == a == a | bottom, and only the bottom is the bottom",
        check=_bottom_is_neutral,
        elements=1,
    ),
    Law(
        name="join_is_idempotent",
        statement="a | a == a, and (a | b) | b == a | b",
        check=_join_is_idempotent,
        elements=2,
        is_exhaustive=True,
    ),
    Law(
        name="join_is_commutative",
        statement="a | b == b | a",
        check=_join_is_commutative,
        elements=2,
        is_exhaustive=True,
    ),
    Law(
        name="join_is_associative",
        statement="(a | b) | c == a | (b | c)",
        check=_join_is_associative,
        elements=3,
        is_exhaustive=True,
    ),
    Law(
        name="join_inflates",
        statement="a <= a | b and b <= a | b, and no write takes a state back",
        check=_join_inflates,
        elements=2,
    ),
    Law(
        name="order_agrees_with_join",
        statement="a <= b exactly if a | b == b; and a <= b <= a only if a == b",
        check=_order_agrees_with_join,
        elements=3,
    ),
    Law(
        name="decomposition_is_irredundant",
        statement="the parts of a state join to it, none is spare, and none can be split",
        check=_decomposition_is_irredundant,
        applies=lambda spec: spec.decompose is not None,
        elements=2,
    ),
)
"""The laws of this module, in the order of their tests."""
