"""How membership news spreads: at once, then again for a few rounds in case it was lost.

Source: SWIM section 4.1 (infection-style dissemination). The number of repetitions grows with
`ln(n + 1)` and not in steps of log10, which leaves clusters just below a power of ten short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import define

from meshlib.gossip.context import Context, Timer
from meshlib.gossip.messages.kinds import MemberNews, MemberUpdates
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
        context: the engine's shared state.
    """

    __slots__ = ("_broadcasts", "_context", "_is_gossip_armed")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._broadcasts: dict[str, _Broadcast] = {}
        self._is_gossip_armed = False

    def spread(self, news: MemberNews, now: float) -> None:
        """Send news at once, and again for a few rounds in case it is lost."""
        context = self._context
        count = context.reachable_count()
        sends = math.ceil(context.config.retransmit_multiplier * math.log(count + 1))
        self._broadcasts[news.record.name] = _Broadcast(news, sends)
        peers: Sequence[MemberRecord] = context.peers()
        if not context.is_full_mesh():
            peers = context.rng.sample(peers, min(context.config.gossip_fanout, len(peers)))
        addresses = dict.fromkeys(member.address for member in peers)
        record = news.record
        is_first = news.suspector in (context.name, "")
        if record.status is MemberStatus.SUSPECTED and (
            is_first or context.rng.random() * count < NOTICES
        ):
            # It is to hear of it soon, but not from everybody.
            addresses[record.address] = None
        context.send_to_all(addresses, MemberUpdates((news,)))
        if not self._is_gossip_armed:
            self._is_gossip_armed = True
            context.timers.set(now + context.config.gossip_interval_s, Timer("gossip"))

    def spread_again(self, name: str, now: float) -> None:
        """Begin anew with news that is still being repeated, if there is any of that member."""
        broadcast = self._broadcasts.get(name)
        if broadcast is not None:
            self.spread(broadcast.news, now)

    def on_gossip_timer(self, now: float) -> None:
        """Send the news that still has to be repeated, the least repeated first."""
        context = self._context
        self._is_gossip_armed = False
        peers = context.peers()
        chosen = context.rng.sample(peers, min(context.config.gossip_fanout, len(peers)))
        waiting = sorted(self._broadcasts.items(), key=lambda item: (-item[1].sends_left, item[0]))[
            :NEWS_PER_MESSAGE_MAX
        ]
        if chosen and waiting:
            message = MemberUpdates(tuple(broadcast.news for _, broadcast in waiting))
            context.send_to_all([member.address for member in chosen], message)
        for name, broadcast in waiting:
            broadcast.sends_left -= len(chosen) or 1
            if broadcast.sends_left <= 0:
                del self._broadcasts[name]
        if self._broadcasts:
            self._is_gossip_armed = True
            context.timers.set(now + context.config.gossip_interval_s, Timer("gossip"))
