"""What goes wrong for one seed: a scenario is drawn.

Swarm testing: a seed draws which faults are on and how often they strike, so that seeds differ
in kind and not only in luck; a fault that hides another is absent from half of them.
Source: Groce et al., "Swarm Testing", ISSTA 2012; FoundationDB; TigerBeetle's VOPR.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from attrs import evolve

from meshlib.testing.world.scenario import (
    BOOT_S,
    Incident,
    IncidentKind,
    NetworkFaults,
    Scenario,
    Tuning,
    machine_names,
)

__all__ = ["draw_next_share", "draw_scenario"]

NODES_DRAWN: Final = (3, 9)

KIND_SHARE: Final = 0.35
"""The probability with which a seed has a kind of incident at all."""

OPEN_SHARE: Final = 0.25
"""The probability with which a seed's nodes decide before they are ready."""


def draw_next_share(seed: int) -> float:
    """Draw for a seed how many of its starts are of the next release, where it mixes releases."""
    return random.Random(f"{seed}/next_share").choice((0.1, 0.5, 0.8, 0.95))


def draw_scenario(
    seed: int, *, node_count: int | None = None, duration_s: float = 60.0
) -> Scenario:
    """Draw a seed's faults. The same arguments give the same scenario on every process.

    Args:
        seed: any integer.
        node_count: machines at the start; drawn from 3 to 9 without one.
        duration_s: simulated seconds with faults.
    """
    rng = random.Random(f"{seed}/scenario")
    drawn_count = rng.randint(*NODES_DRAWN)
    count = drawn_count if node_count is None else node_count
    scenario = Scenario(seed=seed, node_count=count, duration_s=duration_s)
    restarts = _draw_restarts(random.Random(f"{seed}/restarts"), count, duration_s)
    network = _draw_network(rng)
    if not network.link_bytes_per_s and any(i.kind is IncidentKind.HASTY_ROLL for i in restarts):
        # Over links that carry everything at once the last holder never has to wait.
        network = evolve(network, link_bytes_per_s=HASTY_LINK_BYTES_PER_S)
    return evolve(
        scenario,
        network=network,
        tuning=evolve(
            _draw_tuning(rng, count),
            clock_rate_spread=random.Random(f"{seed}/rates").choice((0.0, 0.0005, 0.02)),
            is_startup_open=random.Random(f"{seed}/startup").random() < OPEN_SHARE,
        ),
        incidents=_draw_incidents(rng, count, duration_s) + restarts,
    )


def _draw_network(rng: random.Random) -> NetworkFaults:
    def sometimes(draw: Callable[[], float], share: float = 0.5) -> float:
        value = draw()
        return value if rng.random() < share else 0.0

    return NetworkFaults(
        loss=sometimes(lambda: rng.choice((0.01, 0.05, 0.1, 0.25, 0.5))),
        delay_min_s=rng.uniform(0.0001, 0.01),
        delay_mean_s=rng.choice((0.0005, 0.002, 0.01, 0.03)),
        is_ordered=rng.random() < 0.5,
        repeat=sometimes(lambda: rng.uniform(0.0, 0.2)),
        replay=sometimes(lambda: rng.uniform(0.0, 0.05)),
        truncate=sometimes(lambda: rng.uniform(0.0, 0.02)),
        flip=sometimes(lambda: rng.uniform(0.0, 0.02)),
        misdeliver=sometimes(lambda: rng.uniform(0.0, 0.02)),
        link_bytes_per_s=int(sometimes(lambda: rng.choice((20_000, 50_000, 200_000)), 0.25)),
        tells_refusals=rng.random() < 0.7,
    )


def _draw_tuning(rng: random.Random, count: int) -> Tuning:
    return Tuning(
        full_mesh_threshold=rng.choice((10, 10, 2, max(2, count - 1))),
        log_bytes_max=rng.choice((1_500, 4_000, 16_000, 65_536, 1 << 20)),
        gap_buffer_bytes_max=rng.choice((2_048, 16_384, 65_536)),
        packet_bytes_max=rng.choice((1_400, 8_192, 65_536)),
        tombstone_grace_s=rng.choice((0.0, 1.0, 3.0)),
        forget_after_s=rng.choice((8.0, 20.0, 40.0, 3_600.0)),
        skew_max_s=rng.choice((2.0, 5.0)),
        content_check_period=rng.choice((1, 4, 16)),
        writes_per_s=rng.choice((1.0, 4.0, 10.0, 20.0)),
        key_count=rng.choice((2, 6, 20, 60)),
        value_bytes_max=rng.choice((16, 64, 400)),
        seed_count=rng.choice((1, 2, 3)),
    )


RESTARTS: Final = (IncidentKind.ROLL, IncidentKind.HASTY_ROLL, IncidentKind.JOINT_START)
"""Restarts as operators make them; at most one of a run, numbered after all else."""

RESTARTS_FROM: Final = 1_000

HASTY_LINK_BYTES_PER_S: Final = 50_000


def _draw_restarts(rng: random.Random, count: int, duration_s: float) -> tuple[Incident, ...]:
    """Draw at most one restart of many machines, from chance of its own."""
    if rng.random() > KIND_SHARE or count < 2:
        return ()
    kind = rng.choice(RESTARTS)
    names = list(machine_names(count))
    rng.shuffle(names)
    stays = rng.randint(1, count - 1)
    return (
        Incident(
            number=RESTARTS_FROM,
            kind=kind,
            at_s=rng.uniform(BOOT_S, max(BOOT_S, duration_s / 2)),
            duration_s=rng.uniform(0.0, 1.0),
            names=tuple(names[stays:] if kind is IncidentKind.JOINT_START else names),
            amount=float(rng.choice((1, 2, count - 1, count - 1))),
        ),
    )


class _Draft:
    """Incidents as they are drawn: who may still stop for good, which names are new."""

    def __init__(self, rng: random.Random, count: int, duration_s: float) -> None:
        self.rng = rng
        self.names = machine_names(count)
        self.new_names = count
        self.stops_left = max(0, count - 2)
        self.duration_s = duration_s
        self.incidents: list[Incident] = []

    def add(
        self,
        kind: IncidentKind,
        names: tuple[str, ...],
        *,
        lasts: tuple[float, float],
        amount: float = 0.0,
        is_final: bool = False,
    ) -> None:
        """Draw when an incident begins and how long it lasts, and note it."""
        rng = self.rng
        latest = max(BOOT_S, self.duration_s - 1.0)
        self.incidents.append(
            Incident(
                number=len(self.incidents),
                kind=kind,
                at_s=rng.uniform(min(BOOT_S, latest), latest),
                duration_s=rng.uniform(*lasts),
                names=names,
                amount=amount,
                is_final=is_final,
            )
        )

    def one(self) -> tuple[str, ...]:
        """Draw one of the nodes."""
        return (self.rng.choice(self.names),)

    def some(self) -> tuple[str, ...]:
        """Draw a side: at least one machine and not all of them."""
        size = self.rng.randint(1, max(1, len(self.names) - 1))
        return tuple(sorted(self.rng.sample(self.names, size)))

    def pairs(self) -> tuple[str, ...]:
        """Draw one to four links, as names in twos."""
        drawn: list[str] = []
        for _ in range(self.rng.randint(1, 4)):
            drawn += self.rng.sample(self.names, 2) if len(self.names) > 1 else self.names * 2
        return tuple(drawn)

    def new(self, count: int) -> tuple[str, ...]:
        """Return the names of nodes that are added."""
        names = tuple(f"n{self.new_names + index}" for index in range(count))
        self.new_names += count
        return names

    def is_final(self, share: float, name: str) -> bool:
        """Draw whether one machine stops for good; two always stay, and one seed among them."""
        if self.stops_left and name != self.names[0] and self.rng.random() < share:
            self.stops_left -= 1
            return True
        return False


def _draw_incidents(rng: random.Random, count: int, duration_s: float) -> tuple[Incident, ...]:
    draft = _Draft(rng, count, duration_s)
    kinds = [kind for kind in IncidentKind if kind not in RESTARTS and rng.random() < KIND_SHARE]
    if kinds:
        for _ in range(rng.randint(1, max(2, int(duration_s / 4)))):
            _draw_incident(draft, rng.choice(kinds))
    return tuple(sorted(draft.incidents, key=lambda incident: incident.at_s))


def _draw_incident(draft: _Draft, kind: IncidentKind) -> None:
    if kind in _PROCESS_KINDS:
        _draw_process_incident(draft, kind)
    else:
        _draw_link_or_clock_incident(draft, kind)


_PROCESS_KINDS: Final = frozenset(
    {
        IncidentKind.CRASH,
        IncidentKind.ROLLBACK,
        IncidentKind.RESTART_ALL,
        IncidentKind.SEEDS_DOWN,
        IncidentKind.PAUSE,
        IncidentKind.TWIN,
        IncidentKind.JOIN_STORM,
        IncidentKind.LEAVE,
        IncidentKind.JOIN_AND_LEAVE,
    }
)


def _draw_link_or_clock_incident(draft: _Draft, kind: IncidentKind) -> None:
    rng = draft.rng
    match kind:
        case IncidentKind.PARTITION | IncidentKind.ONE_WAY:
            draft.add(kind, draft.some(), lasts=rng.choice(((1.0, 6.0), (5.0, 30.0))))
        case IncidentKind.ISOLATE:
            draft.add(kind, draft.one(), lasts=rng.choice(((1.0, 6.0), (5.0, 30.0))))
        case IncidentKind.CUT_LINKS | IncidentKind.CLOG:
            draft.add(kind, draft.pairs(), lasts=(0.5, 10.0))
        case IncidentKind.FLAP:
            draft.add(kind, draft.pairs(), lasts=(3.0, 20.0), amount=rng.uniform(0.1, 2.0))
        case IncidentKind.SQUEEZE:
            draft.add(kind, draft.one(), lasts=(2.0, 15.0), amount=rng.choice((5_000, 30_000)))
        case IncidentKind.CLOCK_SKEW | IncidentKind.CLOCK_JUMP:
            amount = rng.choice((-1, 1)) * rng.choice((0.2, 2.0, 8.0, 15.0))
            draft.add(kind, draft.one(), lasts=(2.0, 25.0), amount=amount)
        case IncidentKind.CLOCK_DRIFT:
            draft.add(kind, draft.some(), lasts=(10.0, 40.0), amount=rng.uniform(-0.05, 0.05))


def _draw_process_incident(draft: _Draft, kind: IncidentKind) -> None:
    rng = draft.rng
    match kind:
        case IncidentKind.CRASH:
            names = draft.one()
            draft.add(kind, names, lasts=(0.1, 20.0), is_final=draft.is_final(0.25, names[0]))
        case IncidentKind.ROLLBACK:
            draft.add(kind, draft.one(), lasts=(2.0, 20.0), amount=rng.uniform(0.1, 0.9))
        case IncidentKind.RESTART_ALL:
            draft.add(kind, draft.names, lasts=(0.1, 5.0), amount=rng.choice((0.0, 1.0)))
        case IncidentKind.SEEDS_DOWN:
            draft.add(kind, (), lasts=(1.0, 15.0))
        case IncidentKind.PAUSE:
            draft.add(kind, draft.some()[:2], lasts=rng.choice(((0.2, 3.0), (3.0, 20.0))))
        case IncidentKind.TWIN:
            draft.add(kind, draft.one(), lasts=(1.0, 15.0))
        case IncidentKind.JOIN_STORM:
            draft.add(kind, draft.new(rng.randint(2, 6)), lasts=(0.0, 0.5))
        case IncidentKind.LEAVE:
            names = draft.one()
            draft.add(kind, names, lasts=(2.0, 15.0), is_final=draft.is_final(0.4, names[0]))
        case IncidentKind.JOIN_AND_LEAVE:
            draft.add(kind, draft.new(1), lasts=(0.0, 1.0), is_final=True)
