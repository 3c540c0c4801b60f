"""What a node and the owners of its keys make of each other's messages.

Rule: who owns a key is decided in this file, and every report and answer passes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from meshlib.crdt import WindowCounter
from meshlib.errors import DecodeError, RejectReason
from meshlib.identity import ActorId, actor_name_hash
from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.messages import (
    ANSWER_DOCUMENT,
    REPORT_DOCUMENT,
    Answer,
    KeyAnswer,
    KeyReport,
    RateCounter,
    RateMessage,
    Report,
    batches,
)
from meshlib.ratelimit.store import RateLimitStore
from meshlib.ratelimit.tracking import OwnerView, TrackedKey
from meshlib.ring import ConsistentHashRing

__all__ = ["RateExchange"]

_ANSWERED_WINDOWS: Final = range(-1, 2)
"""The last, the current, and the next window: the clocks of two nodes may be one apart."""


class RateExchange:
    """This node as a reporter and as an owner.

    Args:
        name: this node's name.
        actor: the writer under which it counts.
        tracked: the keys that are tracked here, by key; a live view.
        config: the settings.
    """

    def __init__(
        self,
        name: str,
        *,
        actor: ActorId,
        tracked: Mapping[str, TrackedKey],
        config: RateLimitConfig,
    ) -> None:
        self.store = RateLimitStore(demand_ttl_s=config.demand_ttl_s)
        self.member_count = 1
        """Members that a limit is parted among while nothing else is known of a key."""
        self._name = name
        self._actor = actor
        self._tracked = tracked
        self._config = config
        self._members = {name}
        self._ring = ConsistentHashRing()
        self._ring_number = 0
        self._ring_built = -1
        self._has_quorum = True
        self._sequence = 0

    def update_members(
        self, names: Collection[str], *, has_quorum: bool, awaited_count: int
    ) -> None:
        """Take the live members; as `RateLimiter.update_members`."""
        members = {self._name, *names}
        self._has_quorum = has_quorum
        if has_quorum or self._config.partition_mode is PartitionMode.OPEN:
            self.member_count = len(members)
            self.store.keep_names(members)
        elif awaited_count > 1:
            self.member_count = max(len(members), awaited_count)
        if members == self._members:
            return
        self._members = members
        self._ring_number += 1
        for tracked in self._tracked.values():
            tracked.keep_views(members)

    def admitted_here(self, key: str, window: int) -> int:
        """Return what this node has admitted in a window, as far as it was recorded."""
        return self.store.admitted(key, window, by=self._actor)

    def admitted_elsewhere(self, tracked: TrackedKey, window: int) -> int:
        """Return what all other nodes have admitted in a window, as far as is known here."""
        known_as_owner = self.store.total(tracked.key, window, but=self._actor)
        return max(known_as_owner, tracked.others_admitted(window))

    def record(self, tracked: TrackedKey, now: float) -> WindowCounter:
        """Put what this node admitted into the store, and return it as a state."""
        bucket = tracked.bucket
        state = RateCounter()
        if bucket is None:
            return state
        counts = ((bucket.window - 1, bucket.admitted_before), (bucket.window, bucket.admitted))
        for window, count in counts:
            if count > 0:
                state.absorb(state.record(count, window=window, by=self._actor))
        self.store.absorb(tracked.key, state, window=bucket.window, now=now)
        return state

    def hold_to_mode(self, tracked: TrackedKey, now: float) -> None:
        """Let the partition mode decide of a new key from its first request on, where it does."""
        if not self._has_quorum:
            self.refresh(tracked, now)

    def refresh(self, tracked: TrackedKey, now: float) -> None:
        """Compute a key's share anew from all that is known."""
        self._find_owners(tracked)
        bucket = tracked.bucket
        own_view = None
        if bucket is not None and self._name in tracked.owners:
            demand, active_count = self.store.others_demand(tracked.key, but=self._name, now=now)
            admitted = self.store.total(tracked.key, bucket.window, but=self._actor)
            own_view = OwnerView(
                self._actor, 0, now, demand, active_count, {bucket.window: admitted}
            )
        tracked.refresh(
            now,
            own_view=own_view,
            is_isolated=not self._has_quorum,
            member_count=self.member_count,
            config=self._config,
        )

    def _find_owners(self, tracked: TrackedKey) -> None:
        if tracked.ring_number == self._ring_number:
            return
        if self._ring_built != self._ring_number:
            # Not before it is asked for: a thousand members stand at 150,000 points.
            self._ring.update(self._members)
            self._ring_built = self._ring_number
        owners = self._ring.owners(tracked.key, count=self._config.owner_count)
        tracked.ring_number = self._ring_number
        tracked.owners = owners
        tracked.others = tuple(owner for owner in owners if owner != self._name)
        if not tracked.others:
            tracked.asked_at = None

    def report(self, keys: Collection[TrackedKey], now: float) -> list[RateMessage]:
        """Return the reports of some keys to their owners, and compute their shares anew."""
        by_owner: dict[str, list[KeyReport]] = {}
        for tracked in keys:
            self._find_owners(tracked)
            demand = tracked.note_report(now)
            part = KeyReport(tracked.key, demand, self.record(tracked, now))
            for owner in tracked.others:
                by_owner.setdefault(owner, []).append(part)
            self.refresh(tracked, now)
        messages = []
        for owner in sorted(by_owner):
            for parts in batches(by_owner[owner]):
                self._sequence += 1
                payload = Report(self._actor, self._sequence, parts).encode()
                messages.append(RateMessage((owner,), REPORT_DOCUMENT, payload))
        return messages

    def receive(
        self,
        document: str,
        payload: bytes,
        *,
        sender: str,
        window_at: Callable[[], int],
        now: float,
    ) -> list[RateMessage]:
        """Take a message; as `RateLimiter.receive_volatile`."""
        if document == REPORT_DOCUMENT:
            report = Report.decode(payload)
            _check_sender(report.actor, sender)
            return self._receive_report(report, sender, window_at(), now)
        if document == ANSWER_DOCUMENT:
            answer = Answer.decode(payload)
            _check_sender(answer.actor, sender)
            self._receive_answer(answer, sender, now)
            return []
        raise DecodeError(f"no volatile document {document!r}", reason=RejectReason.TYPE)

    def _receive_report(
        self, report: Report, sender: str, window: int, now: float
    ) -> list[RateMessage]:
        answers = []
        for part in report.keys:
            self.store.absorb(part.key, part.counter, window=window, now=now)
            self.store.note_demand(
                part.key,
                sender,
                actor=report.actor,
                sequence=report.sequence,
                rate=part.demand,
                now=now,
            )
            answers.append(self._answer(part.key, report.actor, sender, window, now))
        self._sequence += 1
        payload = Answer(self._actor, self._sequence, tuple(answers)).encode()
        return [RateMessage((sender,), ANSWER_DOCUMENT, payload)]

    def _answer(self, key: str, actor: ActorId, sender: str, window: int, now: float) -> KeyAnswer:
        demand, active_count = self.store.others_demand(key, but=sender, now=now)
        tracked = self._tracked.get(key)
        if tracked is not None and tracked.bucket is not None:
            self.record(tracked, now)
            self.refresh(tracked, now)
            own = tracked.bucket.meter.rate(now)
            demand += own
            active_count += own > 0
        numbers = [window + offset for offset in _ANSWERED_WINDOWS if window + offset >= 0]
        admitted = tuple((number, self.store.total(key, number, but=actor)) for number in numbers)
        return KeyAnswer(key, demand, active_count, admitted)

    def _receive_answer(self, answer: Answer, sender: str, now: float) -> None:
        for part in answer.keys:
            tracked = self._tracked.get(part.key)
            if tracked is None:
                continue
            view = OwnerView(
                answer.actor,
                answer.sequence,
                now,
                part.others_demand,
                part.others_active,
                dict(part.others_admitted),
            )
            if tracked.take_view(sender, view):
                self.refresh(tracked, now)


def _check_sender(actor: ActorId, sender: str) -> None:
    if actor[:8] != actor_name_hash(sender):
        raise DecodeError(f"{sender!r} speaks for another writer", reason=RejectReason.IDENTITY)
