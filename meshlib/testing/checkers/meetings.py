"""Which processes have met, directly or through others that run: those are one cluster.

What no process remembers, no process can know. When all on one side of a cut are started anew
while others run on the other side, and were not told of those, nobody on either side has heard
of anybody on the other one: they are two clusters until they meet. This file says so from the
tables of members alone, for rules that hold for a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.testing.checkers import inside
from meshlib.testing.world.hosts import Host

__all__ = ["Meetings", "Process"]

SETTLED_S: Final = 3.0
"""How long two have to have met, at least one of them, to be of one cluster; and for how long one
that has ended still joins those who had met it, in simulated seconds."""


@define(slots=True, eq=False)
class Process:
    """One process, from its start to its end.

    Args:
        label: where it runs, and which start.
        actors: all writers that it was.
        known: since when it knows which writer, in simulated seconds.
        ended_at: when it ended; None while it runs.
        revision: of its table when it was read last.
    """

    label: str
    actors: set[ActorId] = field(factory=set)
    known: dict[ActorId, float] = field(factory=dict)
    ended_at: float | None = None
    revision: int = -1


class Meetings:
    """Follows the tables of members of all processes of a run."""

    def __init__(self) -> None:
        self._running: dict[str, Process] = {}
        self._ended: list[Process] = []
        self._by_actor: dict[ActorId, Process] = {}

    def follow(self, host: Host) -> Process:
        """Read whom the process on a machine knows, if that has changed, and return it."""
        node: Any = host.node
        label = f"{host.label}/{host.start_count}"
        process = self._running.get(host.label)
        if process is None or process.label != label:
            process = self._running[host.label] = Process(label)
        if process.revision != node.members_revision:
            process.revision = node.members_revision
            process.actors.add(node.actor)
            self._by_actor[node.actor] = process
            for actor in inside.member_actors(node):
                process.known.setdefault(actor, host.simulated_now)
        return process

    def ended(self, host: Host, now: float) -> None:
        """Take note that the process on a machine has ended."""
        process = self._running.pop(host.label, None)
        if process is not None:
            process.ended_at = now
            self._ended = [p for p in self._ended if now - (p.ended_at or 0.0) <= SETTLED_S]
            self._ended.append(process)

    def clusters(self, processes: Iterable[Process], now: float) -> list[set[Process]]:
        """Divide processes into those that are one cluster each. O(processes that they know).

        Args:
            processes: those that matter; others join them, if they run or did so just now.
            now: simulated seconds.
        """
        asked = set(processes)
        left = asked | set(self._running.values())
        left |= {p for p in self._ended if now - (p.ended_at or 0.0) <= SETTLED_S}
        links: dict[Process, set[Process]] = {process: set() for process in left}
        for process in left:
            for actor, since in process.known.items():
                other = self._by_actor.get(actor)
                if other in links and now - since >= SETTLED_S:
                    links[process].add(other)
                    links[other].add(process)
        found = []
        while left:
            cluster: set[Process] = set()
            reached = {left.pop()}
            while reached:
                process = reached.pop()
                cluster.add(process)
                reached |= links[process] - cluster
            left -= cluster
            if cluster & asked:
                found.append(cluster & asked)
        return found
