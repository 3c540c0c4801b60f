"""Who is alive: probes, indirect probes, suspicion. SWIM with Lifeguard.

Rules this file owns:
- Only an answer to a probe, or a frame with a higher incarnation, speaks for a member; a frame
  relayed by a third node never does.
- A probe that fails raises a suspicion, never a death; only a suspicion that ran out declares a
  member Down, and only for the incarnation that was suspected.
- After a pause of this very process nobody is accused: probes under way are dropped and every
  suspicion starts anew.
Source: SWIM (DSN 2002); Lifeguard (2017): local health, nacks, buddy, dynamic suspicion.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from meshlib.gossip.context import Context, Timer
from meshlib.gossip.events import LocalPause
from meshlib.gossip.messages.kinds import (
    IndirectPingFailed,
    IndirectPingRequest,
    MemberNews,
    MemberUpdates,
    PingRequest,
    PingResponse,
)
from meshlib.membership import (
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

CONFIRMATIONS_MAX = 3
"""Independent confirmations that shorten a suspicion; memberlist's default is 2."""


@frozen(slots=True)
class _Relay:
    """A probe made for another node."""

    origin: str
    origin_sequence: int
    target: str


class FailureDetector:
    """Probe the members in turn, and keep the suspicions.

    Args:
        context: the engine's shared state.
        announce: is given every record that this detector changes, with the suspector's name,
            and applies and spreads it.
    """

    def __init__(
        self, context: Context, *, announce: Callable[[MemberRecord, str, float], None]
    ) -> None:
        config = context.config
        self._context = context
        self._announce = announce
        self._order = ProbeOrder(context.rng)
        self._sequence = context.rng.getrandbits(48)
        self._probes: dict[int, Probe] = {}
        self._probed: dict[str, int] = {}
        self._relays: dict[int, _Relay] = {}
        self._suspicions: dict[str, Suspicion] = {}
        self.health = LocalHealth(score_max=config.local_health_max)
        self.round_trips = RoundTrips(
            timeout_min_s=config.probe_timeout_min_s, timeout_max_s=config.probe_timeout_s
        )

    def start(self, now: float) -> None:
        """Begin to probe, at a random time within the first interval."""
        wait_s = self._context.rng.random() * self._context.config.probe_interval_s
        self._context.timers.set(now + wait_s, Timer("probe"))

    def on_probe_timer(self, now: float) -> None:
        """Probe the next member and set the timer of the one after."""
        config = self._context.config
        if not self._context.is_leaving:
            target = self._order.pick(self._context.peer_names())
            if target is not None:
                self.probe(target, now)
        wait_s = config.probe_interval_s * self.health.multiplier
        self._context.timers.set(now + wait_s, Timer("probe"))

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _timeout_s(self) -> float:
        return self.round_trips.timeout_s() * self.health.multiplier

    def probe(self, name: str, now: float) -> None:
        """Probe one member now, unless a probe of it is under way."""
        context = self._context
        member = context.members.get(name)
        if member is None or not member.is_reachable or name in self._probed:
            return
        probe = Probe(
            sequence=self._next_sequence(), target=name, incarnation=member.incarnation, sent=now
        )
        self._probes[probe.sequence] = probe
        self._probed[name] = probe.sequence
        context.counters.probes_sent += 1
        if member.status is MemberStatus.SUSPECTED:
            # The buddy system: it hears of the suspicion in the same frame and can refute it.
            context.send(member.address, MemberUpdates((MemberNews(member, context.name),)))
        context.send(member.address, PingRequest(probe.sequence, name, context.record))
        final_s = context.config.probe_interval_s * self.health.multiplier
        context.timers.set(now + self._timeout_s(), Timer("probe_direct", name, probe.sequence))
        context.timers.set(now + final_s, Timer("probe_final", name, probe.sequence))

    def on_direct_timer(self, sequence: int, now: float) -> None:
        """Ask others to probe a member that did not answer, and go on asking it directly.

        A single packet that was lost is no reason to suspect anybody; asking again, as often as
        the timeout fits before the end of the probe, costs nothing while packets arrive.
        """
        probe = self._probes.get(sequence)
        if probe is None:
            return
        if not probe.is_indirect:
            self._ask_helpers(probe)
        self._send_again(probe)
        again_at = now + self._timeout_s()
        if again_at < probe.sent + self._context.config.probe_interval_s * self.health.multiplier:
            self._context.timers.set(again_at, Timer("probe_direct", probe.target, sequence))

    def _ask_helpers(self, probe: Probe) -> None:
        context = self._context
        others = [m for m in context.peers() if m.name != probe.target]
        alive = [m for m in others if m.status is MemberStatus.ALIVE]
        count = min(context.config.indirect_probe_count, len(alive))
        helpers = context.rng.sample(alive, count)
        probe.is_indirect = True
        probe.helpers = tuple(helper.name for helper in helpers)
        for helper in helpers:
            context.send(helper.address, IndirectPingRequest(probe.sequence, probe.target))

    def _send_again(self, probe: Probe) -> None:
        member = self._context.members.get(probe.target)
        if member is not None:
            ping = PingRequest(probe.sequence, probe.target, self._context.record)
            self._context.send(member.address, ping)

    def on_final_timer(self, sequence: int, now: float) -> None:
        """Suspect a member that answered nobody."""
        probe = self._probes.get(sequence)
        if probe is not None:
            self._fail(probe, now)

    def _fail(self, probe: Probe, now: float) -> None:
        self._drop(probe)
        context = self._context
        context.counters.probes_failed += 1
        if probe.helpers:
            self.health.adjust(len(probe.helpers) - len(probe.refusals))
        else:
            self.health.adjust(1)
        member = context.members.get(probe.target)
        if member is not None and member.incarnation == probe.incarnation and member.is_reachable:
            self.suspect(member, context.name, now)

    def _drop(self, probe: Probe) -> None:
        self._probes.pop(probe.sequence, None)
        if self._probed.get(probe.target) == probe.sequence:
            del self._probed[probe.target]

    def on_ping(self, message: PingRequest, address: str) -> None:
        """Answer a probe that means this node and not another one at this address."""
        if message.target == self._context.name:
            self._context.send(address, PingResponse(message.sequence))

    def on_ping_response(self, sequence: int, sender: str, now: float) -> None:
        """Take an answer: to an own probe, directly or from a helper, or to a relayed one."""
        relay = self._relays.get(sequence)
        if relay is not None:
            if sender == relay.target:
                del self._relays[sequence]
                self._context.send(relay.origin, PingResponse(relay.origin_sequence))
            return
        probe = self._probes.get(sequence)
        if probe is None:
            return
        if sender == probe.target:
            if not probe.is_indirect:
                self.round_trips.observe(now - probe.sent)
        elif sender in probe.helpers:
            self._context.counters.indirect_probes_saved += 1
        else:
            return
        self._drop(probe)
        self.health.adjust(-1)

    def on_indirect_request(self, message: IndirectPingRequest, address: str, now: float) -> None:
        """Probe a member for another node."""
        context = self._context
        member = context.members.get(message.target)
        if member is None or len(self._relays) >= RELAYS_MAX or message.target == context.name:
            context.send(address, IndirectPingFailed(message.sequence))
            return
        sequence = self._next_sequence()
        self._relays[sequence] = _Relay(address, message.sequence, message.target)
        context.send(member.address, PingRequest(sequence, message.target, context.record))
        wait_s = RELAY_SHARE * context.config.probe_timeout_s
        context.timers.set(now + wait_s, Timer("relay", message.target, sequence))

    def on_relay_timer(self, sequence: int, _now: float) -> None:
        """Tell the origin that there was no answer, so that it does not blame itself."""
        relay = self._relays.pop(sequence, None)
        if relay is not None:
            self._context.send(relay.origin, IndirectPingFailed(relay.origin_sequence))

    def on_indirect_failed(self, sequence: int, sender: str, now: float) -> None:
        """Count a helper's nack; when all have spoken there is nothing more to wait for."""
        probe = self._probes.get(sequence)
        if probe is None or sender not in probe.helpers:
            return
        probe.refusals.add(sender)
        if len(probe.refusals) == len(probe.helpers) and probe.is_refused:
            self._fail(probe, now)

    def on_connection_lost(self, address: str, now: float) -> None:
        """Probe a member at once whose link broke, or stop waiting for its answer.

        A refused dial is an answer too: helpers are asked at once, and once all of them were
        refused as well the member is suspected without waiting for the timers.
        """
        for sequence, relay in list(self._relays.items()):
            member = self._context.members.get(relay.target)
            if member is not None and member.address == address:
                self.on_relay_timer(sequence, now)
        for member in self._context.peers():
            if member.address != address:
                continue
            under_way = self._probed.get(member.name)
            if under_way is None:
                # One that is suspected has been asked; every refused frame would ask again.
                if member.status is MemberStatus.ALIVE:
                    self.probe(member.name, now)
                continue
            probe = self._probes[under_way]
            probe.is_refused = True
            if not probe.is_indirect:
                self._ask_helpers(probe)
            if not probe.helpers or len(probe.refusals) == len(probe.helpers):
                self._fail(probe, now)

    def suspect(self, member: MemberRecord, suspector: str, now: float) -> None:
        """Suspect a member, or count another node's suspicion of it."""
        suspicion = self._suspicions.get(member.name)
        if suspicion is not None and suspicion.incarnation == member.incarnation:
            if suspicion.confirm(suspector):
                self._arm(member.name, suspicion)
                suspected = evolve(member, status=MemberStatus.SUSPECTED)
                self._announce(suspected, suspector, now)
            return
        context = self._context
        if suspector == context.name:
            context.counters.suspicions_raised += 1
        suspected = evolve(
            member, status=MemberStatus.SUSPECTED, version=next_version(member.version)
        )
        self._announce(suspected, suspector, now)

    def on_suspected(self, member: MemberRecord, suspector: str, now: float) -> None:
        """Start the clock of a suspicion that has just been applied to the table."""
        context = self._context
        count = context.reachable_count()
        config = context.config
        wanted = min(CONFIRMATIONS_MAX, max(0, count - 2))
        suspicion = Suspicion(
            incarnation=member.incarnation,
            suspector=suspector,
            started=now,
            bounds_s=suspicion_bounds_s(
                count,
                multiplier=config.suspicion_multiplier,
                probe_interval_s=config.probe_interval_s,
            ),
            confirmations_wanted=wanted,
            token=self._next_sequence(),
        )
        self._suspicions[member.name] = suspicion
        self._arm(member.name, suspicion)
        if suspector != context.name and context.rng.random() * count < SECOND_LOOKS:
            # See for ourselves, so that a true crash is confirmed and a false alarm is not.
            self.probe(member.name, now)

    def _arm(self, name: str, suspicion: Suspicion) -> None:
        timer = Timer("suspicion", name, suspicion.token)
        self._context.timers.set(suspicion.deadline(), timer)

    def on_suspicion_timer(self, name: str, token: int, now: float) -> None:
        """Declare a member Down whose suspicion ran out."""
        suspicion = self._suspicions.get(name)
        member = self._context.members.get(name)
        if suspicion is None or suspicion.token != token or now < suspicion.deadline():
            return
        if member is None or member.incarnation != suspicion.incarnation:
            return
        if member.status is MemberStatus.SUSPECTED:
            down = evolve(member, status=MemberStatus.DOWN, version=next_version(member.version))
            self._announce(down, "", now)

    def on_settled(self, name: str) -> None:
        """Drop what was under way about a member that is no longer merely suspected."""
        self._suspicions.pop(name, None)

    def on_pause(self, late_s: float, now: float) -> None:
        """Accuse nobody after this process was stopped: begin everything anew."""
        context = self._context
        context.counters.local_pauses += 1
        self._probes.clear()
        self._probed.clear()
        self._relays.clear()
        self.health.adjust(1)
        for name, suspicion in self._suspicions.items():
            suspicion.started = now
            suspicion.token = self._next_sequence()
            self._arm(name, suspicion)
        context.emit(LocalPause(late_s=late_s))

    def _check(self) -> None:
        """Assert the invariants of the detector."""
        assert len(self._relays) <= RELAYS_MAX
        assert set(self._probed.values()) <= set(self._probes)
        for name, suspicion in self._suspicions.items():
            assert suspicion.confirmation_count <= max(0, suspicion.confirmations_wanted), name
