"""One limit: so many units in a period, and how they are counted.

Rule: what a limit may be, and how it is written as text, is decided in this file.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Final

from attrs import field, frozen

from meshlib.errors import InvalidFieldError, InvalidTypeError
from meshlib.limits import LIMIT_PERIOD_S_MAX
from meshlib.state.records import LIMIT_PER_SECOND_MAX

__all__ = ["MONTH", "Algorithm", "Limit", "parse"]

MONTH: Final = "month"
"""The period of a limit that holds for each month of the UTC calendar."""

_UNITS: Final[dict[str, int]] = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
}
_SHORT: Final[dict[str, str]] = {
    "s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day",
    "w": "week",
}  # fmt: skip
_SECONDS: Final = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_NAMES: Final = {seconds: name for name, seconds in _UNITS.items()}

_TEXT_CHARACTERS_MAX: Final = 200
_RATE: Final = re.compile(r"([-+.0-9a-z_]{1,32}) */ *([0-9]{0,8}) *([a-z]{1,10})", re.ASCII)
_OPTION: Final = re.compile(r"(burst|algorithm) *= *([0-9a-z_]{1,32})", re.ASCII)


class Algorithm(StrEnum):
    """How a limit is counted."""

    WINDOW = "window"
    """In windows one after the other, aligned to the Unix epoch: all of it again with each."""

    SLIDING = "sliding"
    """Over each stretch of time as long as the period, to a sixtieth of it."""

    GCRA = "gcra"
    """A burst at most at once, and then one unit each time that the rate has room for one.

    Source: the generic cell rate algorithm, ITU-T I.371; a token bucket by another name."""


def _integer(name: str, value: object, *, least: int, most: int, words: str) -> int:
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        raise InvalidFieldError(name, f"must be a whole number, got {value}")
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} must be an integer, not {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidFieldError(name, f"must be {words}, got {_shown(value)}")
    return value


def _shown(number: int) -> str:
    return str(number) if number.bit_length() <= 80 else "a number of many digits"


def _rate(value: object) -> int:
    return _integer("rate", value, least=1, most=LIMIT_PER_SECOND_MAX, words="1 to 2**53")


def _period(value: object) -> int | str:
    if isinstance(value, str):
        if value == MONTH:
            return MONTH
        if value not in _UNITS:
            known = ", ".join((*_UNITS, MONTH))
            raise InvalidFieldError("per", f"must be seconds or one of {known}, got {value[:20]!r}")
        return _UNITS[value]
    words = f"1 to {LIMIT_PERIOD_S_MAX:,} seconds, which are 31 days"
    return _integer("per", value, least=1, most=LIMIT_PERIOD_S_MAX, words=words)


def _burst(value: object) -> int | None:
    if value is None:
        return None
    return _integer("burst", value, least=1, most=LIMIT_PER_SECOND_MAX, words="1 to 2**53")


def _algorithm(value: object) -> Algorithm | None:
    if value is None:
        return None
    for known in Algorithm:
        if value == known:
            return known
    raise InvalidFieldError("algorithm", f"must be one of {', '.join(Algorithm)}")


@frozen(slots=True)
class Limit:
    """So many units in a period, for the whole cluster.

    Units are whole numbers: requests, tokens, or money in millionths.

    Args:
        rate: units in each period, 1 to 2**53.
        per: the period: seconds, 1 to 2,678,400 (31 days), or `second`, `minute`, `hour`, `day`,
            `week`; or `month`, which is that of the UTC calendar and counts by `window` alone.
        burst: units that may come at once; makes the algorithm `gcra`. None: the rate.
        algorithm: `window`, `sliding` or `gcra`; None: `gcra` with a burst, else `window`.

    Raises:
        InvalidFieldError: names the field that cannot be, and is a ValueError.
        InvalidTypeError: a field of another type.
    """

    rate: int = field(converter=_rate)
    per: int | str = field(default=1, converter=_period, kw_only=True)
    burst: int | None = field(default=None, converter=_burst, kw_only=True)
    algorithm: Algorithm | None = field(default=None, converter=_algorithm, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Decide on the algorithm, and check that it can be that of the rest."""
        if self.algorithm is None:
            kind = Algorithm.WINDOW if self.burst is None else Algorithm.GCRA
            object.__setattr__(self, "algorithm", kind)
        if self.algorithm is Algorithm.GCRA:
            if self.burst is None:
                object.__setattr__(self, "burst", self.rate)
        elif self.burst is not None:
            raise InvalidFieldError("burst", f"is for gcra, and not for {self.algorithm}")
        if self.per == MONTH and self.algorithm is not Algorithm.WINDOW:
            raise InvalidFieldError("per", f"a month counts by window, and not by {self.algorithm}")

    @property
    def capacity(self) -> int:
        """The most that may pass at once, in units: the burst, or else the rate."""
        return self.rate if self.burst is None else self.burst

    @property
    def is_window(self) -> bool:
        """Whether it counts in windows."""
        return self.algorithm is Algorithm.WINDOW

    @property
    def longest_s(self) -> float:
        """The longest that anybody is told to wait, in seconds: the period, or to fill a burst."""
        return self.period_s * max(1.0, self.capacity / self.rate)

    @property
    def period_s(self) -> float:
        """The period in seconds; of a month, of the longest one."""
        return float(LIMIT_PERIOD_S_MAX if isinstance(self.per, str) else self.per)

    @property
    def code(self) -> str:
        """Under which mark its counts are kept: limits of one mark share what was used."""
        sign = {"sliding": "s", "gcra": "g"}.get(str(self.algorithm), "")
        return f"{self.per}{sign}"

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read a limit from text such as `100/minute; burst=20`; see `parse`."""
        return parse(text)

    def __str__(self) -> str:
        """The text that `parse` reads back."""
        unit = _written(self.per)
        text = f"{self.rate}/{unit}"
        if self.burst is not None:
            text += f"; burst={self.burst}"
        return text if self.algorithm is not Algorithm.SLIDING else f"{text}; algorithm=sliding"


def _written(per: int | str) -> str:
    if isinstance(per, str):
        return per
    if per in _NAMES:
        return _NAMES[per]
    unit = next(unit for unit in ("d", "h", "min", "s") if per % _SECONDS[unit] == 0)
    return f"{per // _SECONDS[unit]}{unit}"


def parse(text: str) -> Limit:
    """Read a limit from text. O(length).

    `5/second`, `100/minute; burst=20`, `1_000/10s; algorithm=sliding`, `1000000/month`. The period
    is a number of seconds, minutes, hours, days or weeks, in words or by s, min, h, d, w.

    Args:
        text: up to 200 characters.

    Raises:
        InvalidFieldError: names what cannot be read, or cannot be; it is a ValueError.
        InvalidTypeError: no text.
    """
    if not isinstance(text, str):
        raise InvalidTypeError(f"limit must be a string, not {type(text).__name__}")
    if len(text) > _TEXT_CHARACTERS_MAX:
        raise InvalidFieldError("limit", f"must have at most {_TEXT_CHARACTERS_MAX} characters")
    first, *rest = (part.strip() for part in text.split(";"))
    found = _RATE.fullmatch(first)
    if found is None:
        raise _unread(text)
    options: dict[str, str] = {}
    for part in rest:
        option = _OPTION.fullmatch(part)
        if option is None or option[1] in options:
            raise InvalidFieldError(
                "limit", f"must be like 100/minute; burst=20, got {text[:40]!r}"
            )
        options[option[1]] = option[2]
    burst = options.get("burst")
    if burst is not None and not burst[0].isdigit():
        raise InvalidFieldError("burst", f"must be a whole number, got {burst!r}")
    return Limit(
        _number("rate", found[1]),
        per=_read_period(found[2], found[3]),
        burst=None if burst is None else _number("burst", burst),
        algorithm=_algorithm(options.get("algorithm")),
    )


def _unread(text: str) -> InvalidFieldError:
    return InvalidFieldError("limit", f"must be like 100/minute; burst=20, got {text[:40]!r}")


def _number(name: str, digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise InvalidFieldError(name, f"must be a whole number, got {digits!r}") from None


def _read_period(count: str, unit: str) -> int | str:
    name = _SHORT.get(unit, unit.removesuffix("s") if len(unit) > 1 else unit)
    if name == MONTH and count in ("", "1"):
        return MONTH
    if name not in _UNITS:
        known = ", ".join((*_UNITS, MONTH))
        raise InvalidFieldError("per", f"must be of {known}, got {count}{unit!r}")
    return _period(int(count or 1) * _UNITS[name])
