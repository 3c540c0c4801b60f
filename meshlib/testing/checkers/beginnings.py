"""Who says that it is ready, and whether it may: followed from the frames that nodes get.

Rule: this checker knows what a node was told by others, and the settings; it asks the node only
whether it is ready, and what it holds. A node is ready with what somebody ready had who answered
it, or because nobody ready did for long enough and nobody went before it. Who was never ready by
this rule may not say so in a frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from attrs import define, field, frozen

from meshlib.gossip import Packet
from meshlib.replication import vector_hash
from meshlib.testing.checkers import inside
from meshlib.testing.checkers.watch import Broken
from meshlib.testing.world.hosts import Host

__all__ = ["Beginnings"]

SLACK_S: Final = 1e-6
"""Times are sums of floats."""


@frozen(slots=True)
class _Heard:
    """The header of the last frame of a member, and when it came by the receiver's clock."""

    header: Any
    at: float


@define(slots=True)
class _Start:
    """What is known of one process since its start.

    Args:
        node: the process.
        seeds: whom it was told of, itself left out.
        since: when it began to wait for a ready peer, by its own clock.
        heard: what members said of themselves last.
        answers: the whole vectors that ready peers have sent it.
        has_equal: whether a ready peer said that its vector is the same.
        latest: the frame that came last, the hash of the vector before it, and when it came.
        was_ready: whether it was ready to itself, and to others, when it was looked at last.
        is_proven: whether it has become ready by the rules.
    """

    node: Any
    seeds: frozenset[str]
    since: float
    heard: dict[str, _Heard] = field(factory=dict)
    answers: list[Any] = field(factory=list)
    has_equal: bool = False
    latest: tuple[bytes, int, float] | None = None
    was_ready: tuple[bool, bool] = (False, False)
    is_proven: bool = False


class Beginnings:
    """Follows every process of a run.

    Args:
        cluster_name: of the frames.
        bootstrap_after_s: the nodes' setting.
    """

    def __init__(self, *, cluster_name: str, bootstrap_after_s: float) -> None:
        self._cluster_name = cluster_name
        self._after_s = bootstrap_after_s
        self._starts: dict[str, _Start] = {}

    def started(self, host: Host, seeds: Iterable[str], local: float) -> None:
        """Take note of a process that is about to join."""
        others = frozenset(seed for seed in seeds if seed != host.address)
        self._starts[host.label] = _Start(host.node, others, local)

    def received(self, host: Host, data: bytes, *, hash_before: int, local: float) -> None:
        """Take note of a frame that a node has taken, before `after_event`.

        Args:
            host: where the node runs.
            data: the frame.
            hash_before: of the node's vector, before it took the frame.
            local: what the machine's monotonic clock shows.
        """
        start = self._starts[host.label]
        start.latest = data, hash_before, local
        if all(start.was_ready):
            return
        told = inside.read_frame(data, cluster=self._cluster_name)
        if told is None:
            return
        header = told.header
        member = next((m for m in host.node.members() if m.name == header.name), None)
        if header.is_ready:
            own = {hash_before, start.node.replica.vector_hash()}
            is_equal = not own.isdisjoint(told.hashes)
            start.has_equal = start.has_equal or is_equal
            start.answers += told.vectors
        if member is not None and member.actor == header.actor and header.name != host.name:
            start.heard[header.name] = _Heard(header, local)
            if header.is_ready and member.is_reachable:
                start.since = local

    def came_back(self, host: Host, local: float) -> None:
        """Take note that a node is a new writer, and waits for the others' state again."""
        start = self._starts[host.label]
        start.since = local
        start.answers.clear()
        start.has_equal = start.is_proven = False
        start.was_ready = start.was_ready[0], False
        if start.latest is not None and start.latest[2] == local:
            # The frame by which it has become a new writer may tell what is there, too. It has
            # adopted nothing by then: somebody ready who has nothing either has the same.
            data, _, _ = start.latest
            self.received(host, data, hash_before=vector_hash({}), local=local)

    def after_event(self, host: Host, packets: Iterable[Packet], *, local: float) -> None:
        """Look whether a node that has become ready may be so, and what it says of it.

        Raises:
            Broken: it may not.
        """
        start = self._starts.get(host.label)
        if start is None or start.node is not host.node:
            return
        is_ready = host.node.is_ready, inside.tells_ready(host.node)
        if any(now and not before for now, before in zip(is_ready, start.was_ready, strict=True)):
            if not (host.is_leaving or self._has_caught_up(start) or start.is_proven):
                self._look_at_beginning(host, start, local)
            start.is_proven = True
        start.was_ready = is_ready
        if not start.is_proven and any(self._says_ready(host, each) for each in packets):
            raise Broken("beginning", "it says that it is ready, and never was")

    def _says_ready(self, host: Host, packet: Packet) -> bool:
        """Tell whether a packet says that its sender is ready, as the writer that it is now.

        A node may find after it has packed that another one writes as it does, and be a new
        writer then: what it said as the earlier one it was.
        """
        told = inside.read_frame(packet.data, cluster=self._cluster_name)
        return told is not None and told.header.is_ready and told.header.actor == host.node.actor

    @staticmethod
    def _has_caught_up(start: _Start) -> bool:
        """Tell whether a node has what somebody ready had who answered it."""
        replica = start.node.replica
        return start.has_equal or any(replica.reaches(answer) for answer in start.answers)

    def _look_at_beginning(self, host: Host, start: _Start, local: float) -> None:
        """Look whether it was a node's turn to begin.

        Raises:
            Broken: it was not.
        """
        if not start.seeds:
            return
        reachable = {m.name: m.actor for m in host.node.members() if m.is_reachable}
        heard = {
            name: each.header
            for name, each in start.heard.items()
            if reachable.get(name) == each.header.actor
        }
        if ready := sorted(name for name, header in heard.items() if header.is_ready):
            raise Broken("beginning", f"it began beside {', '.join(ready)}, which is ready")
        own = _rank(inside.stored_at_ms(host.node), host.name)
        before = [
            name
            for name, header in heard.items()
            if not header.is_leaving and _rank(header.stored_at_ms, name) < own
        ]
        waited_s = local - start.since
        if waited_s + SLACK_S < self._after_s * (1 + len(before)):
            names = ", ".join(sorted(before)) or "nobody"
            raise Broken(
                "beginning", f"it began after {waited_s:.3f} s; in turn before it: {names}"
            )


def _rank(stored_at_ms: int, name: str) -> tuple[int, str]:
    return (-stored_at_ms, name)
