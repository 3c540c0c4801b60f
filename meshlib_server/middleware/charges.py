"""What a request may be charged, and what is looked at of its answer.

Rule: whose request it is and what it costs, functions of the caller say, and nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field, frozen

from meshlib.errors import ConfigError
from meshlib.limits import SLOTS_MAX

__all__ = ["Answer", "Asked", "Charge", "as_told", "by_header"]

TAIL_BYTES: Final = 8192
"""What is kept of an answer that is settled by what it says: its usage stands at the end of it."""

Asked = Mapping[str, Any]
"""What a request is known by: its ASGI scope, or its WSGI environment."""


@define
class Answer:
    """What has gone out to whoever asked.

    Args:
        status_code: the HTTP status; 500 where the application failed before it answered.
        is_complete: whether the answer was sent to its end.
        body_bytes: how much of it went out.
        tail: the last 8 KiB of it, as they were sent; compressed, if the application does so.
    """

    status_code: int = 500
    is_complete: bool = False
    body_bytes: int = 0
    tail: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece. O(size of the piece)."""
        self.body_bytes += len(data)
        self.tail = (self.tail + data)[-TAIL_BYTES:]


def as_told(_answer: Answer) -> int | None:
    """Leave it to the application to tell, by `tell_used`; else it stays at the estimate."""
    return None


def _positive(_charge: Any, _name: object, cost: int | Callable[[Asked], int]) -> None:
    if not callable(cost) and (type(cost) is not int or cost < 1):
        raise ConfigError(f"cost must be a function, or a whole number from 1, got {cost!r}")


def _slots(_charge: Any, _name: object, slots: int | Callable[[Asked], int] | None) -> None:
    if slots is None or callable(slots):
        return
    if type(slots) is not int or not 1 <= slots <= SLOTS_MAX:
        raise ConfigError(
            f"slots must be a function, or a whole number of 1 to {SLOTS_MAX:,}, got {slots!r}"
        )


def _function(_charge: Any, name: Any, value: Any) -> None:
    if not callable(value) and not (value is None and name.name == "actual"):
        raise ConfigError(f"{name.name} must be a function, got {value!r}")


@frozen(kw_only=True)
class Charge:
    """What requests are charged under one key. A request may have several; it passes all or none.

    Args:
        key: returns the rate-limit key of a request, or None for one that is not charged. It gets
            the ASGI scope, or the WSGI environment. Its limit is a rule's, or one of its own.
        slots: how many requests of the key may run at once on all nodes together, 1 to 1,000,000,
            or what returns that, 0 for a request that needs none. Then nothing is counted: the
            request holds one slot from before it is served until its answer has ended.
        wait_s: seconds that a request waits while all slots are used, 0 to 86,400.
        cost: units, at least 1, or what returns them; 0 for a request that costs nothing. With
            `actual`, the estimate.
        actual: returns what was really used, once the answer is over; None leaves it at what the
            application has told by `tell_used`, else at the estimate. Without `actual` nothing
            is settled.
        lease_s: seconds after which it stays at its estimate, 1 to 86,400.

    Raises:
        ConfigError: a cost or slots that cannot be, both of them, or no function where one is
            meant.
    """

    key: Callable[[Asked], str | None] = field(validator=_function)
    cost: int | Callable[[Asked], int] = field(default=1, validator=_positive)
    actual: Callable[[Answer], int | None] | None = field(default=None, validator=_function)
    lease_s: float = 600.0
    slots: int | Callable[[Asked], int] | None = field(default=None, validator=_slots)
    wait_s: float = 0.0

    def __attrs_post_init__(self) -> None:
        """Check that it is either counted or held."""
        if self.slots is not None and (self.cost != 1 or self.actual is not None):
            raise ConfigError("slots are held and not counted: they have no cost and no actual")


def by_header(name: str, *, prefix: str, is_secret: bool = False) -> Callable[[Asked], str | None]:
    """Return a function that makes a key of a header's value; for `Charge.key`.

    Args:
        name: the header's.
        prefix: what comes before the value, such as `user:`, as the pattern of a rule has it.
        is_secret: whether the value is a secret, such as an API key: a digest of it is the key
            then, which all nodes and whoever looks at busy keys may see.

    Returns:
        a function; it returns None for a request without the header, or with an empty one.
    """
    raw_name, environ_name = name.lower().encode(), "HTTP_" + name.upper().replace("-", "_")

    def key_of(asked: Asked) -> str | None:
        value: str = ""
        headers = asked.get("headers")
        if headers is None:
            value = asked.get(environ_name, "")
        else:
            for each, raw in headers:
                if each == raw_name:
                    value = raw.decode("latin-1")
                    break
        if not value:
            return None
        if is_secret:
            value = hashlib.sha256(value.encode()).hexdigest()[:32]
        return prefix + value

    return key_of
