"""The rate limiter of one node: decisions from what is held, and words of the owners.

Each key has an owner, found on a hash ring over the members in reach. A node admits from units
that the owner has granted it, and the owner grants no more than the limit in any window.

Rule: the engine's contract holds here too. Time and messages are arguments and results; nothing
here sends, sleeps or calls back, but for one hook that says "there is something to send".
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from meshlib.arguments import check_count
from meshlib.clock import MonotonicTime
from meshlib.errors import (
    DecodeError,
    MeshError,
    RejectReason,
    check_several,
)
from meshlib.identity import ActorId, actor_name_hash
from meshlib.invariants import require
from meshlib.ratelimit.config import RateLimitConfig
from meshlib.ratelimit.leases.asking import PATIENCE_S
from meshlib.ratelimit.leases.calls import (
    CALL_DOCUMENT,
    FAREWELL_DOCUMENT,
    VOTE_DOCUMENT,
    Call,
    Farewell,
    decode_vote,
)
from meshlib.ratelimit.leases.holder import HeldKey, Ticket
from meshlib.ratelimit.leases.kept.keeper import Keeper
from meshlib.ratelimit.leases.kept.messages import (
    KEEP_DOCUMENT,
    KEPT_DOCUMENT,
    RECALL_DOCUMENT,
    RECALLED_DOCUMENT,
    Keep,
    Kept,
    Recall,
    Recalled,
)
from meshlib.ratelimit.leases.owner import Settled
from meshlib.ratelimit.leases.questions import (
    ANSWER_DOCUMENT,
    QUESTION_DOCUMENT,
    Answers,
    Questions,
)
from meshlib.ratelimit.leases.timers import Due
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.records import KeyUse, LimitUsage, RateLimitStats, RateMessage
from meshlib.ratelimit.reservations import LimitReservations
from meshlib.ratelimit.settings import LimitSettings
from meshlib.ratelimit.slots.both import ClusterSlots
from meshlib.ratelimit.slots.holding import (
    ConcurrencySlot,
    HeldSlots,
    SlotTicket,
    check_slot_request,
)
from meshlib.ratelimit.slots.wire import GRANT_DOCUMENT, REPORT_DOCUMENT, Grants, Report

__all__ = ["RateLimiter"]

WATCH_INTERVAL_S: Final = 0.1
"""How old what is told of a limit's use may be, while somebody asks for it."""

ROUNDS_PER_TICK_MAX: Final = 16
"""How often a tick looks whether it has made something due; two or three times mostly."""

_UNLIMITED_STATS: Final = RateLimitStats(limit_per_second=0, current_count=0, remaining=-1)


class RateLimiter(LimitReservations):
    """Decides who may pass under limits that hold for the whole cluster.

    Args:
        name: this node's name.
        actor: this node in this start; numbers its questions together with their own numbers.
        limits: where the limits are kept.
        wall_clock: returns seconds since 1970; where this node owns a key, windows are its seconds.
        config: the settings.
        on_urgent: called when `next_deadline` is earlier than it was. Must not call back.
        read_time: takes each `now` that comes in and returns the time that it is, or raises a
            `LocalError`; by default `MonotonicTime.advance` of a clock of its own.
        now: monotonic seconds of the start: a node that has just started does not vote at once.
    """

    def __init__(
        self,
        name: str,
        *,
        actor: ActorId,
        limits: LimitSettings,
        wall_clock: Callable[[], float],
        config: RateLimitConfig | None = None,
        on_urgent: Callable[[], None] | None = None,
        read_time: Callable[[float], float] | None = None,
        now: float = 0.0,
    ) -> None:
        self.guard = None
        self.read_time = read_time or MonotonicTime().advance
        super().__init__(
            name,
            actor=actor,
            limits=limits,
            wall_clock=wall_clock,
            config=config if config is not None else RateLimitConfig(),
            on_urgent=on_urgent,
            now=now,
        )
        self._begin_lines()
        self._begin_reservations()
        self._slots = ClusterSlots(
            name,
            actor=actor,
            config=self.config,
            view=self._view,
            decides_since=self._owner.decides_since,
            tell=self._decided.append,
        )

    def stats(self, key: str, *, now: float) -> RateLimitStats:
        """Return what the whole cluster used of a limit in the current window.

        A node that does not own the key asks the owner from the first call on: the next one, a
        round trip later, is up to date.

        Args:
            key: the rate-limit key.
            now: monotonic seconds.

        Returns:
            of several limits that of which the least is left.

        Raises:
            InvalidTypeError: a key that is not text.
            InvalidFieldError: a key that no limit can be for.
            UnknownKeyError: no limit is set for the key. The global one is then unlimited.
            DecodeError: what is stored as the limit is none.
            ForeignClockError: as for `acquire`.
        """
        used = [usage for usage in self.usage(key, now=now) if usage.limit]
        if not used:
            return _UNLIMITED_STATS
        least = min(used, key=lambda usage: usage.remaining)
        return RateLimitStats(
            limit_per_second=least.limit,
            current_count=least.used_count,
            remaining=least.remaining,
        )

    def usage(self, key: str, *, now: float) -> list[LimitUsage]:
        """Return what the whole cluster used of each limit of a key; as `stats`.

        Args:
            key: the rate-limit key.
            now: monotonic seconds.

        Raises:
            LocalError, DecodeError: as `stats`.
        """
        now = self._enter(now)
        return [self._usage(tracked, now) for tracked in self._plan(key, now)]

    def _usage(self, tracked: HeldKey, now: float) -> LimitUsage:
        self._look(tracked, now)
        limit = tracked.limit
        if not limit:
            return LimitUsage("", 0, 0, -1, 0.0)
        if tracked.watched_until == -math.inf:
            self._timers.set(now + WATCH_INTERVAL_S, Due.WATCH, tracked, None)
            self._hurry()
        tracked.watched_until = now + self.config.watch_s
        if tracked.owner == self._name or now - tracked.heard_at >= WATCH_INTERVAL_S:
            self._question(tracked, now, is_for_statistics=True)
        used = tracked.used if now < tracked.used_until else 0
        if tracked.used_number == tracked.held_number:
            used = max(0, used - tracked.held)
        used += tracked.static_used if now < tracked.static_until else 0
        count = min(used, limit) if not tracked.static_used else used
        reset_s = tracked.reset_s(now) if used else 0.0
        return LimitUsage(tracked.policy, limit, count, max(0, limit - count), reset_s)

    def busiest(self, *, count: int = 20) -> list[KeyUse]:
        """Return the keys of which this node admitted or refused most, since it tracks them.

        O(keys); for people.

        Args:
            count: how many of either kind at most, at least 1.

        Raises:
            InvalidTypeError, InvalidValueError: a count that is none.
        """
        if self.guard is not None:
            self.guard()
        check_count("count", count, least=1)
        uses = [
            _use(tracked)
            for tracked in self._tracked.values()
            if tracked.admitted_count or tracked.refused_count
        ]
        most = heapq.nlargest(count, uses, key=lambda use: use.admitted_count)
        most += heapq.nlargest(count, uses, key=lambda use: use.refused_count)
        return list(dict.fromkeys(most))

    # Slots

    def ask_slot(self, key: str, *, limit: int, wait_s: float = 0.0, now: float) -> SlotTicket:
        """Ask for one of so many slots that requests of a key have at once, on all nodes.

        Args:
            key: any text but the empty one, 1,000 bytes at most; a key of rate limits is another.
            limit: slots of the whole cluster, 1 to 1,000,000; while nodes say different ones the
                lowest counts.
            wait_s: seconds to wait while all slots are used, to 86,400; 0: only for the owner's
                word, `RateLimitConfig.confirm_timeout_s` at most.
            now: monotonic seconds.

        Returns:
            A ticket. Its `decision` is there at once, or once `decided` has returned it; with an
            admission comes its `slot`, which is to be released.

        Raises:
            InvalidTypeError, InvalidFieldError: an argument that cannot be. Nothing was asked.
            ForeignClockError: as for `acquire`.
        """
        now = self._enter(now)
        check_slot_request(key, limit, wait_s)
        ticket = self._slots.holder.ask(key, limit=limit, wait_s=wait_s, now=now)
        self._hurry()
        return ticket

    def release_slot(self, slot: ConcurrencySlot, *, now: float) -> None:
        """Give a slot back; a second time does nothing. O(1).

        Args:
            slot: as a ticket has it.
            now: monotonic seconds.
        """
        self._slots.holder.release(slot, self._enter(now))
        self._hurry()

    def withdraw_slot(self, ticket: SlotTicket, *, now: float) -> None:
        """Take back a request for a slot that nobody waits for, or the slot that it was given."""
        self._slots.holder.withdraw(ticket, self._enter(now))
        self._hurry()

    def held_slots(self, key: str) -> HeldSlots | None:
        """Return what this node holds of a key of slots, for whoever looks on; None: nothing."""
        return self._slots.holder.held(key)

    @property
    def keeper(self) -> Keeper:
        """What this node keeps of long limits, for whoever stores it."""
        return self._owner.keeper

    # The driver's side

    def next_deadline(self) -> float | None:
        """Return when `tick` is due, in monotonic seconds, or None while nothing is."""
        due_at = self._outgoing_due_at
        for other_at in (
            self._timers.next_deadline(), self._owner.next_deadline(), self._slots.next_deadline()
        ):  # fmt: skip
            if other_at < due_at:
                due_at = other_at
        return None if due_at == math.inf else due_at

    def tick(self, now: float) -> list[RateMessage]:
        """Return what is to be sent by now. O(what is due).

        Args:
            now: monotonic seconds.

        Raises:
            ForeignClockError: as for `acquire`.
        """
        self._now = now = self.read_time(now)
        messages: list[RateMessage] = []
        for _ in range(ROUNDS_PER_TICK_MAX):
            # What is done for one key may make something due for another, or for its owner.
            called, settled = self._owner.tick(now)
            messages += called
            messages += self._answer(settled, now)
            messages += self._slots.tick(now)
            for _ in range(len(self._timers)):
                item = self._timers.pop(now)
                if item is None:
                    break
                due, tracked, token = item
                self._handle(due, tracked, token, now)
            if now >= self._outgoing_due_at:
                messages += self._questions(now)
            deadline = self.next_deadline()
            if deadline is None or deadline > now:
                break
        return messages

    def _handle(self, due: Due, tracked: Any, token: Any, now: float) -> None:
        if due is Due.LINE:
            self._advance(tracked, now)
        elif due is Due.DEADLINE:
            self._refuse_late(tracked, token, now)
        elif due is Due.TICKET:
            self._expire(tracked, token, now)
        elif due is Due.RETRY:
            self._retry(tracked, now)
        elif due is Due.IDLE:
            self._give_back(tracked, now)
        elif now >= tracked.watched_until:
            tracked.watched_until = -math.inf
        else:
            if now - tracked.heard_at >= WATCH_INTERVAL_S / 2:
                self._question(tracked, now, is_for_statistics=True)
            self._timers.set(now + WATCH_INTERVAL_S, Due.WATCH, tracked, None)

    def _expire(self, tracked: HeldKey, ticket: Ticket, now: float) -> None:
        """Answer a request that has waited long enough."""
        if ticket.is_look:
            ticket.decision = self._seen_here(tracked, ticket.cost, now)
        else:
            tracked.is_cut_off = tracked.under_way is not None
            ticket.decision = self._decide_alone(tracked, ticket.cost, now)
        self._tell([ticket])

    def receive_volatile(
        self, document: str, payload: bytes, *, sender: str, now: float
    ) -> list[RateMessage]:
        """Take a message of another node; return what to answer.

        Args:
            document: the volatile document it came for.
            payload: its bytes.
            sender: the name of the node that sent it, as its link or frame vouches.
            now: monotonic seconds.

        Raises:
            RemoteError: not what it should be.
            ForeignClockError: as for `acquire`. Nothing was changed.
        """
        self._now = now = self.read_time(now)
        if document == QUESTION_DOCUMENT:
            questions = Questions.decode(payload)
            _check_sender(questions.actor, sender)
            return self._receive_questions(sender, questions, now)
        if document == ANSWER_DOCUMENT:
            answers = Answers.decode(payload)
            _check_sender(answers.actor, sender)
            if answers.asker == self._actor:
                for part in answers.parts:
                    self._hear(sender, answers.epoch, part, now)
            return []
        if document in (KEEP_DOCUMENT, KEPT_DOCUMENT, RECALL_DOCUMENT, RECALLED_DOCUMENT):
            return self._receive_keeping(document, payload, sender, now)
        if document == CALL_DOCUMENT:
            call = Call.decode(payload)
            _check_sender(call.actor, sender)
            return self._owner.receive_call(sender, call, now)
        if document == VOTE_DOCUMENT:
            vote = decode_vote(payload)
            _check_sender(vote.actor, sender)
            return self._answer(self._owner.receive_vote(sender, vote, now), now)
        if document == REPORT_DOCUMENT:
            report = Report.decode(payload)
            _check_sender(report.actor, sender)
            return self._slots.receive_report(sender, report, now)
        if document == GRANT_DOCUMENT:
            grants = Grants.decode(payload)
            _check_sender(grants.actor, sender)
            self._slots.receive_grants(sender, grants, now)
            return []
        if document == FAREWELL_DOCUMENT:
            farewell = Farewell.decode(payload)
            _check_sender(farewell.actor, sender)
            self._owner.receive_farewell(sender, farewell, now)
            return []
        raise DecodeError(f"no volatile document {document!r}", reason=RejectReason.TYPE)

    def _receive_keeping(
        self, document: str, payload: bytes, sender: str, now: float
    ) -> list[RateMessage]:
        """Take what is said of ceilings; return what to answer."""
        owner = self._owner
        if document == KEEP_DOCUMENT:
            keep = Keep.decode(payload)
            _check_sender(keep.actor, sender)
            return owner.keeper.receive_keep(sender, keep, second=self._windows.read(now))
        if document == KEPT_DOCUMENT:
            kept = Kept.decode(payload)
            _check_sender(kept.actor, sender)
            return self._answer(owner.receive_kept(sender, kept, now), now)
        if document == RECALL_DOCUMENT:
            recall = Recall.decode(payload)
            _check_sender(recall.actor, sender)
            return owner.keeper.receive_recall(sender, recall)
        recalled = Recalled.decode(payload)
        _check_sender(recalled.actor, sender)
        second = self._windows.read(now)
        return owner.keeper.receive_recalled(sender, recalled, second=second, now=now)

    def _receive_questions(
        self, sender: str, questions: Questions, now: float
    ) -> list[RateMessage]:
        settled = []
        for part in questions.parts:
            answer = self._owner.ask(sender, questions.actor, part, now)
            if answer is not None:
                settled.append(Settled(sender, questions.actor, answer))
        return self._answer(settled, now)

    def update_members(
        self,
        names: Collection[str],
        *,
        has_quorum: bool = True,
        member_count: int | None = None,
        has_met: bool = True,
        is_ready: bool = True,
        now: float | None = None,
    ) -> None:
        """Take the members as they are now: who owns which key follows from them.

        Args:
            names: the members that take part, Alive or Suspected; this node always does.
            has_quorum: whether this node's side of the cluster reaches a majority.
            member_count: the members that a majority is one of, those out of reach included;
                None: those in reach, and without a majority no fewer than before.
            has_met: whether others were met, or there are none to meet; who has met nobody has
                its part at once.
            is_ready: whether this node knows enough of its cluster to decide or vote in it.
            now: monotonic seconds; None: as last given.

        Raises:
            InvalidTypeError: one text in place of the names. Nothing was changed.
        """
        check_several("the names of members", names)
        if now is not None:
            self._now = self.read_time(now)
        members = {self._name, *names}
        if member_count is None:
            known = 0 if has_quorum else self._view.member_count
            member_count = max(known, len(members))
        self._is_waiting = not has_met
        if self._patient_until is None and has_quorum and has_met and is_ready:
            votes_at = self._now + self.config.mandate_s + PATIENCE_S
            self._patient_until = max(votes_at, self._settled_at)
        view = View(members, member_count=member_count)
        is_same = view.view_id == self._view.view_id
        if is_same:
            self._view.member_count = view.member_count
        else:
            self._view = view
        self._owner.set_view(self._view, has_quorum=has_quorum, is_ready=is_ready, now=self._now)
        self._slots.holder.set_view(self._view, self._now)
        if not is_same:
            for tracked in list(self._asking.values()):
                try:
                    self._look(tracked, self._now)
                except MeshError:
                    continue  # it has no limit any more, and was dropped
        self._hurry()

    def leave(self, *, now: float) -> list[RateMessage]:
        """Stop deciding as an owner; return what hands on what was counted, and tells of credit."""
        self._now = now = self.read_time(now)
        return [*self._questions(now, is_all=True), *self._owner.leave()]

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps, for a person and for tests: views of live state. O(1)."""
        return {
            "view": self._view,
            "tracked": self._tracked,
            "asking": self._asking,
            "outgoing": self._outgoing,
            "owner": self._owner.diagnostics(),
            "slots": self._slots.holder.diagnostics(),
            "slots granted": self._slots.owner.diagnostics(),
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(keys)."""
        require(self, len(self._tracked) <= self.config.keys_max, "more keys than are tracked")
        for key, tracked in self._tracked.items():
            require(self, key == tracked.key, f"{key!r} is kept under another name")
            tracked._check()  # noqa: SLF001 - invariants reach inside on purpose
        for number, tracked in self._asking.items():
            is_asked = tracked.under_way is not None and tracked.under_way.part.number == number
            require(self, is_asked, f"question {number} is not under way for {tracked.key!r}")
        require(self, self._due.keys() == self._outgoing.keys(), "something waits for no time")
        self._owner._check()  # noqa: SLF001
        self._slots._check()  # noqa: SLF001
        self._check_lines()


def _use(tracked: HeldKey) -> KeyUse:
    key, _, mark = tracked.key.partition("\0")
    return KeyUse(key, mark, tracked.admitted_count, tracked.refused_count)


def _check_sender(actor: ActorId, sender: str) -> None:
    if actor[:8] != actor_name_hash(sender):
        raise DecodeError(f"{sender!r} speaks for another writer", reason=RejectReason.IDENTITY)
