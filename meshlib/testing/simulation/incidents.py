"""How each kind of incident happens, and how it ends.

Rule: what an incident draws while it happens comes from a generator of its own, so that taking
another one out of the schedule does not change it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from meshlib.testing.checkers.cluster import Cluster
from meshlib.testing.simulation.rolls import Roll
from meshlib.testing.world.hosts import Host
from meshlib.testing.world.network import Cut
from meshlib.testing.world.scenario import Incident, IncidentKind

__all__ = ["Incidents"]


class Incidents:
    """Carries out the incidents of a scenario.

    Args:
        cluster: the simulation.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._handlers: dict[IncidentKind, Callable[[Incident, float, random.Random], None]] = {
            IncidentKind.PARTITION: self._partition,
            IncidentKind.ONE_WAY: self._one_way,
            IncidentKind.ISOLATE: self._partition,
            IncidentKind.CUT_LINKS: self._cut_links,
            IncidentKind.FLAP: self._flap,
            IncidentKind.CLOG: self._clog,
            IncidentKind.SQUEEZE: self._squeeze,
            IncidentKind.CRASH: self._crash,
            IncidentKind.ROLLBACK: self._rollback,
            IncidentKind.RESTART_ALL: self._restart_all,
            IncidentKind.SEEDS_DOWN: self._seeds_down,
            IncidentKind.PAUSE: self._pause,
            IncidentKind.TWIN: self._twin,
            IncidentKind.CLOCK_SKEW: self._clock_skew,
            IncidentKind.CLOCK_JUMP: self._clock_jump,
            IncidentKind.CLOCK_DRIFT: self._clock_drift,
            IncidentKind.JOIN_STORM: self._join_storm,
            IncidentKind.LEAVE: self._leave,
            IncidentKind.JOIN_AND_LEAVE: self._join_and_leave,
            IncidentKind.ROLL: self._roll,
            IncidentKind.HASTY_ROLL: self._roll,
            IncidentKind.JOINT_START: self._joint_start,
        }

    def begin(self, now: float, incident: Incident) -> None:
        """Let an incident begin."""
        rng = random.Random(f"{self._cluster.scenario.seed}/incident/{incident.number}")
        self._cluster.trace("", str(incident))
        self._handlers[incident.kind](incident, now, rng)

    def _later(self, at_s: float, action: Callable[..., None], *arguments: object) -> None:
        """Schedule what happens only while the faults last."""

        def act(now: float) -> None:
            if not self._cluster.is_calm:
                action(now, *arguments)

        self._cluster.schedule(at_s, act)

    def _hosts(self, incident: Incident) -> list[Host]:
        hosts = self._cluster.hosts
        return [hosts[name] for name in incident.names if name in hosts]

    # Links

    def _sides(self, incident: Incident) -> tuple[frozenset[str], frozenset[str]]:
        inside = frozenset(host.address for host in self._hosts(incident))
        everyone = frozenset(host.address for host in self._cluster.hosts.values())
        return inside, everyone - inside

    def _cut_until(self, at_s: float, *directions: tuple[frozenset[str], frozenset[str]]) -> None:
        network = self._cluster.network
        cuts = [network.cut(sources, destinations) for sources, destinations in directions]
        self._cluster.schedule(at_s, self._heal, cuts)

    def _heal(self, _now: float, cuts: list[Cut]) -> None:
        for cut in cuts:
            self._cluster.network.heal(cut)

    def _partition(self, incident: Incident, now: float, _rng: random.Random) -> None:
        inside, outside = self._sides(incident)
        self._cut_until(now + incident.duration_s, (inside, outside), (outside, inside))

    def _one_way(self, incident: Incident, now: float, rng: random.Random) -> None:
        inside, outside = self._sides(incident)
        direction = (inside, outside) if rng.random() < 0.5 else (outside, inside)
        self._cut_until(now + incident.duration_s, direction)

    def _pairs(self, incident: Incident) -> list[tuple[str, str]]:
        hosts = self._hosts(incident)
        return [
            (left.address, right.address)
            for left, right in zip(hosts[::2], hosts[1::2], strict=False)
        ]

    def _cut_links(self, incident: Incident, now: float, rng: random.Random) -> None:
        for left, right in self._pairs(incident):
            there = (frozenset((left,)), frozenset((right,)))
            back = (frozenset((right,)), frozenset((left,)))
            both = rng.random() < 0.6
            self._cut_until(now + incident.duration_s, there, *((back,) if both else ()))

    def _flap(self, incident: Incident, now: float, _rng: random.Random) -> None:
        period = incident.amount
        start, end = now, now + incident.duration_s
        while start < end:
            self._later(start, self._cut_pairs, incident, min(end, start + period / 2))
            start += period

    def _cut_pairs(self, _now: float, incident: Incident, until_s: float) -> None:
        for left, right in self._pairs(incident):
            there = (frozenset((left,)), frozenset((right,)))
            self._cut_until(until_s, there, (there[1], there[0]))

    def _clog(self, incident: Incident, now: float, rng: random.Random) -> None:
        for left, right in self._pairs(incident):
            self._cluster.network.clog(left, right, now + incident.duration_s)
            if rng.random() < 0.5:
                # Unclogged in another order than clogged.
                until = now + incident.duration_s * rng.uniform(0.5, 1.0)
                self._cluster.network.clog(right, left, until)

    def _squeeze(self, incident: Incident, now: float, _rng: random.Random) -> None:
        for host in self._hosts(incident):
            self._cluster.network.squeeze(host.address, incident.amount)
            end = now + incident.duration_s
            self._cluster.schedule(end, self._unsqueeze, host.address)

    def _unsqueeze(self, _now: float, address: str) -> None:
        self._cluster.network.squeeze(address, None)

    # Processes

    def _crash(self, incident: Incident, now: float, _rng: random.Random) -> None:
        for host in self._hosts(incident):
            self._cluster.crash(host)
            self._back(host, now + incident.duration_s, is_final=incident.is_final)

    def _back(self, host: Host, at_s: float, *, is_final: bool = False) -> None:
        host.is_gone = host.is_gone or is_final
        if not host.is_gone:
            self._later(at_s, self._start_again, host)

    def _start_again(self, now: float, host: Host) -> None:
        if not host.is_gone:
            self._cluster.start(now, host)

    def _rollback(self, incident: Incident, now: float, _rng: random.Random) -> None:
        """Keep a copy of the state, let time pass, crash, come back from the old copy."""
        for host in self._hosts(incident):
            if host.node is None:
                continue
            host.keep_snapshot(now)
            crash_at = now + incident.duration_s * incident.amount
            self._later(crash_at, self._crash_now, host)
            self._back(host, now + incident.duration_s)

    def _crash_now(self, _now: float, host: Host) -> None:
        self._cluster.crash(host)

    def _restart_all(self, incident: Incident, now: float, rng: random.Random) -> None:
        for host in list(self._cluster.running()):
            if incident.amount:
                host.keep_snapshot(now)
            self._cluster.crash(host)
            if not host.is_twin:
                self._back(host, now + incident.duration_s * rng.uniform(0.5, 1.0))

    def _seeds_down(self, incident: Incident, now: float, _rng: random.Random) -> None:
        seeds = set(self._cluster.seeds())
        for host in list(self._cluster.hosts.values()):
            if host.address in seeds:
                self._cluster.crash(host)
                self._back(host, now + incident.duration_s)

    def _roll(self, incident: Incident, now: float, rng: random.Random) -> None:
        Roll(self._cluster, incident, rng).step(now)

    def _joint_start(self, incident: Incident, now: float, _rng: random.Random) -> None:
        """End some processes and start them again at one instant, beside those that stay."""
        for host in self._hosts(incident):
            self._cluster.crash(host)
            self._back(host, now + incident.duration_s)

    def _pause(self, incident: Incident, now: float, _rng: random.Random) -> None:
        for host in self._hosts(incident):
            self._cluster.pause(now, host, incident.duration_s)

    def _twin(self, incident: Incident, now: float, rng: random.Random) -> None:
        """Start a second process of the same name elsewhere, from a copy of the disk or empty."""
        for host in self._hosts(incident):
            twin = self._cluster.add_host(f"{host.label}t", name=host.name)
            twin.is_twin = True
            if rng.random() < 0.5 and host.node is not None:
                twin.snapshot = host.make_snapshot(now)
            self._cluster.start(now, twin)
            self._later(now + incident.duration_s, self._crash_now, twin)

    # Clocks

    def _clock_skew(self, incident: Incident, now: float, _rng: random.Random) -> None:
        for host in self._hosts(incident):
            host.wall_offset_s += incident.amount
            self._later(now + incident.duration_s, self._shift, host, -incident.amount)

    def _clock_jump(self, incident: Incident, _now: float, _rng: random.Random) -> None:
        for host in self._hosts(incident):
            host.wall_offset_s += incident.amount

    def _shift(self, _now: float, host: Host, amount: float) -> None:
        host.wall_offset_s += amount

    def _clock_drift(self, incident: Incident, now: float, _rng: random.Random) -> None:
        for host in self._hosts(incident):
            host.drift(now, incident.amount)
            self._later(now + incident.duration_s, self._end_drift, host)

    def _end_drift(self, now: float, host: Host) -> None:
        host.drift(now, 0.0)

    # Membership

    def _join_storm(self, incident: Incident, now: float, rng: random.Random) -> None:
        for name in incident.names:
            host = self._cluster.add_host(name)
            self._later(now + rng.uniform(0.0, incident.duration_s), self._start_again, host)

    def _leave(self, incident: Incident, now: float, _rng: random.Random) -> None:
        for host in self._hosts(incident):
            if host.is_running:
                self._cluster.leave(now, host)
                self._back(host, now + 1.0 + incident.duration_s, is_final=incident.is_final)

    def _join_and_leave(self, incident: Incident, now: float, _rng: random.Random) -> None:
        for name in incident.names:
            host = self._cluster.add_host(name)
            host.is_gone = True
            self._cluster.start(now, host)
            self._cluster.schedule(now + incident.duration_s, self._leave_now, host)

    def _leave_now(self, now: float, host: Host) -> None:
        self._cluster.leave(now, host)
