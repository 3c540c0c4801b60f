"""What a request is charged: decided before it is served, and settled when it is over.

Rule: a request passes all that it is charged for, or nothing of it is counted; what was reserved
for it is settled once, however it ends.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from enum import StrEnum
from typing import Any, Final

from attrs import define, field, frozen

from meshlib import Decision, MeshRuntime
from meshlib.errors import (
    ConfigError,
    InvalidFieldError,
    InvalidTypeError,
    MeshError,
    NotReadyError,
    StateError,
    UnknownKeyError,
)
from meshlib.ratelimit import Reservation
from meshlib_server.middleware.headers import Refusal, rate_limit_headers, refused

__all__ = [
    "Admission",
    "Answer",
    "Charge",
    "Charging",
    "MeshSource",
    "OnFailure",
    "as_told",
    "by_header",
    "tell_used",
]

TAIL_BYTES: Final = 8192
"""What is kept of an answer that is settled by what it says: its usage stands at the end of it."""

UNITS_MAX: Final = 2**53

RETRY_AFTER_S: Final = 1.0
"""When to come back where nothing could be decided and no error says when it can be."""

LOG_EVERY_S: Final = 10.0
"""How often it is logged at most that nothing could be decided."""

_ADMISSIONS: Final = "meshlib.admissions"
"""Where a request's admissions are kept, in its ASGI scope or its WSGI environment."""

_logger = logging.getLogger(__name__)

Asked = Mapping[str, Any]
"""What a request is known by: its ASGI scope, or its WSGI environment."""

MeshSource = MeshRuntime | Callable[[], MeshRuntime | None]
"""A running node, or what returns it once there is one."""


class OnFailure(StrEnum):
    """What is done with a request when the node cannot decide on it."""

    CLOSED = "closed"
    """503, and when to come back."""

    OPEN = "open"
    """It passes, and is not counted."""


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


def _function(_charge: Any, name: Any, value: Any) -> None:
    if not callable(value) and not (value is None and name.name == "actual"):
        raise ConfigError(f"{name.name} must be a function, got {value!r}")


@frozen(kw_only=True)
class Charge:
    """What requests are charged under one key. A request may have several; it passes all or none.

    Args:
        key: returns the rate-limit key of a request, or None for one that is not charged. It gets
            the ASGI scope, or the WSGI environment. Its limit is a rule's, or one of its own.
        cost: units, at least 1, or what returns them; 0 for a request that costs nothing. With
            `actual`, the estimate.
        actual: returns what was really used, once the answer is over; None leaves it at what the
            application has told by `tell_used`, else at the estimate. Without `actual` nothing
            is settled.
        lease_s: seconds after which it stays at its estimate, 1 to 86,400.

    Raises:
        ConfigError: a cost that cannot be, or no function where one is meant.
    """

    key: Callable[[Asked], str | None] = field(validator=_function)
    cost: int | Callable[[Asked], int] = field(default=1, validator=_positive)
    actual: Callable[[Answer], int | None] | None = field(default=None, validator=_function)
    lease_s: float = 600.0


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


def tell_used(asked: Asked, units: int, *, key: str | None = None) -> None:
    """Tell what a request has really used; called by the application, the last call counts.

    Args:
        asked: the request's ASGI scope (`request.scope`), or its WSGI environment.
        units: 0 to 2**53.
        key: of the charge; None: all charges of the request that are settled.

    Raises:
        InvalidTypeError, InvalidFieldError: units that cannot be. What was told before stays.
    """
    if type(units) is not int:
        raise InvalidTypeError(f"units must be an integer, not {type(units).__name__}")
    if not 0 <= units <= UNITS_MAX:
        raise InvalidFieldError("units", f"must be 0 to 2**53, got {units}")
    for admission in asked.get(_ADMISSIONS, ()):
        admission.tell(key, units)


@define(slots=True)
class Admission:
    """What was decided on one request.

    Args:
        decision: the one of which the least is left; None where nothing was decided.
        refusal: the answer, for a request that does not pass.
        mesh: the node that decided.
        reserved: what is still to be settled.
        told: units as the application told them, by key; under None those of all.
    """

    decision: Decision | None = None
    refusal: Refusal | None = None
    mesh: MeshRuntime | None = None
    reserved: Sequence[tuple[Charge, Reservation]] = ()
    told: dict[str | None, int] | None = None

    def headers(self) -> dict[str, str]:
        """Return what is told of it in the headers of the answer."""
        return {} if self.decision is None else rate_limit_headers(self.decision)

    def register(self, asked: MutableMapping[str, Any]) -> None:
        """Let the application tell what it uses, where that is settled."""
        if self.reserved:
            asked[_ADMISSIONS] = (*asked.get(_ADMISSIONS, ()), self)

    def tell(self, key: str | None, units: int) -> None:
        """Take note of what the application used; as `tell_used`."""
        self.told = {**(self.told or {}), key: units}

    def settle(self, answer: Answer) -> None:
        """Count what was really used; a second call does nothing.

        Args:
            answer: what went out.

        Raises:
            InvalidFieldError, InvalidTypeError: units that cannot be: of whoever told them.
        """
        reserved, self.reserved = self.reserved, ()
        told = self.told or {}
        for charge, reservation in reserved:
            assert charge.actual is not None
            units = told.get(reservation.key, told.get(None))
            if units is None:
                units = charge.actual(answer)
            if units is not None:
                self._settle_one(reservation, units)

    def give_back(self) -> None:
        """Take back what was reserved for a request that does not pass."""
        reserved, self.reserved = self.reserved, ()
        for _, reservation in reserved:
            self._settle_one(reservation, 0)

    def _settle_one(self, reservation: Reservation, units: int) -> None:
        assert self.mesh is not None
        try:
            self.mesh.settle(reservation, actual=units)
        except (UnknownKeyError, StateError) as error:
            self.note_ended(error)

    @staticmethod
    def note_ended(error: MeshError) -> None:
        """Log that a lease, or the node, ended before the answer did."""
        _logger.warning("a reservation stays at its estimate: %s", error)


_FREE: Final = Admission()


class Charging:
    """Decides on requests, by one node.

    Args:
        mesh: the node, or what returns it once there is one.
        charges: what requests are charged.
        on_failure: what is done with a request on which the node cannot decide: it is not ready,
            has ended, or no limit is set for the key.
        timeout_s: as for `MeshRuntime.acquire_confirmed`.

    Raises:
        ConfigError: no charge, or a mode that is none.
    """

    def __init__(
        self,
        mesh: MeshSource,
        *,
        charges: Sequence[Charge],
        on_failure: str = OnFailure.CLOSED,
        timeout_s: float | None = None,
    ) -> None:
        if not charges:
            raise ConfigError("charges must name at least one")
        try:
            self._on_failure = OnFailure(on_failure)
        except ValueError:
            known = ", ".join(OnFailure)
            raise ConfigError(f"on_failure must be one of {known}, got {on_failure!r}") from None
        self._mesh = mesh
        self._charges = tuple(charges)
        self._timeout_s = timeout_s
        self._logged_at = float("-inf")
        is_simple = len(charges) == 1 and charges[0].actual is None
        self._only = charges[0] if is_simple else None

    def mesh(self) -> MeshRuntime:
        """Return the node.

        Raises:
            StateError: there is none yet.
        """
        mesh = self._mesh if isinstance(self._mesh, MeshRuntime) else self._mesh()
        if mesh is None:
            raise StateError("there is no node yet")
        return mesh

    async def admit(self, asked: Asked) -> Admission:
        """Decide on a request. In the thread of the node's event loop.

        Returns:
            an admission, to be settled when the answer is over.

        Raises:
            InvalidTypeError: a key that is not text, or a cost that is no integer.
        """
        try:
            if self._only is None:
                return await self._decide(asked)
            # One charge and nothing to settle is what most have, and is done for each request.
            key = self._only.key(asked)
            if key is None:
                return _FREE
            cost = self._only.cost
            if not isinstance(cost, int) and not (cost := cost(asked)):
                return _FREE
            mesh = self._mesh if isinstance(self._mesh, MeshRuntime) else self.mesh()
            decision = await mesh.acquire_confirmed(key, cost=cost, timeout_s=self._timeout_s)
            return Admission(decision) if decision.allowed else _over(decision)
        except InvalidTypeError:
            raise  # the functions of a charge are wrong, and no request
        except InvalidFieldError as error:
            return Admission(refusal=refused(400, str(error)))
        except MeshError as error:
            return self.failed(error)

    def _charged(self, asked: Asked) -> tuple[dict[str, int], list[tuple[Charge, str, int]]]:
        """Return what a request is charged: units by key, and what is estimated."""
        wanted: dict[str, int] = {}
        estimated: list[tuple[Charge, str, int]] = []
        for charge in self._charges:
            key = charge.key(asked)
            if key is None:
                continue
            cost = charge.cost if isinstance(charge.cost, int) else charge.cost(asked)
            if cost and charge.actual is not None:
                estimated.append((charge, key, cost))
            elif cost:
                wanted[key] = wanted.get(key, 0) + cost
        return wanted, estimated

    async def _decide(self, asked: Asked) -> Admission:
        wanted, estimated = self._charged(asked)
        if not wanted and not estimated:
            return _FREE
        mesh, timeout_s = self.mesh(), self._timeout_s
        reserved: list[tuple[Charge, Reservation]] = []
        admission = Admission(mesh=mesh, reserved=reserved)
        is_admitted = False
        decisions: list[Decision] = []
        try:
            for charge, key, estimate in estimated:
                reservation = await mesh.reserve_confirmed(
                    key, estimate=estimate, lease_s=charge.lease_s, timeout_s=timeout_s
                )
                if not reservation:
                    return _over(reservation.decision)
                reserved.append((charge, reservation))
                decisions.append(reservation.decision)
            # These last: they are refused without a trace, and a reservation is given back.
            if wanted:
                decisions.append(await mesh.acquire_many_confirmed(wanted, timeout_s=timeout_s))
                if not decisions[-1]:
                    return _over(decisions[-1])
            is_admitted = True
        finally:
            if not is_admitted:
                admission.give_back()
        admission.decision = min(decisions, key=_left)
        return admission

    def failed(self, error: MeshError) -> Admission:
        """Do with a request what is to be done when the node cannot decide on it."""
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            is_open = self._on_failure is OnFailure.OPEN
            what = "pass uncounted" if is_open else "are answered 503"
            # A key may hold what is nobody's business, and is not logged.
            why = "no limit is set for a key" if isinstance(error, UnknownKeyError) else error
            _logger.warning("no decision can be made, and requests %s: %s", what, why)
        if self._on_failure is OnFailure.OPEN:
            return _FREE
        retry_after_s = error.retry_after_s if isinstance(error, NotReadyError) else RETRY_AFTER_S
        message = "rate limits cannot be decided now"  # which keys there are is not told
        return Admission(refusal=refused(503, message, retry_after_s=retry_after_s))


def _left(decision: Decision) -> float:
    return decision.remaining if decision.limit else float("inf")


def _over(decision: Decision) -> Admission:
    message = f"over the limit of {decision.policy}" if decision.policy else "over the limit"
    return Admission(decision, refused(429, message, decision=decision))
