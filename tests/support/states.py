"""Time that moves by hand, and replicas whose entries are carried by hand."""

from __future__ import annotations

from meshlib.clock import HybridClock
from meshlib.identity import ActorId, actor_id
from meshlib.replication import Replica
from meshlib.sync import MeshSyncManager

WALL_START = 1_700_000_000.0


class FakeTime:
    """Monotonic and wall seconds that move by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall(self) -> float:
        return WALL_START + self.now


def make_replica(name: str, time: FakeTime, incarnation: int = 1) -> Replica:
    actor: ActorId = actor_id(name, incarnation)
    return Replica(actor=actor, clock=HybridClock(actor, wall_clock=time.wall))


class StateCluster:
    """Managers over replicas; what one writes the others receive when `exchange` is called."""

    def __init__(self, count: int = 2) -> None:
        self.time = FakeTime()
        self._behind_s = [0.0] * count
        self.replicas = [self._make_replica(number) for number in range(count)]
        self.managers = [MeshSyncManager(replica) for replica in self.replicas]

    def _make_replica(self, number: int) -> Replica:
        actor = actor_id(f"node{number + 1}", 1)
        clock = HybridClock(actor, wall_clock=lambda: self.time.wall() - self._behind_s[number])
        return Replica(actor=actor, clock=clock)

    def set_clock(self, number: int, *, behind_s: float) -> None:
        self._behind_s[number] = behind_s

    def exchange(self) -> None:
        self.time.now += 0.01
        entries = [entry for replica in self.replicas for entry in replica.flush()]
        for replica in self.replicas:
            received = replica.receive(entry for entry in entries if entry.actor != replica.actor)
            assert not received.rejected
        for manager, replica in zip(self.managers, self.replicas, strict=True):
            manager.publish(replica.changes())
