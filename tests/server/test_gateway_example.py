"""The parts of the example of a gateway that need no process."""

from __future__ import annotations

from pathlib import Path

import openai_router
import pytest
from openai_router.settings import Settings
from openai_router.workers import OPEN_S_MAX, Circuits

from meshlib import Decision
from meshlib_server.middleware import rate_limit_headers


def failing(times: int, *, now: float = 0.0) -> Circuits:
    """Return circuits of which that of `w` has failed so often at one time."""
    circuits = Circuits()
    for _ in range(times):
        circuits.failed("w", now=now)
    return circuits


def test_a_circuit_opens_after_three_failures_in_a_row() -> None:
    """And a success in between begins anew."""
    circuits = failing(2)
    assert set() == circuits.excluded(now=0.0)
    circuits.succeeded("w")
    circuits.failed("w", now=0.0)
    assert set() == circuits.excluded(now=0.0)
    assert {"w"} == failing(3).excluded(now=0.0)


def test_one_trial_goes_through_an_open_circuit() -> None:
    """Once its time is over; the others wait for what becomes of it."""
    circuits = failing(3)
    assert {"w"} == circuits.excluded(now=0.9)
    assert set() == circuits.excluded(now=1.1)
    circuits.chosen("w")
    assert {"w"} == circuits.excluded(now=1.1)
    circuits.given_up("w")
    assert set() == circuits.excluded(now=1.1)
    circuits.chosen("w")
    circuits.succeeded("w")
    assert set() == circuits.excluded(now=1.1)


def test_a_trial_that_fails_opens_for_twice_as_long() -> None:
    """Up to a bound."""
    circuits = failing(4)
    assert {"w"} == circuits.excluded(now=1.9)
    assert set() == circuits.excluded(now=2.1)
    assert set() == failing(50).excluded(now=OPEN_S_MAX + 0.1)


def test_the_settings_that_are_shown_can_be_read() -> None:
    """And one that is not known is refused."""
    path = Path(openai_router.__path__[0]) / "settings.json"
    settings = Settings.load(str(path))
    assert (["sk-ann", "sk-bob"], 60, 20_000, 4) == (
        settings.keys,
        settings.requests_per_minute,
        settings.tokens_per_minute,
        settings.parallel,
    )
    assert "sk-ann" not in repr(settings)
    with pytest.raises(TypeError):
        Settings(name="r", what=1)  # type: ignore[call-arg]


def test_a_refusal_of_slots_is_told_in_headers() -> None:
    """There is no window to tell of."""
    headers = rate_limit_headers(Decision(False, 4, 0, 0.5, 0.0, "4 at once"))

    assert '"4 at once";q=4;qu="concurrent-requests"' == headers["RateLimit-Policy"]
    assert "1" == headers["Retry-After"]
