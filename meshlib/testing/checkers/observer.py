"""Reads the nodes' events and counters for what is interesting, and acts as their runtime.

A runtime stops a node whose name is taken by another; so does this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from meshlib.errors import RejectReason
from meshlib.gossip import (
    Began,
    Event,
    FormatChanged,
    IdentityRenewed,
    LeaveDelayed,
    LocalPause,
    MemberDown,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRecovered,
    NameConflict,
    PacketRejected,
    Rejoined,
    StateDiverged,
    StateRestored,
    WritesRestamped,
)
from meshlib.identity import ActorId
from meshlib.replication import EntriesHeld, GapBufferFull, LogShortened
from meshlib.testing.checkers import inside
from meshlib.testing.checkers.cluster import Cluster
from meshlib.testing.checkers.watch import Broken
from meshlib.testing.world.hosts import Host

__all__ = ["Observer"]

RESTART_S: Final = 2.0
"""After this a node that lost its name tries again, as a supervisor has it."""

Handler = Callable[[Host, Any, Cluster], None]


class Observer:
    """Counts what was reached, and does what a runtime does on events."""

    def __init__(self) -> None:
        self.formats_raised = 0
        """How often a node began to speak a newer format."""
        self.formats_lowered = 0
        """How often one went back to an older one."""
        self._met: dict[tuple[str, str], ActorId] = {}
        self._down: dict[tuple[str, str], ActorId] = {}
        self._handlers: dict[type, Handler] = {
            MemberJoined: self._joined,
            MemberRecovered: _counted("suspicion_refuted"),
            MemberDown: self._went_down,
            MemberForgotten: _counted("member_forgotten"),
            MemberLeft: _counted("member_left"),
            LocalPause: _counted("local_pause_noticed"),
            LogShortened: _counted("log_shortened"),
            GapBufferFull: _counted("gap_buffer_full"),
            EntriesHeld: _counted("entries_held"),
            NameConflict: self._lost_name,
            Began: self._began,
            FormatChanged: self._format_changed,
            LeaveDelayed: _counted("leave_delayed"),
            PacketRejected: self._rejected,
            StateRestored: self._restored,
            IdentityRenewed: self._renewed,
            Rejoined: self._rejoined,
            StateDiverged: self._diverged,
            WritesRestamped: self._restamped,
        }

    def events(self, host: Host, events: list[Event], cluster: Cluster) -> None:
        """Look at what a node told."""
        for event in events:
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(host, event, cluster)

    def after_receive(self, host: Host, cluster: Cluster) -> None:
        """Look what a packet has done to a node."""
        waiting = inside.gap_count(host.node)
        if waiting < host.waiting_count:
            cluster.sometimes.count("gap_filled")
        host.waiting_count = waiting
        if cluster.network.is_cut:
            counters = host.node.counters
            exchanged = counters.exchanges_equal + counters.entries_received
            if exchanged > host.exchanged_count:
                cluster.sometimes.count("exchange_during_partition")
            host.exchanged_count = exchanged

    def process_ended(self, host: Host, cluster: Cluster) -> None:
        """Take the counters of a process over before they are gone."""
        host.has_sent_uneven = host.has_sent_uneven or _is_uneven(host)
        counters = host.node.counters
        cluster.sometimes.count("indirect_probe_saved", counters.indirect_probes_saved)
        cluster.sometimes.count("gap_requested", counters.gaps_requested)
        cluster.sometimes.count("beginning_named", counters.entries_shortened)
        cluster.sometimes.count("beginning_unknown", counters.entries_unknown)
        cluster.sometimes.count("transfer_over_log", counters.transfers_received)

    def close(self, cluster: Cluster) -> None:
        """Take over what is only counted at the end."""
        for host in cluster.running():
            self.process_ended(host, cluster)
        cluster.sometimes.count("packet_replayed", cluster.network.packets_replayed)
        cluster.sometimes.count("concurrent_writes", cluster.ledger.concurrent_count)

    def _joined(self, host: Host, event: MemberJoined, cluster: Cluster) -> None:
        key = (host.label, event.member.name)
        actor = event.member.actor
        if self._met.get(key, actor) != actor:
            cluster.sometimes.count("restart_met_as_new")
        if self._down.pop(key, None) == actor:
            cluster.sometimes.count("false_down_healed")
        self._met[key] = actor

    def _went_down(self, host: Host, event: MemberDown, cluster: Cluster) -> None:
        cluster.sometimes.count("suspicion_confirmed_down")
        self._down[host.label, event.member.name] = event.member.actor

    def _lost_name(self, host: Host, _event: NameConflict, cluster: Cluster) -> None:
        cluster.sometimes.count("name_conflict")
        cluster.schedule(cluster.now, self._stop, host, host.start_count, cluster)

    def _stop(self, now: float, host: Host, start_count: int, cluster: Cluster) -> None:
        if host.node is None or host.start_count != start_count:
            return
        cluster.crash(host)
        if not (host.is_twin or host.is_gone):
            cluster.schedule(now + RESTART_S, cluster.start, host)

    def _rejected(self, _host: Host, event: PacketRejected, cluster: Cluster) -> None:
        if event.reason in (RejectReason.CHECKSUM, RejectReason.MALFORMED):
            cluster.sometimes.count("packet_damaged")
        elif event.reason is RejectReason.IDENTITY:
            cluster.sometimes.count("packet_of_the_past")

    def _restored(self, _host: Host, event: StateRestored, cluster: Cluster) -> None:
        if event.page_count > 1:
            cluster.sometimes.count("transfer_of_many_pages")

    def _renewed(self, host: Host, _event: IdentityRenewed, cluster: Cluster) -> None:
        cluster.sometimes.count("identity_renewed")
        cluster.beginnings.came_back(host, host.monotonic(cluster.now))

    def _began(self, _host: Host, event: Began, cluster: Cluster) -> None:
        cluster.sometimes.count("began_isolated" if event.is_isolated else "began_after_waiting")

    def _format_changed(self, _host: Host, event: FormatChanged, _cluster: Cluster) -> None:
        """Count how often all spoke the next format, and how often one came that did not."""
        self.formats_raised += event.spoken > event.before
        self.formats_lowered += event.spoken < event.before

    def _rejoined(self, host: Host, event: Rejoined, cluster: Cluster) -> None:
        cluster.sometimes.count("rejoined")
        host.watch.renew()
        cluster.ledger.note_rejoined(event.new)
        for lost in event.lost:
            cluster.ledger.pardon(lost.document, lost.key)

    def _restamped(self, host: Host, event: WritesRestamped, cluster: Cluster) -> None:
        cluster.sometimes.count("stamped_again")
        host.watch.renew()
        back_ms = round(event.back_s * 1000)
        cluster.ledger.note_restamped(event.old, event.new, back_ms=back_ms)

    def _diverged(self, host: Host, event: StateDiverged, cluster: Cluster) -> None:
        peers = [peer for peer in cluster.hosts.values() if peer.name == event.peer]
        if _is_uneven(host) or any(_is_uneven(each) or each.has_sent_uneven for each in peers):
            cluster.sometimes.count("difference_repaired")
            return
        raise Broken("diverged", f"{host.label} says that {event.peer} holds other content")


def _is_uneven(host: Host) -> bool:
    """Tell whether a process may hold what its vector does not count.

    That is what came with a peer's state, and what came late and waits to be written again.
    """
    if host.watch is None:  # nothing runs here, or a rule was broken before the watch began
        return False
    return bool(host.watch.has_taken_pages) or inside.has_late_writes(host.node)


def _counted(name: str) -> Handler:
    def count(_host: Host, _event: Any, cluster: Cluster) -> None:
        cluster.sometimes.count(name)

    return count
