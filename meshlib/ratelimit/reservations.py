"""Units of which it is known only later how many they are: reserved first, and settled then.

Rule: an estimate is counted when it is reserved; settling counts the difference, once.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from attrs import frozen

from meshlib.errors import InvalidFieldError, InvalidTypeError, LocalError, UnknownKeyError
from meshlib.limits import RATE_RESERVATIONS_MAX
from meshlib.ratelimit.leases.holder import HeldKey, Ticket, TicketGroup
from meshlib.ratelimit.lines import LimitLines
from meshlib.ratelimit.records import Decision, Reservation
from meshlib.state import LIMIT_PER_SECOND_MAX

__all__ = ["LimitReservations"]

LEASE_S_MAX: Final = 86_400.0

Parts = tuple[tuple[str, int, float], ...]
"""Of each limit: what it is counted under, the window, and when that ends by this node's clock."""


@frozen(slots=True)
class _Open:
    key: str
    estimate: int
    parts: Parts
    expires_at: float


class LimitReservations(LimitLines):
    """The verbs of a limiter for what is reserved; see `LeaseAsker` for what it is made with."""

    def _begin_reservations(self) -> None:
        self._reserved: OrderedDict[str, _Open] = OrderedDict()
        self._reserved_count = 0

    def reserve(
        self, key: str, *, estimate: int, lease_s: float = 600.0, now: float
    ) -> Reservation:
        """Count an estimate at once, as `acquire` does, to be settled later. Never waits.

        Args:
            key: the rate-limit key.
            estimate: units, 1 to the limit.
            lease_s: seconds after which it stays at its estimate, 1 to 86,400.
            now: monotonic seconds.

        Raises:
            LocalError, DecodeError: as `acquire`, or a lease that cannot be. Nothing is counted.
        """
        now = self._enter(now)
        _check_lease(lease_s)
        wanted = dict.fromkeys(self._plan_for(key, estimate, now), estimate)
        decision, decisions = self._acquire_all(wanted, now)
        return self._open_reservation(key, estimate, decision, decisions, lease_s, now)

    def ask_reservation(
        self,
        key: str,
        *,
        estimate: int,
        lease_s: float = 600.0,
        timeout_s: float | None = None,
        now: float,
    ) -> Ticket:
        """Ask the cluster for an estimate, as `ask` does, to be settled later.

        Args:
            key: the rate-limit key.
            estimate: units, 1 to the limit.
            lease_s: seconds after which it stays at its estimate, 1 to 86,400.
            timeout_s: as for `ask`.
            now: monotonic seconds.

        Returns:
            A ticket; with its decision comes its `reservation`.

        Raises:
            LocalError, DecodeError: as `ask`, or a lease that cannot be. Nothing is counted.
        """
        now = self._enter(now)
        _check_lease(lease_s)
        wanted = dict.fromkeys(self._plan_for(key, estimate, now), estimate)
        wait_s = self._wait_s(timeout_s, now)
        return self._ask_all(key, wanted, wait_s, now, lease_s=lease_s).ticket

    def settle(self, reservation: Reservation | str, *, actual: int, now: float) -> None:
        """Count what was really used in the place of an estimate.

        What is less is given back, in windows that still run. What is more is counted beyond the
        limit too: as debt, which later windows pay first; at most once the limit.

        Args:
            reservation: as `reserve` returned it, or its id; of this node.
            actual: units, 0 to 2**53.
            now: monotonic seconds.

        Raises:
            UnknownKeyError: it is none of this node, was settled, or its lease has ended.
            InvalidFieldError, InvalidTypeError: units that cannot be. Nothing is counted.
        """
        now = self._enter(now)
        _check_actual(actual)
        name = reservation.reservation_id if isinstance(reservation, Reservation) else reservation
        if not isinstance(name, str):
            raise InvalidTypeError(f"reservation must be one, not {type(name).__name__}")
        self._drop_ended(now)
        opened = self._reserved.get(name)
        if opened is None or now >= opened.expires_at:
            raise UnknownKeyError("reservation", name)
        del self._reserved[name]
        for slot_key, window, ends_at in opened.parts:
            try:
                tracked = self._track(slot_key, now)
                self._look(tracked, now)
            except LocalError:
                continue  # there is no such limit any more
            if tracked.limit:
                self._settle_part(tracked, opened.estimate - actual, window, ends_at, now)

    def _settle_part(
        self, tracked: HeldKey, unused: int, window: int, ends_at: float, now: float
    ) -> None:
        tracked.last_at = now
        if unused < 0:
            self._overuse(tracked, min(-unused, tracked.limit), now)
        elif unused and window >= 0:
            self._give_units_back(tracked, unused, window, now)
        elif unused and now < ends_at:
            self._give_units_back(tracked, unused, None, now)

    def _overuse(self, tracked: HeldKey, units: int, now: float) -> None:
        """Count units whether there is room for them or not."""
        if tracked.terms is not None and tracked.terms.is_window and now < tracked.held_until:
            held = min(units, tracked.held)
            tracked.take(held, now)
            units -= held
        if units:
            tracked.credit_total += units
            tracked.admitted_count += units
            self._question(tracked, now, is_for_statistics=True)

    def _open_reservation(
        self,
        key: str,
        estimate: int,
        decision: Decision,
        decisions: list[tuple[HeldKey, Decision]],
        lease_s: float,
        now: float,
    ) -> Reservation:
        if not decision:
            return Reservation("", key, estimate, decision)
        self._drop_ended(now)
        while len(self._reserved) >= RATE_RESERVATIONS_MAX:
            self._reserved.popitem(last=False)  # it stays at its estimate
        self._reserved_count += 1
        name = f"{self._actor.hex()}-{self._reserved_count}"
        parts = tuple(
            (tracked.key, admitted.window, now + self._left_s(tracked, now))
            for tracked, admitted in decisions
        )
        self._reserved[name] = _Open(key, estimate, parts, now + lease_s)
        return Reservation(name, key, estimate, decision)

    def _drop_ended(self, now: float) -> None:
        """Forget the oldest reservations whose leases have ended."""
        while self._reserved:
            name, oldest = next(iter(self._reserved.items()))
            if now < oldest.expires_at:
                return
            del self._reserved[name]

    def _settle_group(self, group: TicketGroup) -> None:
        super()._settle_group(group)
        ticket = group.ticket
        if group.lease_s is not None and ticket.decision is not None:
            decisions = [(tracked, part.decision) for tracked, part in group.parts]
            ticket.reservation = self._open_reservation(
                ticket.key,
                ticket.cost,
                ticket.decision,
                [(tracked, decision) for tracked, decision in decisions if decision is not None],
                group.lease_s,
                self._now,
            )


def _check_lease(lease_s: object) -> None:
    if isinstance(lease_s, bool) or not isinstance(lease_s, int | float):
        raise InvalidTypeError(f"lease_s must be a number, not {type(lease_s).__name__}")
    if not 1 <= lease_s <= LEASE_S_MAX:
        raise InvalidFieldError("lease_s", f"must be 1 to 86,400 seconds, got {lease_s}")


def _check_actual(actual: object) -> None:
    if isinstance(actual, float) and not math.isfinite(actual):
        raise InvalidFieldError("actual", f"must be a whole number, got {actual}")
    if isinstance(actual, bool) or not isinstance(actual, int):
        raise InvalidTypeError(f"actual must be an integer, not {type(actual).__name__}")
    if not 0 <= actual <= LIMIT_PER_SECOND_MAX:
        raise InvalidFieldError("actual", f"must be 0 to 2**53, got {actual}")
