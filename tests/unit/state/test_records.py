"""The checks of what goes into the stores."""

from __future__ import annotations

import math
from typing import Any

import pytest

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.ratelimit.records import Decision
from meshlib.routing.records import RouteDecision, RouteReason, TreeMatch
from meshlib.state import records


@pytest.mark.parametrize("value", [1, 0, "true", None, 1.0])
def test_a_number_is_no_truth_value(value: Any) -> None:
    """Only True and False are: 1 would come back as true from JSON writers that mean it."""
    with pytest.raises(InvalidTypeError):
        records.check_flag("health", value)


@pytest.mark.parametrize("value", [True, "0.5", None, [1]])
def test_a_load_of_another_type_is_refused(value: Any) -> None:
    """A bool is no number here."""
    with pytest.raises(InvalidTypeError):
        records.check_load(value)


@pytest.mark.parametrize("value", [-0.5, math.inf, -math.inf, math.nan, 10**400])
def test_a_load_that_cannot_be_is_refused(value: float) -> None:
    """Negative, infinite, not a number, or too large to be a float."""
    with pytest.raises(InvalidValueError):
        records.check_load(value)


def test_an_integer_load_becomes_a_float() -> None:
    """One load has one form, so that equal workers are equal bytes."""
    assert "3.0" == repr(records.check_load(3))


def test_minus_zero_becomes_zero() -> None:
    """The two zeros are equal and must not be two values."""
    assert "0.0" == repr(records.check_load(-0.0))


@pytest.mark.parametrize("value", [True, 1.5, "100", None])
def test_a_limit_of_another_type_is_refused(value: Any) -> None:
    """A limit is an integer, and a bool is none."""
    with pytest.raises(InvalidTypeError):
        records.check_limit(value)


@pytest.mark.parametrize("value", [-1, 2**53 + 1])
def test_a_limit_out_of_range_is_refused(value: int) -> None:
    """From 0 to 2**53."""
    with pytest.raises(InvalidValueError):
        records.check_limit(value)


def test_identifiers_may_hold_any_unicode() -> None:
    """Slashes, emoji and control characters are all characters."""
    name = "models/größe/😀 \n"

    assert name == records.check_identifier("model_id", name)


def test_an_empty_identifier_is_refused() -> None:
    """It would name nothing."""
    with pytest.raises(InvalidValueError):
        records.check_identifier("model_id", "")


def test_a_lone_surrogate_is_refused() -> None:
    """It has no bytes to travel as."""
    with pytest.raises(InvalidValueError):
        records.check_identifier("model_id", "\ud800")


def test_identifiers_are_bounded_in_bytes() -> None:
    """1 KiB of UTF-8, which is 512 of these characters."""
    assert records.check_identifier("key", "é" * 512)
    with pytest.raises(LimitError):
        records.check_identifier("key", "é" * 513)


def test_a_decision_is_true_when_it_allows() -> None:
    """So that `if limiter.acquire(...)` reads as it should."""
    assert Decision(True, 10, 9, 0.0)
    assert not Decision(False, 10, 0, 0.1)


def test_a_route_without_a_worker_is_false() -> None:
    """So that `if decision` asks whether there is somewhere to go."""
    nowhere = RouteDecision(worker_id=None, url=None, matched=0, reason=RouteReason.NO_WORKER)
    somewhere = RouteDecision(worker_id="w", url="u", matched=0, reason=RouteReason.NO_MATCH)

    assert not nowhere
    assert somewhere


def test_a_match_without_tenants_has_no_tenant() -> None:
    """And one with several names the first."""
    assert TreeMatch(tenants=(), matched=0, input_length=4).tenant is None
    assert "a" == TreeMatch(tenants=("a", "b"), matched=2, input_length=4).tenant
