"""Slots that a node uses, and those who wait here for some.

Rule: a slot is given out under a lease of the key's owner, or is not called confirmed. From the
moment a report is sent, a node uses no more than the report said it does until it is answered.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field

from meshlib.errors import InvalidFieldError, InvalidTypeError
from meshlib.invariants import require
from meshlib.limits import RATE_KEY_BYTES_MAX, RATE_KEYS_MAX, RATE_WAITING_MAX, SLOTS_MAX
from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.leases.holder import Ticket
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.records import Decision
from meshlib.ratelimit.slots.owning import SLOT_LEASE_S
from meshlib.ratelimit.slots.wire import SlotGrant, SlotReport

__all__ = ["ConcurrencySlot", "HeldSlots", "SlotHolder", "SlotTicket", "check_slot_request"]

RENEW_S: Final = SLOT_LEASE_S / 4
"""How often a node reports what it uses while nothing changes."""

RETURN_S: Final = 0.02
"""After so long without a use a slot is given back: the next request here may want it."""

RETRY_S: Final = (0.02, 0.4)
"""The first and the longest pause before a report that was not answered is made anew."""

WAIT_S_MAX: Final = 86_400.0

FULL_RETRY_S: Final = 0.5
"""When to come back where all slots are used: nobody knows how long requests take."""


@define(slots=True, eq=False)
class ConcurrencySlot:
    """One request's place. `lapse` says under which of the node's leases it was given."""

    key: str
    lapse: int
    is_released: bool = False


@define(slots=True, eq=False, kw_only=True)
class SlotTicket(Ticket):
    """A request that waits for a slot, or has it.

    Args:
        asked_at: when it came, in monotonic seconds.
        is_patient: whether it waits while all slots are used, and not only for the owner's word.
        slot: its place, once it is decided and admitted.
    """

    asked_at: float
    is_patient: bool = False
    slot: ConcurrencySlot | None = None


@define(slots=True, eq=False)
class HeldSlots:
    """One key on this node.

    Args:
        key: its name.
        limit: slots of the whole cluster.
        in_use: slots that requests have here.
        allowed: how many they may have while the lease runs.
        dropped: slots of the last report that were given back since, and may not be used again:
            given out without an owner's word, under a lease that ended, or wanted by others.
        lease_until: when it ends, in monotonic seconds.
        lapse: how many leases have ended here before they were renewed.
        used: slots that are granted on all nodes, as heard last.
        heard_at: when the owner answered last.
        closed_until: until when the owner grants nothing.
        is_contended: whether other nodes waited for slots, as heard last.
        wanted: how many of those that wait the owner was told of and has not served.
        number: of the last report.
        sent_at: when it was sent.
        is_answered: whether it was answered.
        pause_s: until it is made anew.
        due_at: when the next one is.
        queue: who waits.
    """

    key: str
    limit: int
    in_use: int = 0
    allowed: int = 0
    dropped: int = 0
    lease_until: float = -math.inf
    lapse: int = 0
    used: int = 0
    heard_at: float = -math.inf
    closed_until: float = -math.inf
    is_contended: bool = False
    wanted: int = 0
    number: int = 0
    sent_at: float = -math.inf
    is_answered: bool = True
    pause_s: float = RETRY_S[0]
    due_at: float = math.inf
    queue: deque[SlotTicket] = field(factory=deque)

    @property
    def has_line(self) -> bool:
        """Whether somebody waits here for whom there was no slot."""
        return (
            bool(self.queue)
            and self.queue[0].is_patient
            and (self.heard_at >= self.queue[0].asked_at)
        )

    @property
    def wants_more(self) -> bool:
        """Whether more wait than the owner was told of. More than there are slots is no news."""
        return self.wanted < min(len(self.queue), self.limit)

    def enter(self, now: float) -> None:
        """Take note of a lease that has ended: what is used under it is vouched for no more."""
        if self.allowed and now >= self.lease_until:
            self.allowed = 0
            self.lapse += 1

    def decision(self, *, is_allowed: bool, is_confirmed: bool, now: float) -> Decision:
        """Return what is told to a request."""
        left = max(0, self.limit - max(self.used, self.in_use))
        retry_s = 0.0 if is_allowed else max(FULL_RETRY_S, self.closed_until - now)
        return Decision(
            is_allowed, self.limit, left, retry_s, 0.0, f"{self.limit} at once", is_confirmed
        )


def check_slot_request(key: object, limit: object, wait_s: object) -> None:
    """Refuse what cannot be asked for; as `RateLimiter.ask_slot` says."""
    if not isinstance(key, str):
        raise InvalidTypeError(f"key must be text, not {type(key).__name__}")
    if type(limit) is not int:
        raise InvalidTypeError(f"limit must be an integer, not {type(limit).__name__}")
    if isinstance(wait_s, bool) or not isinstance(wait_s, int | float):
        raise InvalidTypeError(f"wait_s must be a number, not {type(wait_s).__name__}")
    size = len(key.encode("utf-8", "replace"))
    is_text = all(not "\ud800" <= character <= "\udfff" for character in key)
    if not (is_text and 1 <= size <= RATE_KEY_BYTES_MAX):
        raise InvalidFieldError("key", f"must be text of 1 to {RATE_KEY_BYTES_MAX:,} bytes")
    if not 1 <= limit <= SLOTS_MAX:
        raise InvalidFieldError("limit", f"must be 1 to {SLOTS_MAX:,}, got {limit}")
    if not 0 <= wait_s <= WAIT_S_MAX:
        raise InvalidFieldError("wait_s", f"must be 0 to 86,400 seconds, got {wait_s}")


class SlotHolder:
    """The holder's side of the slots of one node.

    Args:
        config: the limiter's settings.
        view: the members as this node sees them.
        tell: takes tickets that were decided after `ask` had returned.
    """

    def __init__(
        self, config: RateLimitConfig, *, view: View, tell: Callable[[SlotTicket], None]
    ) -> None:
        self._config = config
        self._view = view
        self._tell = tell
        self._keys: dict[str, HeldSlots] = {}
        self._dues: list[tuple[float, int, HeldSlots]] = []
        self._deadlines: list[tuple[float, int, SlotTicket]] = []
        self._order = itertools.count()
        self._number = 0
        self._trip_s = 0.0

    def held(self, key: str) -> HeldSlots | None:
        """Return what this node holds of a key; None when it uses and wants nothing of it."""
        return self._keys.get(key)

    def ask(self, key: str, *, limit: int, wait_s: float, now: float) -> SlotTicket:
        """Ask for a slot; the ticket has a decision at once, or is told of later. O(1).

        Args:
            key: the slots' key.
            limit: slots of the whole cluster.
            wait_s: seconds to wait while all are used; 0: only for the owner's word.
            now: monotonic seconds.
        """
        is_patient = wait_s > 0
        expires_at = now + (wait_s if is_patient else self._config.confirm_timeout_s)
        ticket = SlotTicket(key, 1, expires_at, asked_at=now, is_patient=is_patient)
        held = self._keys.get(key)
        if held is None and len(self._keys) >= RATE_KEYS_MAX:
            ticket.decision = HeldSlots(key, limit).decision(
                is_allowed=False, is_confirmed=False, now=now
            )
            return ticket
        if held is None:
            held = self._keys[key] = HeldSlots(key, limit)
        held.limit = limit
        held.enter(now)
        if not held.queue and held.in_use < held.allowed:
            self._admit(held, ticket, is_confirmed=True, now=now)
        elif not is_patient and held.has_line:
            self._refuse(held, ticket, is_confirmed=True, now=now)
        elif len(held.queue) >= RATE_WAITING_MAX:
            ticket.decision = held.decision(is_allowed=False, is_confirmed=False, now=now)
        else:
            ticket.is_awaited = True
            held.queue.append(ticket)
            heapq.heappush(self._deadlines, (ticket.expires_at, next(self._order), ticket))
            if held.is_answered and held.wants_more:
                self._due(held, now)
        return ticket

    def _admit(
        self, held: HeldSlots, ticket: SlotTicket, *, is_confirmed: bool, now: float
    ) -> None:
        held.in_use += 1
        held.wanted = max(0, held.wanted - ticket.is_awaited)
        ticket.slot = ConcurrencySlot(held.key, held.lapse if is_confirmed else -1)
        ticket.decision = held.decision(is_allowed=True, is_confirmed=is_confirmed, now=now)
        if ticket.is_awaited:
            self._tell(ticket)

    def _refuse(
        self, held: HeldSlots, ticket: SlotTicket, *, is_confirmed: bool, now: float
    ) -> None:
        ticket.decision = held.decision(is_allowed=False, is_confirmed=is_confirmed, now=now)
        if ticket.is_awaited:
            self._tell(ticket)

    def release(self, slot: ConcurrencySlot, now: float) -> None:
        """Give a slot back: to who waits here, or to the owner. A second time does nothing."""
        if slot.is_released:
            return
        slot.is_released = True
        held = self._keys[slot.key]
        held.in_use -= 1
        held.enter(now)
        if slot.lapse != held.lapse or held.is_contended:
            # The owner counts it, and may have granted it to somebody else before; or it is for
            # the owner to say whose turn it is.
            held.dropped += 1
            held.allowed = max(0, held.allowed - 1)
        self._serve(held, now)
        if not held.is_answered:
            return  # what is on its way is waited for, and the next report tells of this
        if held.is_contended:
            self._due(held, now)
        elif held.in_use < held.allowed or not held.in_use:
            self._due(held, min(held.due_at, now + RETURN_S))

    def withdraw(self, ticket: SlotTicket, now: float) -> None:
        """Take back a request that nobody waits for any more, and what it was given meanwhile."""
        if ticket.slot is not None:
            self.release(ticket.slot, now)
        elif ticket.decision is None:
            held = self._keys[ticket.key]
            held.queue.remove(ticket)
            ticket.decision = held.decision(is_allowed=False, is_confirmed=False, now=now)

    def _serve(self, held: HeldSlots, now: float) -> None:
        while held.queue and held.in_use < held.allowed:
            self._admit(held, held.queue.popleft(), is_confirmed=True, now=now)

    # Reports

    def set_view(self, view: View, now: float) -> None:
        """Take the members as they are now: keys that have another owner are reported to it."""
        former, self._view = self._view, view
        if former.view_id != view.view_id:
            for held in self._keys.values():
                if former.owner(held.key) != view.owner(held.key):
                    held.pause_s = RETRY_S[0]
                    self._due(held, now)

    def _due(self, held: HeldSlots, at: float) -> None:
        held.due_at = at
        heapq.heappush(self._dues, (at, next(self._order), held))

    def next_deadline(self) -> float:
        """Return when `tick` is due, in monotonic seconds; infinity when it is not."""
        while self._dues and self._dues[0][2].due_at != self._dues[0][0]:
            heapq.heappop(self._dues)
        while self._deadlines and self._deadlines[0][2].decision is not None:
            heapq.heappop(self._deadlines)
        report_at = self._dues[0][0] if self._dues else math.inf
        if self._deadlines and self._deadlines[0][0] < report_at:
            return self._deadlines[0][0]
        return report_at

    def tick(self, now: float) -> dict[str, list[SlotReport]]:
        """Answer who has waited long enough; return what is to be reported, by owner."""
        self._expire(now)
        reports: dict[str, list[SlotReport]] = {}
        while self._dues and self._dues[0][0] <= now:
            at, _, held = heapq.heappop(self._dues)
            if held.due_at == at and self._keys.get(held.key) is held:
                owner = self._view.owner(held.key)
                reports.setdefault(owner, []).append(self._report(held, now))
        return reports

    def _report(self, held: HeldSlots, now: float) -> SlotReport:
        held.enter(now)
        self._number += 1
        # Only the last report is answered to: it is made anew when no answer can be on its way.
        least_s = max(RETRY_S[0], 2 * self._trip_s)
        held.pause_s = least_s if held.is_answered else min(2 * held.pause_s, RETRY_S[1])
        held.number, held.sent_at, held.is_answered = self._number, now, False
        held.dropped = 0
        # The owner may take this for all that is used here, once it has it.
        held.allowed = min(held.allowed, held.in_use)
        self._due(held, now + held.pause_s)
        held.wanted = min(len(held.queue), held.limit)
        return SlotReport(held.key, held.number, held.limit, held.in_use, held.wanted)

    def hear(self, sender: str, grant: SlotGrant, now: float) -> None:
        """Take an owner's answer to the last report. O(who waits)."""
        held = self._keys.get(grant.key)
        is_new = held is not None and grant.number == held.number
        if held is None or not is_new or sender != self._view.owner(grant.key):
            return
        held.enter(now)
        lease_until = held.sent_at + SLOT_LEASE_S
        if now >= lease_until:
            return  # it came too late to be used
        if not held.is_answered:
            self._trip_s += (min(now - held.sent_at, RETRY_S[1] / 2) - self._trip_s) / 8
        # The owner may say more of one report later, and the network may turn that round.
        total = max(0, grant.total - held.dropped)
        held.allowed = max(held.allowed, total) if held.is_answered else total
        held.lease_until = lease_until
        held.used, held.heard_at = grant.used, now
        held.closed_until = now + grant.closed_s
        held.is_contended = grant.is_contended
        held.is_answered = True
        self._serve(held, now)
        if grant.closed_s:
            self._be_patient(held)
        else:
            for ticket in [
                t for t in held.queue if not t.is_patient and t.asked_at <= held.sent_at
            ]:
                held.queue.remove(ticket)
                self._refuse(held, ticket, is_confirmed=True, now=now)
        self._plan(held, now)

    def _be_patient(self, held: HeldSlots) -> None:
        """Let those who would be refused first wait for the owner: it grants some soon."""
        until = held.closed_until + self._config.confirm_timeout_s
        for ticket in held.queue:
            if ticket.expires_at < until:
                ticket.expires_at = until
                heapq.heappush(self._deadlines, (until, next(self._order), ticket))

    def _plan(self, held: HeldSlots, now: float) -> None:
        """Decide when the next report is due, after one was answered."""
        if held.dropped or held.wants_more:
            self._due(held, now)
        elif held.in_use < held.allowed:
            self._due(held, now + RETURN_S)
        elif held.in_use or held.queue:
            self._due(held, held.sent_at + RENEW_S)
        else:
            del self._keys[held.key]
            held.due_at = math.inf

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, ticket = heapq.heappop(self._deadlines)
            if ticket.decision is not None or ticket.expires_at > now:
                continue
            held = self._keys[ticket.key]
            held.queue.remove(ticket)
            held.enter(now)
            if held.heard_at >= ticket.asked_at and now < held.heard_at + SLOT_LEASE_S:
                self._refuse(held, ticket, is_confirmed=True, now=now)
            elif held.in_use < self._share(held):
                self._admit(held, ticket, is_confirmed=False, now=now)
            else:
                self._refuse(held, ticket, is_confirmed=False, now=now)

    def _share(self, held: HeldSlots) -> int:
        """Return how many slots a node that reaches no owner uses."""
        mode = self._config.partition_mode
        if mode is PartitionMode.OPEN:
            return held.limit
        return held.limit // self._view.member_count if mode is PartitionMode.STATIC else 0

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps: views of live state. O(1)."""
        return {"keys": self._keys, "view": self._view}

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(keys)."""
        require(self, len(self._keys) <= RATE_KEYS_MAX, "more keys than are kept")
        for key, held in self._keys.items():
            require(self, held.in_use >= 0, f"less than no slot of {key!r} is used")
            is_due = held.due_at < math.inf
            require(self, is_due, f"nobody would hear of {key!r} again")
            is_idle = not held.queue or held.in_use >= held.allowed
            require(self, is_idle, f"somebody waits for {key!r} while there is a slot")
