"""The calm after the faults: everything must converge, and then come to rest.

Rule: what must hold at the end of every run must live in this file. The bounds are part of
what is promised; a run that needs longer has failed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from meshlib.identity import ActorId
from meshlib.membership import MemberStatus
from meshlib.testing.checkers import inside
from meshlib.testing.checkers.cluster import Cluster
from meshlib.testing.checkers.documents import look_at_removed_workers, look_at_what_survived
from meshlib.testing.checkers.ledger import Write
from meshlib.testing.checkers.watch import MAP_DOCUMENTS, Broken
from meshlib.testing.world.hosts import EPOCH_S, Host

__all__ = ["ROUNDS_MAX", "Calm", "differences"]

ROUNDS_MAX: Final = 40
"""Anti-entropy intervals after the faults within which all nodes agree."""

NEXT_FRAME_BYTES_MORE: Final = 2
"""What the test double of the next release adds to a frame of a cluster at rest, at most."""

REST_S: Final = 10.0
"""How long the cluster is watched at rest, once all agree and the dead are forgotten."""

SETTLE_S: Final = 8.0
"""The longest that a probe lasts which began among the faults: it may still raise a suspicion."""

IDLE_BYTES_PER_S_MAX: Final = 600
"""For each node and each peer: probes, and an exchange of hashes a second."""

PAIR_BYTES_PER_S_MAX: Final = 700
"""The same for each of two nodes: both probe in every interval, and always each other."""

DIAL_BYTES_PER_S_MAX: Final = 60
"""For each node and each address that it dials for ever, now and then: of members that it holds
Down, and of seeds that it cannot reach."""

VECTOR_FRAME_BYTES_MAX: Final = 120
VECTOR_WRITER_BYTES_MAX: Final = 32
"""Of a vector on its way, and for each writer in it. Who forgets a writer has another vector than
its peers for a while, and each exchange of hashes between them is followed by one of vectors."""

MEMORY_S: Final = 60
"""Seconds within which tombstones, logs and queues are gone after all agree."""

MEMORY_EXCHANGES: Final = 4
"""And exchanges for each other member, each of which takes about a second. In a sparse graph every
second exchange is with the next of all members, and what one says of itself counts when it is
asked again at the latest: only then is a removal known to be everywhere, and forgotten."""


class Calm:
    """Ends the faults, waits for agreement, and looks at what is left.

    Args:
        cluster: the simulation.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.converged_after_s: float | None = None

    def begin(self) -> None:
        """End every fault at once: links, processes, clocks, workload."""
        cluster = self._cluster
        now = cluster.now
        cluster.is_calm = True
        cluster.trace("", "the faults end")
        cluster.network.calm(now)
        for host in list(cluster.hosts.values()):
            host.correct_clock()
            if host.is_twin:
                cluster.crash(host)
        for host in list(cluster.hosts.values()):
            cluster.resume(now, host)
            if host.node is None and not (host.is_gone or host.is_twin):
                cluster.start(now, host)

    def run(self) -> None:
        """Wait until all agree, then until all rest.

        Raises:
            Broken: they do not in time, or what they agree on is wrong.
        """
        cluster = self._cluster
        began = cluster.now
        # One that is about to leave may have been cut off for all the time that it waits.
        vectors = [inside.covered(host.node) for host in cluster.running() if not host.is_leaving]
        deadline = began + ROUNDS_MAX + self._held_s()
        while left := next(differences(cluster), None):
            if cluster.now >= deadline:
                everything = "; ".join(list(differences(cluster))[:8])
                raise Broken("convergence", f"after {cluster.now - began:.0f} s: {everything}")
            del left
            cluster.advance(cluster.now + 0.5)
        self.converged_after_s = cluster.now - began
        # A node that was alone until then may have become another writer since.
        vectors = [cluster.ledger.renamed(vector) for vector in vectors]
        self._look_at_writes(cluster.ledger.certain(vectors))
        self._look_at_versions()
        for host in cluster.running()[:1]:
            has_rejoined = cluster.sometimes.counts()["rejoined"] > 0
            look_at_what_survived(host, cluster.ledger.others, vectors, has_rejoined=has_rejoined)
            gone_count = look_at_removed_workers(host, cluster.ledger.others)
            cluster.sometimes.count("tenant_left_nothing", gone_count)
        self._rest()

    def _held_s(self) -> float:
        """Return how long entries of clocks that were ahead must wait to be plausible."""
        cluster = self._cluster
        wall_s = EPOCH_S + cluster.now
        ahead_s = cluster.ledger.latest_wall_ms / 1000 - wall_s
        return max(0.0, ahead_s - cluster.scenario.tuning.skew_max_s)

    def _look_at_writes(self, certain: dict[tuple[str, str], Write]) -> None:
        cluster = self._cluster
        hosts = cluster.running()
        if not hosts:
            return
        replica = hosts[0].node.replica
        for (document, key), write in certain.items():
            entry = replica.get(document).entry(key) if document in replica.documents() else None
            if entry is not None and entry.stamp >= write.stamp:
                continue
            # Of a removal that was dropped nothing is left, or an older one that came late.
            is_gone = entry is None or (
                entry.payload is None and cluster.ledger.was_collected(document, key)
            )
            if is_gone and write.payload is None:
                continue
            if is_gone and cluster.ledger.was_removed_after(document, key, write.stamp):
                continue
            raise Broken("lost write", f"{document}/{key}: {write} was acknowledged, is {entry}")

    def _look_at_versions(self) -> None:
        """Look whether all count the same changes of what is there."""
        seen: dict[tuple[str, object], tuple[int, str]] = {}
        cluster = self._cluster
        for host in cluster.running():
            for document in MAP_DOCUMENTS:
                if document not in host.node.replica.documents():
                    continue
                for key, entry in inside.map_entries(host.node.replica.get(document)).items():
                    if entry.payload is None or cluster.ledger.was_collected(document, key):
                        continue
                    version, label = seen.setdefault((document, key), (entry.version, host.label))
                    if version != entry.version:
                        raise Broken(
                            "version",
                            f"{document}/{key} is at {version} on {label}, "
                            f"at {entry.version} on {host.label}",
                        )

    def _rest(self) -> None:
        """Wait until nothing is left over, then look at the traffic of a cluster at rest."""
        cluster = self._cluster
        others = len(cluster.running()) - 1
        for _ in range(max(MEMORY_S, MEMORY_EXCHANGES * others)):
            if not next(_leftovers(cluster), None):
                break
            cluster.advance(cluster.now + 1.0)
        else:
            raise Broken("memory", "; ".join(list(_leftovers(cluster))[:8]))
        # What a clock ahead has written, of who is gone too, is followed when its time has come.
        cluster.advance(cluster.now + self._held_s() + SETTLE_S)
        hosts = cluster.running()
        before = {host.label: _work(host) for host in hosts}
        forgotten_before = {host.label: inside.forgotten(host.node) for host in hosts}
        bytes_before, packets_before = cluster.network.bytes_sent, cluster.network.packets_sent
        cluster.advance(cluster.now + REST_S)
        for host in hosts:
            host.watch.check_structures()
            host.watch.check_growth()
            _look_for_drops(host)
            if _work(host) != before[host.label]:
                raise Broken(
                    "rest", f"{host.label} still moves: {before[host.label]} {_work(host)}"
                )
        rate = (cluster.network.bytes_sent - bytes_before) / REST_S
        allowed = _idle_bytes_per_s(hosts) + _forgetting_bytes(hosts, forgotten_before) / REST_S
        if cluster.scenario.next_share:
            packets = cluster.network.packets_sent - packets_before
            allowed += packets * NEXT_FRAME_BYTES_MORE / REST_S
        if rate > allowed:
            raise Broken("rest", f"{rate:.0f} bytes a second at rest, {allowed:.0f} are allowed")
        left: str | None = None
        for _ in range(ROUNDS_MAX):
            # Nodes forget a writer at different times, and their vectors differ meanwhile.
            left = next(differences(cluster), None)
            if left is None:
                break
            cluster.advance(cluster.now + 1.0)
        else:
            raise Broken("rest", f"agreement was lost for good: {left}")


def _look_for_drops(host: Host) -> None:
    """Look whether a node dropped what no limit made it drop: these clusters are small."""
    counters = host.node.counters
    for name in ("messages_unsendable", "events_dropped"):
        if count := getattr(counters, name):
            raise Broken("queue", f"{host.label} counts {count} {name}")


def _idle_bytes_per_s(hosts: list[Host]) -> int:
    """Return what a cluster may send at rest: to those that run, and to those it dials."""
    pairs = max(1, len(hosts) * (len(hosts) - 1))
    dials = sum(len(inside.dialled(host.node)) for host in hosts)
    each = PAIR_BYTES_PER_S_MAX if len(hosts) == 2 else IDLE_BYTES_PER_S_MAX
    return each * pairs + DIAL_BYTES_PER_S_MAX * dials


def _forgetting_bytes(hosts: list[Host], before: Mapping[str, Collection[ActorId]]) -> int:
    """Return what a cluster at rest may send because nodes forgot writers meanwhile."""
    total = 0
    for host in hosts:
        newly = len(inside.forgotten(host.node).difference(before[host.label]))
        vector_bytes = VECTOR_FRAME_BYTES_MAX + VECTOR_WRITER_BYTES_MAX * len(
            inside.covered(host.node)
        )
        # One exchange with each other node: a vector, and a vector in answer.
        total += newly * (len(hosts) - 1) * 2 * vector_bytes
    return total


def _work(host: Host) -> tuple[int, ...]:
    """Return counters that stand still while a node rests."""
    counters = host.node.counters
    return (
        counters.entries_sent,
        counters.gaps_requested,
        counters.suspicions_raised,
        counters.refutations,
    )


def differences(cluster: Cluster) -> Iterator[str]:
    """Yield what the nodes do not agree on yet, the cheapest to find first."""
    hosts = cluster.running()
    if not hosts:
        return
    first = hosts[0].node.replica
    for host in hosts:
        replica = host.node.replica
        if replica.is_rejoining:
            yield f"{host.label} has not come back yet: its readers see what it had before"
        if inside.has_late_writes(host.node):
            yield f"{host.label} has late writes that it will write again"
        if replica.vector_hash() != first.vector_hash():
            yield f"{host.label} and {hosts[0].label} have other vectors"
        elif replica.content_digest() != first.content_digest():
            yield f"{host.label} and {hosts[0].label} have other content"
    alive = {host.name: host for host in hosts}
    for host in hosts:
        yield from _view_differences(host, alive)
    versions = {
        host.label: tuple(
            (member.name, member.version) for member in host.node.members() if member.is_reachable
        )
        for host in hosts
    }
    for host in hosts:
        if versions[host.label] != versions[hosts[0].label]:
            yield f"{host.label} and {hosts[0].label} count other versions of members"


def _view_differences(host: Host, alive: dict[str, Host]) -> Iterator[str]:
    members = {member.name: member for member in host.node.members()}
    for name, other in alive.items():
        member = members.get(name)
        if member is None or member.status is not MemberStatus.ALIVE:
            yield f"{host.label} sees {name} as {member and member.status}"
        elif member.node_id != other.node.node_id:
            yield f"{host.label} sees {name} in another incarnation"
    for name, member in members.items():
        if name not in alive and member.is_reachable:
            yield f"{host.label} sees {name}, which is gone, as {member.status}"


def _leftovers(cluster: Cluster) -> Iterator[str]:
    dead = {
        member.name
        for host in cluster.running()
        for member in host.node.members()
        if not member.is_reachable
    }
    actors = {host.node.actor for host in cluster.running()}
    names = {host.name for host in cluster.running()}
    if cluster.running() and cluster.scenario.tuning.forget_after_s > MEMORY_S:
        # What the files of the Down say is kept for longer than anybody looks; the lowest name
        # removes the others', and may have forgotten who has left before the rest has.
        keeper = min(cluster.running(), key=lambda host: host.name)
        members = keeper.node.members()
        names |= {member.name for member in members if member.status is MemberStatus.DOWN}
    for host in cluster.running():
        if len(actors) > 1 and (gone := set(host.node.sync.defaults.said_by()) - names):
            yield f"{host.label} has what the files of {', '.join(sorted(gone))} said"
        if waiting := inside.gap_actors(host.node) & actors:
            yield f"{host.label} waits for entries of {len(waiting)} writers"
        is_young = cluster.now - host.started_at < cluster.scenario.tuning.forget_after_s + 5.0
        for what, count in inside.leftovers(host.node).items():
            # A dead member may come back until it is forgotten; a young node cannot tell yet; one
            # alone keeps its log for those whom it will meet.
            is_kept = (what == "tombstones" and (dead or is_young)) or (
                what == "bytes of log" and (dead or len(actors) == 1)
            )
            if count and not is_kept:
                yield f"{host.label} has {count} {what}"
