"""Who is alive: probes, indirect probes, suspicion. SWIM with Lifeguard.

Rules this file owns:
- Only an answer to a probe, or a frame with a higher incarnation, speaks for a member; a frame
  relayed by a third node never does.
- A probe that fails raises a suspicion, never a death; only a suspicion that ran out declares a
  member Down, and only for the incarnation that was suspected.
- What it finds out it returns, and the roster applies and spreads it: the detector calls nobody
  back.
- A suspected member that is heard has more time to refute; it is suspected all the same, for it may
  hear nobody.
- Where refutations have been coming late, suspicions that others confirm last longer.
- A link that broke, a dial that was refused after it, and helpers that had no answer either are
  evidence that a process has ended: its suspicion lasts one probe interval, unless it is heard.
- After a pause of this very process nobody is accused: probes under way are dropped and every
  suspicion starts anew.
Source: SWIM (DSN 2002); Lifeguard (2017): local health, nacks, buddy, dynamic suspicion.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import define, evolve, frozen

from meshlib.gossip.clock_offsets import ClockOffsets
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.events import LocalPause
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import (
    IndirectPingFailed,
    IndirectPingRequest,
    MemberNews,
    MemberUpdates,
    PingRequest,
    PingResponse,
)
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.reports import Counters, EventQueue
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.membership import (
    Lateness,
    LocalHealth,
    MemberRecord,
    MemberStatus,
    Probe,
    ProbeOrder,
    RoundTrips,
    Suspicion,
    next_version,
    suspicion_bounds_s,
)

__all__ = ["FailureDetector"]

RELAY_SHARE = 0.8
"""A helper gives up after this share of the timeout, so that its nack still comes in time."""

RELAYS_MAX = 4096
"""Probes that a node makes for others at a time; further requests are ignored."""

SECOND_LOOKS = 10
"""How many nodes look for themselves at a member that another one suspects."""

ON_THE_WAY_S = 0.2
"""What a process sent before its end is read within this time after its link broke."""

EARLY_MAX = 2
"""Probes that are made before their turn, at most, until as many turns were let pass."""

CONFIRMATIONS_MAX = 3
"""Independent confirmations that shorten a suspicion; memberlist's default is 2."""


@frozen(slots=True)
class _Relay:
    """A probe made for another node."""

    origin: str
    origin_sequence: int
    target: str


@define(slots=True)
class _Break:
    """A link that broke, and what was learnt since; dropped once the member is heard.

    Args:
        at: monotonic seconds.
        is_refused: whether the member's address refused a dial after it.
        is_denied: whether no helper had an answer either.
    """

    at: float
    is_refused: bool = False
    is_denied: bool = False


class FailureDetector:
    """Probe the members in turn, and keep the suspicions.

    Args:
        config: the settings.
        rng: whom it probes, and who helps.
        view: knows the members.
        timers: end probes and suspicions.
        outbox: takes what it asks and answers.
        events: hears of pauses.
        counters: counts probes and suspicions.
        offsets: what members tell of their wall clocks in their answers.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        rng: random.Random,
        view: MembershipView,
        timers: TimerQueue,
        outbox: Outbox,
        events: EventQueue,
        counters: Counters,
        offsets: ClockOffsets,
    ) -> None:
        self._config = config
        self._rng = rng
        self._view = view
        self._timers = timers
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self.order = ProbeOrder(rng)
        self.offsets = offsets
        self._early = 0
        self._sequence = rng.getrandbits(48)
        self._probes: dict[int, Probe] = {}
        self._probed: dict[str, int] = {}
        self._relays: dict[int, _Relay] = {}
        self._suspicions: dict[str, Suspicion] = {}
        self._broken: dict[str, _Break] = {}
        self.lateness = Lateness()
        self.health = LocalHealth(score_max=config.local_health_max)
        self.round_trips = RoundTrips(
            timeout_min_s=config.probe_timeout_min_s, timeout_max_s=config.probe_timeout_s
        )

    def start(self, now: float) -> None:
        """Begin to probe, at a random time within the first interval."""
        wait_s = self._rng.random() * self._config.probe_interval_s
        self._timers.set(now + wait_s, Timer(TimerKind.PROBE))

    def on_probe_timer(self, _timer: Timer, now: float) -> str | None:
        """Probe the next member, unless one was early, and set the timer of the one after.

        Returns:
            Whom it probes, if anybody.
        """
        target = None
        if self._early:
            self._early -= 1
        elif not self._view.is_leaving:
            target = self.order.pick(self._view.peer_names())
            if target is not None:
                self.probe(target, now)
        wait_s = self._config.probe_interval_s * self.health.multiplier
        self._timers.set(now + wait_s, Timer(TimerKind.PROBE))
        return target

    def probe_early(self, name: str, now: float) -> bool:
        """Probe a member now that something is sent to it anyway, in one frame with that.

        Only one whose turn in this round is still to come, and a later turn is let pass for it:
        nobody is probed more often for it, nor anybody later. Not while this node is slow. O(n).

        Returns:
            Whether it is probed.
        """
        if self._early >= EARLY_MAX or self.health.score or self._view.is_leaving:
            return False
        if name in self._probed or not self.order.take(name):
            return False
        self._early += 1
        self.probe(name, now)
        return True

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _timeout_s(self) -> float:
        return self.round_trips.timeout_s() * self.health.multiplier

    def probe(self, name: str, now: float) -> None:
        """Probe one member now, unless a probe of it is under way."""
        member = self._view.members.get(name)
        if member is None or not member.is_reachable or name in self._probed:
            return
        probe = Probe(
            sequence=self._next_sequence(), target=name, incarnation=member.incarnation, sent=now
        )
        self._probes[probe.sequence] = probe
        self._probed[name] = probe.sequence
        self._counters.probes_sent += 1
        if member.status is MemberStatus.SUSPECTED:
            # The buddy system: it hears of the suspicion in the same frame and can refute it.
            self._outbox.send(member.address, MemberUpdates((MemberNews(member, self._view.name),)))
        self._outbox.send(member.address, PingRequest(probe.sequence, name, self._view.record))
        final_s = self._config.probe_interval_s * self.health.multiplier
        self._timers.set(
            now + self._timeout_s(), Timer(TimerKind.PROBE_DIRECT, name, probe.sequence)
        )
        self._timers.set(now + final_s, Timer(TimerKind.PROBE_FINAL, name, probe.sequence))

    def on_direct_timer(self, timer: Timer, now: float) -> None:
        """Ask others to probe a member that did not answer, and go on asking it directly.

        A single packet that was lost is no reason to suspect anybody; asking again, as often as
        the timeout fits before the end of the probe, costs nothing while packets arrive.
        """
        probe = self._probes.get(timer.token)
        if probe is None:
            return
        if not probe.is_indirect:
            self._ask_helpers(probe)
        self._send_again(probe)
        again_at = now + self._timeout_s()
        if again_at < probe.sent + self._config.probe_interval_s * self.health.multiplier:
            self._timers.set(again_at, timer)

    def _ask_helpers(self, probe: Probe) -> None:
        others = [m for m in self._view.peers() if m.name != probe.target]
        alive = [m for m in others if m.status is MemberStatus.ALIVE]
        count = min(self._config.indirect_probe_count, len(alive))
        helpers = self._rng.sample(alive, count)
        probe.is_indirect = True
        probe.helpers = tuple(helper.name for helper in helpers)
        for helper in helpers:
            self._outbox.send(helper.address, IndirectPingRequest(probe.sequence, probe.target))

    def _send_again(self, probe: Probe) -> None:
        member = self._view.members.get(probe.target)
        if member is not None:
            ping = PingRequest(probe.sequence, probe.target, self._view.record)
            self._outbox.send(member.address, ping)

    def on_final_timer(self, timer: Timer, now: float) -> MemberNews | None:
        """Return the suspicion of a member that answered nobody."""
        probe = self._probes.get(timer.token)
        return None if probe is None else self._fail(probe, now)

    def _fail(self, probe: Probe, now: float) -> MemberNews | None:
        self._drop(probe)
        self._counters.probes_failed += 1
        if probe.helpers:
            self.health.adjust(len(probe.helpers) - len(probe.refusals))
        else:
            self.health.adjust(1)
        member = self._view.members.get(probe.target)
        if member is None or member.incarnation != probe.incarnation or not member.is_reachable:
            return None
        broken = self._broken.get(member.name)
        if broken is not None and probe.is_denied_by_all:
            broken.is_denied = True
            self._hasten(member.name, now)
        return self.suspect(member, self._view.name)

    def _hasten(self, name: str, now: float) -> None:
        """End a suspicion soon of a member whose process is gone by all that is known."""
        suspicion, broken = self._suspicions.get(name), self._broken.get(name)
        if suspicion is None or suspicion.ends_at is not None or broken is None:
            return
        if broken.is_refused and broken.is_denied:
            suspicion.ends_at = now + self._config.probe_interval_s
            self._arm(name, suspicion)

    def hear(self, name: str, now: float) -> None:
        """Take note that a frame of a member came: its process lives. O(1)."""
        broken, suspicion = self._broken.get(name), self._suspicions.get(name)
        if broken is not None:
            if now - broken.at <= ON_THE_WAY_S:
                return
            del self._broken[name]
        if suspicion is not None:
            suspicion.ends_at, suspicion.heard_at = None, now

    def _drop(self, probe: Probe) -> None:
        self._probes.pop(probe.sequence, None)
        if self._probed.get(probe.target) == probe.sequence:
            del self._probed[probe.target]

    def compare_clocks(self, names: Iterable[str], now: float) -> None:
        """Ask members that were just met how their clocks stand, where too few have said so.

        Such a question accuses nobody who does not answer it. O(names).
        """
        for name in names:
            member = self._view.members.get(name)
            if member is not None and self.offsets.to_ask(name):
                sequence = self._next_sequence()
                self.offsets.ask(name, sequence, now)
                ping = PingRequest(sequence, name, self._view.record)
                self._outbox.send(member.address, ping)

    def on_ping(self, message: PingRequest, header: FrameHeader, _now: float) -> None:
        """Answer a probe that means this node and not another one at this address."""
        if message.target == self._view.name:
            answer = PingResponse(message.sequence, self.offsets.told_ms())
            self._outbox.send(header.address, answer)

    def on_ping_response(self, message: PingResponse, header: FrameHeader, now: float) -> None:
        """Take an answer: to an own probe, directly or from a helper, or to a relayed one."""
        sequence, sender = message.sequence, header.name
        relay = self._relays.get(sequence)
        if relay is not None:
            if sender == relay.target:
                del self._relays[sequence]
                self._outbox.send(relay.origin, PingResponse(relay.origin_sequence))
            return
        probe = self._probes.get(sequence)
        if probe is None:
            self.offsets.answer(sender, sequence, message.wall_ms, now=now)
            return
        if sender == probe.target:
            self.offsets.observe(
                sender,
                message.wall_ms,
                sent=probe.sent,
                now=now,
                is_direct=not probe.is_indirect,
            )
            if not probe.is_indirect:
                self.round_trips.observe(now - probe.sent)
        elif sender in probe.helpers:
            self._counters.indirect_probes_saved += 1
        else:
            return
        self._drop(probe)
        self.health.adjust(-1)

    def on_indirect_request(
        self, message: IndirectPingRequest, header: FrameHeader, now: float
    ) -> None:
        """Probe a member for another node."""
        address = header.address
        member = self._view.members.get(message.target)
        if member is None or len(self._relays) >= RELAYS_MAX or message.target == self._view.name:
            self._outbox.send(address, IndirectPingFailed(message.sequence))
            return
        sequence = self._next_sequence()
        self._relays[sequence] = _Relay(address, message.sequence, message.target)
        self._outbox.send(member.address, PingRequest(sequence, message.target, self._view.record))
        wait_s = RELAY_SHARE * self._config.probe_timeout_s
        self._timers.set(now + wait_s, Timer(TimerKind.RELAY, message.target, sequence))

    def on_relay_timer(self, timer: Timer, _now: float) -> None:
        """Give up a probe that was made for another node."""
        self._give_up_relay(timer.token)

    def _give_up_relay(self, sequence: int) -> None:
        """Tell the origin that there was no answer, so that it does not blame itself."""
        relay = self._relays.pop(sequence, None)
        if relay is not None:
            self._outbox.send(relay.origin, IndirectPingFailed(relay.origin_sequence))

    def on_indirect_failed(
        self, message: IndirectPingFailed, header: FrameHeader, now: float
    ) -> MemberNews | None:
        """Count a helper's nack; when all have spoken there is nothing more to wait for.

        Returns:
            The suspicion that comes of it, if any.
        """
        probe, sender = self._probes.get(message.sequence), header.name
        if probe is None or sender not in probe.helpers:
            return None
        probe.refusals.add(sender)
        if probe.is_denied_by_all and probe.is_refused:
            return self._fail(probe, now)
        return None

    def give_up_relays(self, address: str) -> None:
        """Tell those who asked for probes of an address that was refused that nobody is there."""
        for sequence, relay in list(self._relays.items()):
            member = self._view.members.get(relay.target)
            if member is not None and member.address == address:
                self._give_up_relay(sequence)

    def on_lost(self, member: MemberRecord, now: float, *, is_refused: bool) -> MemberNews | None:
        """Probe a member at once whose link broke, or stop waiting for its answer.

        A refused dial is an answer too: helpers are asked at once, and once all of them were
        refused as well the member is suspected without waiting for the timers.

        Args:
            member: whose address it is.
            now: monotonic seconds.
            is_refused: whether a dial was refused; else a link broke, or could not be made.

        Returns:
            The suspicion that comes of it, if any.
        """
        broken = self._broken.get(member.name)
        if not is_refused and broken is None:
            self._broken[member.name] = _Break(now)
        elif is_refused and broken is not None:
            broken.is_refused = True
            self._hasten(member.name, now)
        under_way = self._probed.get(member.name)
        if under_way is None:
            # One that is suspected has been asked; every refused frame would ask again.
            if member.status is MemberStatus.ALIVE:
                self.probe(member.name, now)
            return None
        probe = self._probes[under_way]
        probe.is_refused = True
        if not probe.is_indirect:
            self._ask_helpers(probe)
        return self._fail(probe, now) if probe.is_denied_by_all else None

    def is_asking(self, member: MemberRecord) -> bool:
        """Tell whether a probe of a member, as it is now, is under way. O(1)."""
        probe = self._probes.get(self._probed.get(member.name, -1))
        return probe is not None and probe.incarnation == member.incarnation

    def suspect(self, member: MemberRecord, suspector: str) -> MemberNews | None:
        """Suspect a member, or count another node's suspicion of it.

        Returns:
            What is to be applied and spread; None when this suspector has spoken already.
        """
        suspicion = self._suspicions.get(member.name)
        version = member.version
        if suspicion is not None and suspicion.incarnation == member.incarnation:
            if not suspicion.confirm(suspector):
                return None
            self._arm(member.name, suspicion)
        else:
            if suspector == self._view.name:
                self._counters.suspicions_raised += 1
            version = next_version(version)
        suspected = evolve(member, status=MemberStatus.SUSPECTED, version=version)
        return MemberNews(suspected, suspector)

    def on_suspected(self, member: MemberRecord, suspector: str, now: float) -> None:
        """Start the clock of a suspicion that has just been applied to the table."""
        count = self._view.reachable_count()
        wanted = min(CONFIRMATIONS_MAX, max(0, count - 2))
        suspicion = Suspicion(
            incarnation=member.incarnation,
            suspector=suspector,
            started=now,
            bounds_s=self._bounds_s(now),
            confirmations_wanted=wanted,
            token=self._next_sequence(),
        )
        self._suspicions[member.name] = suspicion
        self._arm(member.name, suspicion)
        self._hasten(member.name, now)
        if suspector != self._view.name and self._rng.random() * count < SECOND_LOOKS:
            # See for ourselves, so that a true crash is confirmed and a false alarm is not.
            self.probe(member.name, now)

    def _bounds_s(self, now: float) -> tuple[float, float]:
        """Return the shortest and the longest wait by what is known now, in seconds."""
        bounds_s = suspicion_bounds_s(
            self._view.reachable_count(),
            multiplier=self._config.suspicion_multiplier,
            probe_interval_s=self._config.probe_interval_s,
        )
        return self.lateness.stretch(bounds_s, now)

    def _arm(self, name: str, suspicion: Suspicion) -> None:
        timer = Timer(TimerKind.SUSPICION, name, suspicion.token)
        self._timers.set(suspicion.deadline(), timer)

    def on_suspicion_timer(self, timer: Timer, now: float) -> MemberNews | None:
        """Return the death of a member whose suspicion ran out."""
        suspicion = self._suspicions.get(timer.key)
        member = self._view.members.get(timer.key)
        if suspicion is None or suspicion.token != timer.token:
            return None
        is_longer = suspicion.lengthen(self._bounds_s(now))
        if now < suspicion.deadline():
            if is_longer or suspicion.heard_at is not None:
                self._arm(timer.key, suspicion)
            return None
        if member is None or member.incarnation != suspicion.incarnation:
            return None
        if member.status is not MemberStatus.SUSPECTED:
            return None
        down = evolve(member, status=MemberStatus.DOWN, version=next_version(member.version))
        return MemberNews(down)

    def is_heard(self, name: str, now: float) -> bool:
        """Tell whether a suspected member was heard just now: its process lives. O(1)."""
        suspicion = self._suspicions.get(name)
        return suspicion is not None and suspicion.is_heard(now)

    def on_refuted(self, name: str, now: float) -> None:
        """Learn from a member that has just refuted how late that was. O(1)."""
        suspicion = self._suspicions.get(name)
        if suspicion is not None:
            self.lateness.observe(now - suspicion.started, now)

    def on_settled(self, name: str) -> None:
        """Drop what was under way about a member that is no longer merely suspected."""
        self._suspicions.pop(name, None)
        self._broken.pop(name, None)

    def forget(self, name: str) -> None:
        """Drop what is kept about a member that is forgotten. O(1).

        A probe that is made for another node ends by itself, and its origin waits for the answer.
        """
        self.on_settled(name)
        probe = self._probes.get(self._probed.get(name, -1))
        if probe is not None:
            self._drop(probe)

    def on_pause(self, late_s: float, now: float) -> None:
        """Accuse nobody after this process was stopped: begin everything anew."""
        self._counters.local_pauses += 1
        self.health.adjust(1)
        self.excuse_all(now)
        self._events.emit(LocalPause(late_s=late_s))

    def excuse_all(self, now: float) -> None:
        """Hold nobody's silence until now against them: drop probes, begin suspicions anew."""
        self._probes.clear()
        self._probed.clear()
        self._relays.clear()
        self._broken.clear()
        for name, suspicion in self._suspicions.items():
            suspicion.started = now
            suspicion.ends_at = suspicion.heard_at = None
            suspicion.token = self._next_sequence()
            self._arm(name, suspicion)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show who is probed and suspected, for whom others are probed, and how well this is."""
        return {
            "probes": MappingProxyType(self._probes),
            "probed": MappingProxyType(self._probed),
            "relays": MappingProxyType(self._relays),
            "suspicions": MappingProxyType(self._suspicions),
            "broken": MappingProxyType(self._broken),
            "early": self._early,
            "probe_timeout_s": self.round_trips.timeout_s(),
        }

    def _check(self) -> None:
        """Assert the invariants of the detector."""
        timers, members = self._timers, self._view.members
        require(self, len(timers.of(TimerKind.PROBE)) == 1, "no probe is due, or two")
        require(self, 0 <= self._early <= EARLY_MAX, "too many probes were early")
        require(self, len(self._relays) <= RELAYS_MAX, "too many probes are made for others")
        relayed = {timer.token for timer in timers.of(TimerKind.RELAY)}
        require(self, self._relays.keys() <= relayed, "a probe for another never ends")
        targets = {probe.target: sequence for sequence, probe in self._probes.items()}
        is_one_each = targets == self._probed and len(targets) == len(self._probes)
        require(self, is_one_each, "a member is probed twice, or by nothing")
        require(self, all(name in members for name in targets), "who is gone is probed")
        require(self, all(name in members for name in self._broken), "who is gone has a link")
        finals = {timer.token for timer in timers.of(TimerKind.PROBE_FINAL)}
        require(self, self._probes.keys() <= finals, "a probe never ends")
        suspected = {m.name: m for m in members if m.status is MemberStatus.SUSPECTED}
        is_same = suspected.keys() == self._suspicions.keys()
        require(self, is_same, "who is suspected in the table is not, or another one is")
        ends = timers.of(TimerKind.SUSPICION) if suspected else []
        for name, suspicion in self._suspicions.items():
            count = suspicion.confirmation_count
            is_within = count <= max(0, suspicion.confirmations_wanted)
            require(self, is_within, "a suspicion is confirmed too often")
            is_its_own = suspicion.incarnation == suspected[name].incarnation
            require(self, is_its_own, "a suspicion is of another incarnation")
            timer = Timer(TimerKind.SUSPICION, name, suspicion.token)
            require(self, timer in ends, "a suspicion never runs out")
