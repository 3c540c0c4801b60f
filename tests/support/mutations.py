"""Deliberate bugs of the engine, one line each: what the simulator must be able to find.

Each is a bug that a real system has had, or the rule whose lack the model of the design shows.
A mutation breaks one small function while it is applied, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen

from meshlib.clock import HybridClock
from meshlib.crdt import GCounter, LWWMap, ORSet
from meshlib.crdt.lww import entries
from meshlib.gossip import upkeep
from meshlib.gossip.entries.beginning import Beginning
from meshlib.gossip.entries.handover import Handover
from meshlib.gossip.members.dialler import Dialler
from meshlib.gossip.members.own_record import OwnRecord
from meshlib.gossip.messages import frames as wire
from meshlib.membership import (
    Electorate,
    MemberRecord,
    MemberStatus,
    PartitionDetector,
    PartitionState,
)
from meshlib.node import mesh_node
from meshlib.ratelimit.leases.owned import OwnedKey
from meshlib.replication import StabilityTracker
from meshlib.replication.entries.gap_buffer import GapBuffer
from meshlib.replication.entries.log import ReplicationLog
from meshlib.replication.late_writes import LateWrites
from meshlib.routing.departures import Departures
from meshlib.routing.trees import TreeSync
from meshlib.startup import Startup
from meshlib.state import PolicyStore, WorkerStore
from meshlib.sync import MeshSyncManager

__all__ = [
    "MUTATIONS",
    "Mutation",
    "compare_with_the_peak",
    "forget_without_a_majority",
    "leave_the_trees_alone",
    "remove_only_what_is_there",
    "take_half_for_a_majority",
    "take_silence_for_an_end",
    "trust_a_killed_placer",
]

Patch = Callable[[object, str, Any], None]
"""`monkeypatch.setattr`."""


@frozen(slots=True)
class Mutation:
    """One bug.

    Args:
        name: what is broken, in a few words.
        apply: breaks it.
    """

    name: str
    apply: Callable[[Patch], None]


def skip_tie_break(patch: Patch) -> None:
    """Two writes of one instant: each node keeps the one it saw first."""
    patch(entries, "rank", lambda row: (row[0] // 1000, 0, b"", b"", 0))


def forget_tombstones(patch: Patch) -> None:
    """A removal is applied and not remembered."""
    absorb = LWWMap.absorb

    def broken(self: Any, delta: Any) -> Any:
        new = absorb(self, delta)
        self.collect(lambda _entry: True)
        return new

    patch(LWWMap, "absorb", broken)


def advance_over_gap(patch: Patch) -> None:
    """What waits behind a gap is absorbed without what is missing."""
    pop_next = GapBuffer.pop_next

    def broken(self: Any, actor: Any, *, have: int) -> Any:
        waiting = self._waiting.get(actor)
        first = waiting.entries[0].first if waiting else have + 1
        return pop_next(self, actor, have=max(have, first - 1))

    patch(GapBuffer, "pop_next", broken)


def accept_stale_incarnation(patch: Patch) -> None:
    """The order of a name's records leaves the incarnation out."""
    rank = list(MemberStatus)
    patch(MemberRecord, "precedence", lambda self: (0, rank.index(self.status)))


def never_refute(patch: Patch) -> None:
    """An accused node says nothing."""
    patch(OwnRecord, "refute", lambda _self, _accusation, _now: None)


def believe_in_naive_stability(patch: Patch) -> None:
    """A tombstone goes once this node alone has the removal."""
    patch(StabilityTracker, "settled", lambda _self, _members, *, our_vector: dict(our_vector))


def trust_every_byte(patch: Patch) -> None:
    """The checksum of a frame is not looked at."""
    patch(wire, "hash64", lambda _data, _seed=0: 0)


def be_deaf_to_stamps(patch: Patch) -> None:
    """A node does not move its vector past the stamps it sees."""
    patch(HybridClock, "observe", lambda _self, _stamp: None)


def reuse_the_writer(patch: Patch) -> None:
    """Every start of a node writes under the same actor, from number 1."""
    patch(mesh_node, "mint_incarnation", lambda _wall_s, _rng: 1)


def never_heal(patch: Patch) -> None:
    """Nobody dials those who are out of reach."""
    patch(Dialler, "on_heal_timer", lambda _self, _timer, _now: None)


def trim_what_others_lack(patch: Patch) -> None:
    """The log drops entries without raising the mark that says so."""
    drop_front = ReplicationLog._drop_front

    def broken(self: Any, log: Any, count: int) -> None:
        mark = log.trimmed
        drop_front(self, log, count)
        log.trimmed = mark

    patch(ReplicationLog, "_drop_front", broken)


def keep_what_comes_late(patch: Patch) -> None:
    """A write from before a removal that has been dropped stays as it is."""
    patch(LateWrites, "find", lambda _self, _document, _part: [])


def wake_without_end(patch: Patch) -> None:
    """Maintenance sets its timer for at once."""
    patch(upkeep, "MAINTENANCE_S", 0.001)


def ignore_removals_from_a_set(patch: Patch) -> None:
    """A removal from a set is acknowledged, sent on, and changes nothing anywhere."""
    absorb = ORSet.absorb

    def broken(self: Any, delta: Any) -> Any:
        return absorb(self, delta if len(delta) else type(delta)())

    patch(ORSet, "absorb", broken)


def add_up_counters(patch: Patch) -> None:
    """Joining adds what two sides counted of one writer, where the larger is the truth."""

    def broken(self: Any, other: Any) -> Any:
        counts = dict(self._totals())
        for actor, count in other._totals().items():
            counts[actor] = counts.get(actor, 0) + count
        return type(self)._of(counts)

    patch(GCounter, "__or__", broken)


def believe_a_newcomer(patch: Patch) -> None:
    """What a peer has that is not ready itself is taken for all that there is."""
    patch(Beginning, "_is_worth_having", lambda self, _header: self.wants_goal)


def begin_all_at_once(patch: Patch) -> None:
    """Whoever is not ready begins as soon as it looks whether it may."""
    patch(Beginning, "_may_begin", lambda _self, _now: True)


def begin_out_of_turn(patch: Patch) -> None:
    """All who have waited long enough begin, and not the first of them."""
    patch(Beginning, "_place", lambda _self: 0)


def say_ready_too_soon(patch: Patch) -> None:
    """Every frame says that its sender is ready."""
    header = Beginning.header
    patch(Beginning, "header", lambda self: evolve(header(self), is_ready=True))


def take_it_along(patch: Patch) -> None:
    """A node that leaves does not look whether anybody has what it has."""
    patch(Handover, "is_done", lambda _self: True)


def decide_too_soon(patch: Patch) -> None:
    """A node that is not ready decides with what it has."""
    patch(Startup, "decide", lambda _self, _key, *, cost=1: None)


def route_too_soon(patch: Patch) -> None:
    """A node that is not ready chooses among the workers that it knows."""
    patch(Startup, "check_route", lambda _self: None)


def let_files_win(patch: Patch) -> None:
    """What a file says goes before what was written."""
    get = PolicyStore.get

    def broken(self: Any, model_id: str) -> Any:
        default = self._defaults.get("policies", model_id)
        policy = get(self, model_id)
        if default is None or policy is None:
            return policy
        kind, config = default.value
        return evolve(policy, policy_type=kind, config=config)

    patch(PolicyStore, "get", broken)


def forget_without_a_majority(patch: Patch) -> None:
    """Whoever has been Down for long enough is forgotten on every side."""
    patch(Electorate, "may_forget", lambda _self, _member: True)


def take_half_for_a_majority(patch: Patch) -> None:
    """Two halves both take themselves for the larger side."""
    judge = PartitionDetector.judge

    def broken(self: Any, members: Any, **sets: Any) -> Any:
        view = judge(self, members, **sets)
        is_half = 2 * view.reachable_count == view.quorum_of
        return evolve(view, state=PartitionState.WITH_QUORUM) if is_half else view

    patch(PartitionDetector, "judge", broken)


def compare_with_the_peak(patch: Patch) -> None:
    """More than half of as many as ever were in reach at once will do."""
    found = Electorate._newly_left_out

    def broken(self: Any, view: Any) -> Any:
        if 2 * view.reachable_count > self._members.peak_count:
            return [self._members.get(name) for name in view.unreachable]
        return found(self, view)

    patch(Electorate, "_newly_left_out", broken)


def take_silence_for_an_end(patch: Patch) -> None:
    """Of two, the one that hears nothing of the other takes itself for whole."""
    found = Electorate._newly_left_out

    def broken(self: Any, view: Any) -> Any:
        self._is_silence_an_end = True
        return found(self, view)

    patch(Electorate, "_newly_left_out", broken)


def remove_only_what_is_there(patch: Patch) -> None:
    """Who removes a worker raises no epoch where it holds nothing of it; nobody looks again."""
    shut = MeshSyncManager._shut_tenant

    def broken(self: Any, worker_id: str, model_id: str) -> Any:
        return shut(self, worker_id, model_id) if self.trees.holds(model_id, worker_id) else None

    patch(MeshSyncManager, "_shut_tenant", broken)
    patch(Departures, "_follow", lambda _self, _worker_ids: [])
    patch(Departures, "late", lambda _self, _model_id, _tenants: [])
    patch(WorkerStore, "removed_at", lambda _self, _worker_id: None)


def leave_the_trees_alone(patch: Patch) -> None:
    """A worker is removed, and what it has cached stays."""
    for name in ("_shut_tenant", "_forget_tenant"):
        patch(MeshSyncManager, name, lambda _self, _worker_id, _model_id: None)
    patch(MeshSyncManager, "_shut_all", lambda _self, _gone: None)


def trust_a_killed_placer(patch: Patch) -> None:
    """What a node places that has not heard of a removal is left to that node to drop."""
    patch(TreeSync, "_is_shut", lambda _self, _document, _model_id, _tenant: False)
    patch(MeshSyncManager, "_drop_late", lambda _self, _model_id, _change: None)


def count_half_of_a_grant(patch: Patch) -> None:
    """An owner of a rate limit counts half of what it grants."""
    grant = OwnedKey._grant

    def broken(self: Any, *asked: Any) -> Any:
        before = self.used
        answer = grant(self, *asked)
        self.used = before + (self.used - before) // 2
        return answer

    patch(OwnedKey, "_grant", broken)


MUTATIONS = tuple(
    Mutation(apply.__name__, apply)
    for apply in (
        skip_tie_break,
        forget_tombstones,
        advance_over_gap,
        accept_stale_incarnation,
        never_refute,
        believe_in_naive_stability,
        trust_every_byte,
        be_deaf_to_stamps,
        reuse_the_writer,
        never_heal,
        trim_what_others_lack,
        keep_what_comes_late,
        wake_without_end,
        ignore_removals_from_a_set,
        add_up_counters,
        believe_a_newcomer,
        begin_all_at_once,
        begin_out_of_turn,
        say_ready_too_soon,
        take_it_along,
        decide_too_soon,
        route_too_soon,
        let_files_win,
        forget_without_a_majority,
        take_half_for_a_majority,
        remove_only_what_is_there,
        trust_a_killed_placer,
        leave_the_trees_alone,
        count_half_of_a_grant,
    )
)
