"""Who may have a name: a claim to a living name is verified by asking its holder.

Rule: nobody gives way to a mere message. A newcomer of a name that a live node holds elsewhere
is let in only when the holder does not answer; a node that hears of another start under its own
name asks that one, and loses its name only to an answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attrs import define, evolve

from meshlib.gossip.config import GossipConfig
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import PingRequest
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.membership import MemberRecord

__all__ = ["Claim", "NameClaims"]

CLAIMS_MAX = 256
"""Claims to a living name that are verified at a time; further ones wait for their next try."""


@define(slots=True)
class Claim:
    """A claim to a name that a live node holds, while that one is asked.

    Args:
        sequence: of the question.
        claimant: who claims the name.
        holder: who is asked; after a notice only its address is known until it answers.
        is_notice: whether this node was told that another one has its name.
    """

    sequence: int
    claimant: MemberRecord
    holder: MemberRecord
    is_notice: bool = False


class NameClaims:
    """The claims that are being verified, one for each name.

    Args:
        config: the settings.
        rng: numbers the questions.
        view: knows this node's own record.
        timers: end a question.
        outbox: takes it.
    """

    __slots__ = ("_claims", "_config", "_outbox", "_rng", "_timers", "_view")

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
        self._claims: dict[str, Claim] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._claims

    def open(
        self, claimant: MemberRecord, holder: MemberRecord, now: float, *, is_notice: bool = False
    ) -> None:
        """Ask the holder of a name for a sign of life, unless that is under way. O(1).

        One question at a time: a claimant asks again sooner than the holder may answer.
        """
        if claimant.name in self._claims or len(self._claims) >= CLAIMS_MAX:
            return
        sequence = self._rng.getrandbits(48)
        self._claims[claimant.name] = Claim(sequence, claimant, holder, is_notice)
        self._outbox.send(holder.address, PingRequest(sequence, holder.name, self._view.record))
        wait_s = 2 * self._config.probe_timeout_s
        self._timers.set(now + wait_s, Timer(TimerKind.CLAIM, claimant.name, sequence))

    def answered(self, sequence: int, header: FrameHeader) -> Claim | None:
        """Return the claim that an answer of the holder refutes, and close it.

        After a notice whoever answers under the name is the holder, if it is another start than
        the claimant and reached at the address that was asked.
        """
        claim = self._claims.get(header.name)
        if claim is None or claim.sequence != sequence:
            return None
        if claim.is_notice:
            holder = claim.holder
            if header.actor == claim.claimant.actor or header.address != holder.address:
                return None
            claim.holder = evolve(holder, actor=header.actor, incarnation=header.incarnation)
        elif header.actor != claim.holder.actor:
            return None
        return self._claims.pop(header.name)

    def expired(self, name: str, sequence: int) -> Claim | None:
        """Return the claim whose holder did not answer in time, and close it."""
        claim = self._claims.get(name)
        if claim is None or claim.sequence != sequence:
            return None
        return self._claims.pop(name)

    def clear(self) -> None:
        """Drop every open question: this node was stopped, and silence proves nothing."""
        self._claims.clear()

    def diagnostics(self) -> Mapping[str, Any]:
        """Show whose claims are being verified."""
        return {"claims": MappingProxyType(self._claims)}

    def _check(self) -> None:
        """Assert the invariants of the claims."""
        require(self, len(self._claims) <= CLAIMS_MAX, "too many claims are verified")
        ends = self._timers.of(TimerKind.CLAIM) if self._claims else []
        for name, claim in self._claims.items():
            require(self, name == claim.claimant.name, "a claim is kept under another's name")
            is_armed = Timer(TimerKind.CLAIM, name, claim.sequence) in ends
            require(self, is_armed, "a claim is never given up")
