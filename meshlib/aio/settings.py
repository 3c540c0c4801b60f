"""Checks of settings, as attrs validators that raise what callers expect, and of the wall clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final

from meshlib.arguments import check_number
from meshlib.errors import ConfigError, InvalidValueError

__all__ = ["check_not_negative", "check_positive", "checked_wall_clock"]

WALL_S_MAX: Final = 253_402_300_800.0
"""The end of the year 9999: what is later is milliseconds, or no time at all."""


def check_positive(_instance: Any, attribute: Any, value: float) -> None:
    """Check that a setting is over 0.

    Raises:
        ConfigError: it is not.
    """
    if not value > 0:
        raise ConfigError(f"{attribute.name} must be over 0, got {value}")


def check_not_negative(_instance: Any, attribute: Any, value: float) -> None:
    """Check that a setting is 0 or more.

    Raises:
        ConfigError: it is not.
    """
    if not value >= 0:
        raise ConfigError(f"{attribute.name} must be 0 or more, got {value}")


def checked_wall_clock(wall_clock: Callable[[], float]) -> Callable[[], float]:
    """Return a wall clock that is named by an error where it gives what is no time. O(1).

    The system's own is returned as it is. Else each reading may raise InvalidTypeError, for what
    is no number, or InvalidValueError, for one that is not finite or after the year 9999.

    Args:
        wall_clock: returns seconds since 1970.
    """
    if wall_clock is time.time:
        return wall_clock

    def read() -> float:
        wall_s = wall_clock()
        check_number("what wall_clock returns", wall_s, wanted="a number of seconds")
        if not -math.inf < wall_s < WALL_S_MAX:
            raise InvalidValueError(
                f"what wall_clock returns must be seconds since 1970, and not {wall_s!r}"
            )
        return wall_s

    return read
