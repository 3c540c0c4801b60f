"""What a request is charged: decided before it is served, and settled when it is over.

Rule: a request passes all that it is charged for, or nothing of it is counted; what was reserved
for it is settled, and what it holds given back, once and however it ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, MutableMapping, Sequence
from enum import StrEnum
from typing import Any, Final

from attrs import define, field

from meshlib import Decision, MeshRuntime
from meshlib.aio import HeldSlot
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
from meshlib_server.middleware.charges import Answer, Asked, Charge
from meshlib_server.middleware.headers import Refusal, rate_limit_headers, refused

__all__ = ["Admission", "Charging", "MeshSource", "OnFailure", "tell_used"]

UNITS_MAX: Final = 2**53

RETRY_AFTER_S: Final = 1.0
"""When to come back where nothing could be decided and no error says when it can be."""

LOG_EVERY_S: Final = 10.0
"""How often it is logged at most that nothing could be decided."""

_ADMISSIONS: Final = "meshlib.admissions"
"""Where a request's admissions are kept, in its ASGI scope or its WSGI environment."""

_logger = logging.getLogger(__name__)

MeshSource = MeshRuntime | Callable[[], MeshRuntime | None]
"""A running node, or what returns it once there is one."""


class OnFailure(StrEnum):
    """What is done with a request when the node cannot decide on it."""

    CLOSED = "closed"
    """503, and when to come back."""

    OPEN = "open"
    """It passes, and is not counted."""


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
        slots: what is held until the answer has ended.
        told: units as the application told them, by key; under None those of all.
    """

    decision: Decision | None = None
    refusal: Refusal | None = None
    mesh: MeshRuntime | None = None
    reserved: Sequence[tuple[Charge, Reservation]] = ()
    slots: Sequence[HeldSlot] = ()
    told: dict[str | None, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to do when the answer is over."""
        return bool(self.reserved or self.slots)

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
        """Give slots back and count what was really used; a second call does nothing.

        Args:
            answer: what went out.

        Raises:
            InvalidFieldError, InvalidTypeError: units that cannot be: of whoever told them.
        """
        self._release()
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
        """Take back what was reserved and held for a request that does not pass."""
        self._release()
        reserved, self.reserved = self.reserved, ()
        for _, reservation in reserved:
            self._settle_one(reservation, 0)

    def _release(self) -> None:
        slots, self.slots = self.slots, ()
        for slot in slots:
            slot.release()

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


@define(slots=True)
class _Charged:
    """What one request is charged.

    Args:
        wanted: units by key.
        estimated: what is settled later.
        slots: key, how many there are, and for how long it waits for one.
    """

    wanted: dict[str, int] = field(factory=dict)
    estimated: list[tuple[Charge, str, int]] = field(factory=list)
    slots: list[tuple[str, int, float]] = field(factory=list)


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
        is_simple = len(charges) == 1 and charges[0].actual is None and charges[0].slots is None
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

    def _charged(self, asked: Asked) -> _Charged:
        """Return what a request is charged."""
        charged = _Charged()
        wanted, estimated = charged.wanted, charged.estimated
        for charge in self._charges:
            key = charge.key(asked)
            if key is None:
                continue
            if charge.slots is not None:
                slots = charge.slots if isinstance(charge.slots, int) else charge.slots(asked)
                if slots:
                    charged.slots.append((key, slots, charge.wait_s))
                continue
            cost = charge.cost if isinstance(charge.cost, int) else charge.cost(asked)
            if cost and charge.actual is not None:
                estimated.append((charge, key, cost))
            elif cost:
                wanted[key] = wanted.get(key, 0) + cost
        charged.slots.sort()  # all requests wait for them in one order, so none for each other
        return charged

    async def _decide(self, asked: Asked) -> Admission:
        charged = self._charged(asked)
        wanted, estimated = charged.wanted, charged.estimated
        if not wanted and not estimated and not charged.slots:
            return _FREE
        mesh, timeout_s = self.mesh(), self._timeout_s
        reserved: list[tuple[Charge, Reservation]] = []
        held: list[HeldSlot] = []
        admission = Admission(mesh=mesh, reserved=reserved, slots=held)
        is_admitted = False
        decisions: list[Decision] = []
        try:
            # These first: what is counted is counted when the request begins, and not while it
            # waits for its turn.
            for key, slots, wait_s in charged.slots:
                ticket = await mesh.acquire_slot(key, limit=slots, timeout_s=wait_s)
                slot = HeldSlot(mesh, ticket)
                if not slot:
                    return _over(slot.decision)
                held.append(slot)
                decisions.append(slot.decision)
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
