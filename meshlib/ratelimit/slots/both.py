"""One node's slots: both sides, and what is sent for them.

Rule: a node that owns a key itself reports to itself, by the same rules and without a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshlib.identity import ActorId
from meshlib.ratelimit.config import RateLimitConfig
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.leases.wire import batches
from meshlib.ratelimit.records import RateMessage
from meshlib.ratelimit.slots.holding import SlotHolder, SlotTicket
from meshlib.ratelimit.slots.owning import Granted, SlotOwner
from meshlib.ratelimit.slots.wire import (
    GRANT_DOCUMENT,
    REPORT_DOCUMENT,
    Grants,
    Report,
    SlotGrant,
    SlotReport,
)

__all__ = ["ClusterSlots"]

ROUNDS_PER_TICK_MAX = 8
"""How often a tick looks whether an answer of this node to itself has made something due."""


class ClusterSlots:
    """The slots of one node: those it holds, and those it grants as an owner.

    Args:
        name: this node.
        actor: this node, in this start.
        config: the limiter's settings.
        view: the members as this node sees them.
        decides_since: as for `SlotOwner`.
        tell: as for `SlotHolder`.
    """

    def __init__(
        self,
        name: str,
        *,
        actor: ActorId,
        config: RateLimitConfig,
        view: View,
        decides_since: Callable[[str, float], tuple[float, bool] | None],
        tell: Callable[[SlotTicket], None],
    ) -> None:
        self.holder = SlotHolder(config, view=view, tell=tell)
        self.owner = SlotOwner(decides_since)
        self._name = name
        self._actor = actor

    def next_deadline(self) -> float:
        """Return when `tick` is due, in monotonic seconds; infinity when it is not."""
        due_at, other_at = self.holder.next_deadline(), self.owner.next_deadline()
        if other_at < due_at:
            due_at = other_at
        return due_at

    def tick(self, now: float) -> list[RateMessage]:
        """Do what is due; return what is to be sent."""
        messages: list[RateMessage] = []
        for _ in range(ROUNDS_PER_TICK_MAX):
            if now < self.next_deadline():
                break
            messages += self._answers(self.owner.tick(now), now)
            for owner, parts in self.holder.tick(now).items():
                if owner == self._name:
                    messages += self._report(self._name, self._actor, parts, now)
                    continue
                for batch in batches(parts):
                    payload = Report(self._actor, batch).encode()
                    messages.append(RateMessage((owner,), REPORT_DOCUMENT, payload))
        return messages

    def receive_report(self, sender: str, report: Report, now: float) -> list[RateMessage]:
        """Take what another node uses and wants; return what to answer."""
        return self._report(sender, report.actor, report.parts, now)

    def receive_grants(self, sender: str, grants: Grants, now: float) -> None:
        """Take what an owner answers."""
        if grants.asker == self._actor:
            for part in grants.parts:
                self.holder.hear(sender, part, now)

    def _report(
        self, name: str, actor: ActorId, parts: Iterable[SlotReport], now: float
    ) -> list[RateMessage]:
        granted = [grant for part in parts for grant in self.owner.report(name, actor, part, now)]
        return self._answers(granted, now)

    def _answers(self, granted: Iterable[Granted], now: float) -> list[RateMessage]:
        by_node: dict[tuple[str, ActorId], list[SlotGrant]] = {}
        for name, actor, grant in granted:
            by_node.setdefault((name, actor), []).append(grant)
        messages = []
        for (name, actor), parts in by_node.items():
            for batch in batches(parts):
                grants = Grants(self._actor, actor, batch)
                if name == self._name:
                    self.receive_grants(name, grants, now)
                else:
                    messages.append(RateMessage((name,), GRANT_DOCUMENT, grants.encode()))
        return messages

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(keys)."""
        self.holder._check()  # noqa: SLF001 - invariants reach inside on purpose
        self.owner._check()  # noqa: SLF001
