"""How membership news spreads: at once, then again for a few rounds in case it was lost.

Source: SWIM section 4.1 (infection-style dissemination). The number of repetitions grows with
`ln(n + 1)` and not in steps of log10, which leaves clusters just below a power of ten short.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from attrs import define

from meshlib.gossip.config import GossipConfig
from meshlib.gossip.messages.kinds import MemberNews, MemberUpdates
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.membership import MemberRecord, MemberStatus

__all__ = ["NEWS_PER_MESSAGE_MAX", "NewsSpreader"]

NEWS_PER_MESSAGE_MAX = 64
"""Pieces of news in one message: about 8 KiB."""

NOTICES = 10
"""How many nodes tell a suspected member of it themselves, beside those that spread it anyway."""


@define(slots=True)
class _Broadcast:
    """One piece of news and how often it is still to be sent."""

    news: MemberNews
    sends_left: int


class NewsSpreader:
    """Send news of members; the latest of each member replaces what was said before.

    Args:
        config: the settings.
        rng: whom it tells.
        view: knows who is in reach.
        timers: let it repeat.
        outbox: takes the news.
    """

    __slots__ = (
        "_broadcasts", "_config", "_is_gossip_armed", "_outbox", "_rng", "_timers", "_view",
    )  # fmt: skip

    def __init__(
        self,
        config: GossipConfig,
        *,
        rng: random.Random,
        view: MembershipView,
        timers: TimerQueue,
        outbox: Outbox,
    ) -> None:
        self._config = config
        self._rng = rng
        self._view = view
        self._timers = timers
        self._outbox = outbox
        self._broadcasts: dict[str, _Broadcast] = {}
        self._is_gossip_armed = False

    def spread(self, news: MemberNews, now: float) -> None:
        """Send news at once, and again for a few rounds in case it is lost."""
        count = self._view.reachable_count()
        sends = math.ceil(self._config.retransmit_multiplier * math.log(count + 1))
        self._broadcasts[news.record.name] = _Broadcast(news, sends)
        peers: Sequence[MemberRecord] = self._view.peers()
        if not self._view.is_full_mesh():
            peers = self._rng.sample(peers, min(self._config.gossip_fanout, len(peers)))
        addresses = dict.fromkeys(member.address for member in peers)
        record = news.record
        is_first = news.suspector in (self._view.name, "")
        if record.status is MemberStatus.SUSPECTED and (
            is_first or self._rng.random() * count < NOTICES
        ):
            # It is to hear of it soon, but not from everybody.
            addresses[record.address] = None
        self._outbox.send_to_all(addresses, MemberUpdates((news,)))
        if not self._is_gossip_armed:
            self._is_gossip_armed = True
            self._timers.set(now + self._config.gossip_interval_s, Timer(TimerKind.GOSSIP))

    def spread_again(self, name: str, now: float) -> None:
        """Begin anew with news that is still being repeated, if there is any of that member."""
        broadcast = self._broadcasts.get(name)
        if broadcast is not None:
            self.spread(broadcast.news, now)

    def forget(self, name: str) -> None:
        """Say no more of a member that is forgotten. O(1)."""
        self._broadcasts.pop(name, None)

    def on_gossip_timer(self, _timer: Timer, now: float) -> None:
        """Send the news that still has to be repeated, the least repeated first."""
        self._is_gossip_armed = False
        peers = self._view.peers()
        chosen = self._rng.sample(peers, min(self._config.gossip_fanout, len(peers)))
        waiting = sorted(self._broadcasts.items(), key=lambda item: (-item[1].sends_left, item[0]))[
            :NEWS_PER_MESSAGE_MAX
        ]
        if chosen and waiting:
            message = MemberUpdates(tuple(broadcast.news for _, broadcast in waiting))
            self._outbox.send_to_all([member.address for member in chosen], message)
        for name, broadcast in waiting:
            broadcast.sends_left -= len(chosen) or 1
            if broadcast.sends_left <= 0:
                del self._broadcasts[name]
        if self._broadcasts:
            self._is_gossip_armed = True
            self._timers.set(now + self._config.gossip_interval_s, Timer(TimerKind.GOSSIP))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what is still to be said, and how often."""
        return {
            "broadcasts": MappingProxyType(self._broadcasts),
            "is_gossip_armed": self._is_gossip_armed,
        }

    def _check(self) -> None:
        """Assert that news is of members, no newer than the table, and goes on being said."""
        rounds = len(self._timers.of(TimerKind.GOSSIP))
        require(self, rounds == self._is_gossip_armed, "the next round of news is not due once")
        is_heard = self._is_gossip_armed or not self._broadcasts
        require(self, is_heard, "news is never said again")
        for name, broadcast in self._broadcasts.items():
            known, record = self._view.members.get(name), broadcast.news.record
            require(self, record.name == name, "news is kept under another's name")
            require(self, broadcast.sends_left >= 0, "news is kept that was said often enough")
            is_known = known is not None and record.precedence() <= known.precedence()
            require(self, is_known, "news is said of which the table knows nothing")
