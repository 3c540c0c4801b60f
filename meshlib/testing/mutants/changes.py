"""Ways to break a spec, for the general mutants and for those of one type in particular."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import evolve

from meshlib.testing.laws.spec import CRDTSpec, OperationContext

__all__ = ["with_context", "with_deltas", "with_join", "with_operations", "with_states"]

S = TypeVar("S")


def with_join(spec: CRDTSpec[S], join: Callable[[S, S], S]) -> CRDTSpec[S]:
    """Return a spec with another join. Its absorb, which would still be right, is left out."""
    return evolve(spec, join=join, absorb=None)


def with_deltas(spec: CRDTSpec[S], change: Callable[[S, OperationContext, S], S]) -> CRDTSpec[S]:
    """Return a spec whose operations return `change(state, context, delta)`."""

    def changed(apply: Callable[..., S]) -> Callable[..., S]:
        def broken(state: S, context: OperationContext, **arguments: Any) -> S:
            return change(state, context, apply(state, context, **arguments))

        return broken

    return with_operations(spec, changed)


def with_context(
    spec: CRDTSpec[S], change: Callable[[OperationContext], OperationContext]
) -> CRDTSpec[S]:
    """Return a spec whose operations write in the name and with the clock of `change(context)`."""

    def changed(apply: Callable[..., S]) -> Callable[..., S]:
        def broken(state: S, context: OperationContext, **arguments: Any) -> S:
            return apply(state, change(context), **arguments)

        return broken

    return with_operations(spec, changed)


def with_states(spec: CRDTSpec[S], damage: Callable[[S], S]) -> CRDTSpec[S]:
    """Return a spec of a type that keeps less than it should: `damage` of each state and delta."""
    joined = with_join(spec, lambda left, right: damage(spec.join(left, right)))
    return with_deltas(joined, lambda _state, _context, delta: damage(delta))


def with_operations(
    spec: CRDTSpec[S], changed: Callable[[Callable[..., S]], Callable[..., S]]
) -> CRDTSpec[S]:
    """Return a spec whose operations are `changed(apply)`."""
    return evolve(
        spec,
        operations={
            name: evolve(operation, apply=changed(operation.apply), full=None)
            for name, operation in spec.operations.items()
        },
    )
