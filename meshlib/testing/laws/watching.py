"""A spec that tells when something changes a state that it was only given to read.

A join that is made in place breaks whichever law looks first, and in words that point elsewhere.
Watching costs a copy for each call, so a law is tried with it only once it was broken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from attrs import evolve

from meshlib.errors import ConfigError
from meshlib.testing.laws.references import find_reference
from meshlib.testing.laws.spec import CRDTSpec

__all__ = ["InputChanged", "with_inputs_watched"]

S = TypeVar("S")
R = TypeVar("R")


class InputChanged(Exception):  # noqa: N818 - what happened; it never leaves the kit
    """A state was changed by what had no right to; the message says which and by what."""


def with_inputs_watched(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Return the spec with a join and an order that look at their inputs afterwards.

    Either raises `InputChanged` where a state is no longer equal to a copy of it made before, or
    encodes to other bytes. What operations change has laws of its own.
    """

    def join(a: S, b: S) -> S:
        return _unchanged(spec, spec.join, {"a": a, "b": b}, "a | b")

    def order(a: S, b: S) -> bool:
        return _unchanged(spec, spec.order, {"a": a, "b": b}, "a <= b")

    return evolve(spec, join=join, order=order, reference=_reference_of(spec))


def _reference_of(spec: CRDTSpec[S]) -> str | None:
    """Return where another process finds the type, which is not broken by being watched."""
    try:
        return find_reference(spec)
    except ConfigError:
        return None  # a law that needs it has said so before


def _unchanged(spec: CRDTSpec[S], call: Callable[..., R], inputs: dict[str, S], words: str) -> R:
    """Return `call` of the inputs, which must be as before."""
    before = {name: copy.deepcopy(state) for name, state in inputs.items()}
    try:
        return call(*inputs.values())
    finally:
        for name, state in inputs.items():
            if not _is_same(spec, state, before[name]):
                raise InputChanged(f"{words} changed {name}: from {before[name]!r} to {state!r}")


def _is_same(spec: CRDTSpec[S], state: S, before: S) -> bool:
    if spec.codec is not None:
        return spec.codec.encode(state) == spec.codec.encode(before)
    # Where equality itself is what is broken, it says nothing of a change.
    return bool(spec.equal(state, before)) or not spec.equal(before, copy.deepcopy(before))
