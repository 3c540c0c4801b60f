"""Restarts of a whole cluster as operators make them: some machines at a time, in turn.

Rule: what a roll must not lose is looked at here. As long as nothing else goes wrong meanwhile,
a machine that waits for its turn holds what all of them held before, once all say that they are
ready; and what a node is told to leave with is with those that stay. Not so where all are told
of one machine alone: that one is told of nobody and begins at once, with nothing, until the others
find it, and who starts meanwhile takes that nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

from meshlib.identity import ActorId
from meshlib.testing.checkers import inside
from meshlib.testing.checkers.cluster import Cluster
from meshlib.testing.checkers.watch import Broken
from meshlib.testing.world.hosts import Host
from meshlib.testing.world.scenario import Incident, IncidentKind

__all__ = ["Roll"]

LOOK_S: Final = 0.1
"""How often an operator looks whether to go on."""

SETTLE_S: Final = 8.0
"""Other incidents that ended so long before a roll have left nothing behind."""

SLOW_BYTES_PER_S: Final = 50_000
"""Over links that are slower a handover may take longer than a node waits."""


class Roll:
    """One roll through all machines.

    Args:
        cluster: the simulation.
        incident: whom, in which order, how many at a time, and how long each stays away.
        rng: whether machines are told to leave or killed.
    """

    def __init__(self, cluster: Cluster, incident: Incident, rng: random.Random) -> None:
        self._cluster = cluster
        self._is_hasty = incident.kind is IncidentKind.HASTY_ROLL
        self._is_kill = not self._is_hasty and rng.random() < 0.5
        self._away_s = incident.duration_s
        size = int(incident.amount)
        names = incident.names
        self._batches = [names[at : at + size] for at in range(0, len(names), size)]
        self._number = incident.number
        self._began_at_s = incident.at_s
        self._due: dict[ActorId, int] = {}
        self._waiting: tuple[str, ...] = ()

    def step(self, now: float) -> None:
        """Go on with the next machines, once those before are there again."""
        cluster = self._cluster
        if cluster.is_calm:
            return
        if any(not self._is_back(name) for name in self._waiting) or not self._has_contact():
            cluster.schedule(now + LOOK_S, self.step)
            return
        if self._waiting and not self._is_hasty:
            self._look()
        if not self._batches:
            if self._is_hasty:
                self._look_at_all()
            cluster.sometimes.count("rolled_in_haste" if self._is_hasty else "rolled")
            return
        batch, *self._batches = self._batches
        stays = [host for host in cluster.running() if host.label not in batch]
        if self._is_hasty:
            self._note(max, cluster.running())
        elif stays:
            self._note(min, stays)
        for name in batch:
            self._restart(now, cluster.hosts[name])
        self._waiting = batch
        cluster.schedule(now + LOOK_S, self.step)

    def _restart(self, now: float, host: Host) -> None:
        if self._is_kill:
            self._cluster.crash(host)
        else:
            self._cluster.leave(now, host)
        self._start_again(now, host, now + self._away_s)

    def _start_again(self, now: float, host: Host, at_s: float) -> None:
        """Start a machine once its process has ended."""
        if self._cluster.is_calm or host.is_gone:
            return
        if host.node is not None or now < at_s:
            self._cluster.schedule(now + LOOK_S, self._start_again, host, at_s)
        else:
            self._cluster.start(now, host)

    def _is_back(self, name: str) -> bool:
        host = self._cluster.hosts[name]
        if host.is_gone:
            return True
        if host.node is None or host.is_leaving:
            return False
        is_back = host.node.is_ready and not host.node.is_listening
        return bool(is_back or (self._is_hasty and len(host.node.members()) > 1))

    def _has_contact(self) -> bool:
        """Tell whether each machine of the next batch knows of somebody in reach.

        In a hasty roll one may hold everything and not have met yet those that are back: it takes
        itself for alone, and who is alone ends at once.
        """
        if not self._is_hasty or not self._batches:
            return True
        hosts = (self._cluster.hosts[name] for name in self._batches[0])
        return all(
            any(each.is_reachable and each.name != host.label for each in host.node.members())
            for host in hosts
            if host.node is not None
        )

    # What must not be lost

    def _note(self, choose: Callable[..., int], hosts: Iterable[Host]) -> None:
        """Take note of what is to be there afterwards."""
        vectors = [inside.covered(host.node) for host in hosts]
        for actor in set[ActorId]().union(*vectors):
            number = choose(vector.get(actor, 0) for vector in vectors)
            self._due[actor] = max(number, self._due.get(actor, 0))

    def _is_disturbed(self) -> bool:
        """Tell whether anything else may have taken away what is missing."""
        scenario, now = self._cluster.scenario, self._cluster.now
        network = scenario.network
        is_slow = 0 < network.link_bytes_per_s < SLOW_BYTES_PER_S
        if is_slow or network.loss > 0.1 or (self._is_hasty and len(self._cluster.seeds()) == 1):
            return True
        return any(
            each.number != self._number
            and each.at_s <= now
            and each.at_s + each.duration_s + SETTLE_S >= self._began_at_s
            for each in scenario.incidents
        )

    def _look(self) -> None:
        """Look whether each machine that is ready has what is due."""
        for host in self._cluster.running():
            node = host.node
            if node.is_ready and not (node.replica.is_rejoining or host.is_twin):
                self._compare(host.label, inside.covered(node))

    def _look_at_all(self) -> None:
        """Look whether all machines together have what is due."""
        held: dict[ActorId, int] = {}
        for host in self._cluster.running():
            for actor, number in inside.covered(host.node).items():
                held[actor] = max(number, held.get(actor, 0))
        self._compare("all together", held)

    def _compare(self, label: str, held: dict[ActorId, int]) -> None:
        missing = sum(held.get(actor, 0) < number for actor, number in self._due.items())
        if missing and not self._is_disturbed():
            raise Broken("roll", f"{label} lacks what {missing} writers wrote before the roll")
