"""One whole node, without IO: membership, replication, stores, rate limits, routing.

The contract is the engine's: `receive` never raises on what a peer sent; after any call, a
local verb included, the driver drains `packets_to_send` and `events` and arms one timer for
`next_deadline`. Local verbs call `wakeup`, when one is set, so that the driver knows; and what
may wait a moment for more of its kind, as writes may, `wakeup_soon` where that is set.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from attrs import evolve

from meshlib.arguments import check_callable, check_kind, check_number, check_text
from meshlib.clock import HybridClock, MonotonicTime
from meshlib.crdt import Lattice
from meshlib.errors import ConfigError, MemberInReachError, UnknownKeyError
from meshlib.gossip import (
    DIALECTS,
    ClockOffset,
    Counters,
    Engine,
    Event,
    LinkEnd,
    NodeState,
    Packet,
    SyncProgress,
)
from meshlib.identity import ActorId, NodeId, actor_id, mint_incarnation
from meshlib.invariants import Diagnostics, Inspectable, check_parts
from meshlib.membership import MemberRecord, MemberStatus, PartitionView, ToldSeed, TopologyManager
from meshlib.node.clocks import ClockJudge
from meshlib.node.config import MeshConfig, check_own_address
from meshlib.node.departed import gone_for_long
from meshlib.node.health import Health, ProblemAges, judge_health
from meshlib.node.routing import RoutingVerbs
from meshlib.node.volatile import VolatileTraffic, unguarded
from meshlib.ratelimit import Decision, RateLimiter, Reservation
from meshlib.replication import (
    Change,
    ChangesDropped,
    Document,
    Replica,
    ReplicaState,
    StabilityTracker,
    WriteReceipt,
)
from meshlib.routing import PrefixSync, WorkerLeases
from meshlib.startup import UNKNOWN_YET, Startup
from meshlib.state import (
    WORKERS_DOCUMENT,
    WRITTEN_OFF_DOCUMENT,
    Documents,
    WrittenOff,
    check_free_name,
)
from meshlib.sync import MeshSyncManager

__all__ = ["MeshNode"]

COLLECT_INTERVAL_S: Final = 10.0
"""How often a node looks for what the files of nodes say that are gone, in seconds."""

LatticeT = TypeVar("LatticeT", bound=Lattice)


class MeshNode(RoutingVerbs):
    """One node: give it bytes and time, take packets and events.

    Args:
        config: who it is.
        rng: all chance of this node.
        wall_clock: seconds since 1970; it may jump. Marks writes, and nothing else.
        now: monotonic seconds.

    Raises:
        ConfigError: the configuration has no address, or the port of its address is still 0, so
            that nobody could reach it.
        InvalidTypeError: an argument of another type.

    Every `now` must be a reading of one monotonic clock, and is judged by `MonotonicTime` before
    anything is done: InvalidTypeError, InvalidValueError or ForeignClockError, with nothing
    changed, for what cannot be one.
    """

    def __init__(
        self,
        config: MeshConfig,
        *,
        rng: random.Random,
        wall_clock: Callable[[], float],
        now: float,
    ) -> None:
        _check_arguments(config, rng, wall_clock, now)
        self.config = config
        self.wakeup: Callable[[], None] | None = None
        self.wakeup_soon: Callable[[], None] | None = None
        self._time = MonotonicTime(now)
        incarnation = mint_incarnation(wall_clock(), rng)
        actor = actor_id(config.name, incarnation)
        clock = HybridClock(actor, wall_clock=wall_clock, skew_max_s=config.clock_skew_max_s)
        self.replica = Replica(
            actor=actor,
            clock=clock,
            config=config.replication,
            page_newest=DIALECTS[config.formats[1]].page_version,
        )
        self._tracker = StabilityTracker()
        self._written_off = WrittenOff(Documents(self.replica))
        self._engine = _engine_of(
            config,
            incarnation=incarnation,
            replica=self.replica,
            tracker=self._tracker,
            written_off=self._written_off,
            rng=rng,
            now=now,
        )
        self._clocks = ClockJudge(
            clock,
            offsets=self._engine.clock_offsets,
            partition=self._partition,
            is_comparing=self._engine.is_comparing_clocks,
            now=lambda: self._time.latest_s,
        )
        self.replica.on_write = self._told
        self.replica.check_write = self._clocks.check_write
        self.sync = MeshSyncManager(
            self.replica,
            members=self._engine.members,
            name=config.name,
            defaults=config.defaults,
            prefix_sync=PrefixSync.named(config.prefix_sync),
        )
        self.limiter = RateLimiter(
            config.name,
            actor=actor,
            limits=self.sync.limits,
            wall_clock=wall_clock,
            config=config.rate_limit,
            on_urgent=self._wake,
            read_time=self._time.follow,
            now=now,
        )
        self.startup = Startup(
            config.startup,
            limits=self.sync.limits,
            is_ready=lambda: self.is_ready,
            problem=self.state_problem,
        )
        self.sync.check_route = self.startup.check_route
        self._is_stopped = False
        self._speaks_several = config.formats[0] < config.formats[1]
        self.leases = WorkerLeases(self.sync.workers)
        self._volatile = VolatileTraffic(
            self._engine,
            replica=self.replica,
            limiter=self.limiter,
            leases=self.leases,
            load=self.sync.load,
        )
        self._noted_problems: dict[str, str] = {}
        self._problem_ages = ProblemAges()
        self._look_at = now
        self._collect_at = now + COLLECT_INTERVAL_S
        self._limiter_state: tuple[object, ...] | None = None
        self._inspected: tuple[Mapping[str, Inspectable], Mapping[str, Inspectable]] | None = None
        self._update_limiter()

    def set_guard(self, guard: Callable[[], None] | None) -> None:
        """Have every use by an application judged first; for whoever drives this node.

        Args:
            guard: called before anything is done, and raises to refuse it; None: nobody judges.
        """
        self.replica.guard = guard
        self.limiter.guard = guard

    # Who

    @property
    def name(self) -> str:
        """This node's name."""
        return self.config.name

    @property
    def node_id(self) -> NodeId:
        """This node's name and incarnation."""
        return self._engine.record.node_id

    @property
    def actor(self) -> ActorId:
        """The writer that this node is."""
        return self._engine.record.actor

    @property
    def address(self) -> str:
        """Where peers reach this node."""
        return self._engine.record.address

    @property
    def counters(self) -> Counters:
        """What happened so far, as numbers that only grow."""
        return self._engine.counters

    @property
    def members_revision(self) -> int:
        """Grows with every change of the member table: for caches."""
        return self._engine.members_revision + self._written_off.revision

    @property
    def has_joined(self) -> bool:
        """Whether a peer was met, or there is none to meet."""
        return self._engine.has_joined

    @property
    def is_ready(self) -> bool:
        """Whether this node holds what a ready peer held when they met, or has begun itself.

        Who may begin is told in `meshlib/gossip/entries/beginning.py`.
        """
        return self._engine.is_ready

    @property
    def is_listening(self) -> bool:
        """Whether this node is ready because it was told of nobody, a moment ago. O(1).

        Members of its cluster may know it from before a restart, and are about to dial it: whoever
        restarts nodes one after the other is to wait until this is over. `GET /readyz` says so.
        """
        return self._engine.is_listening(self._time.latest_s)

    @property
    def state(self) -> NodeState:
        """What this node is doing, in one word. O(1)."""
        return NodeState.STOPPED if self._is_stopped else self._engine.state

    def state_problem(self) -> str:
        """Say in one line why the state is not `ready`; empty when it is. O(members)."""
        if self._is_stopped:
            return "stopped"
        problem = self._engine.state_problem()
        if problem and not self.is_ready and (lag := self._clocks.lag_problem()):
            return f"not ready: {lag}"
        return problem

    def progress(self) -> SyncProgress | None:
        """Return how much is in of what this node waits for; None unless it is `syncing`.

        O(documents + actors).
        """
        return None if self._is_stopped else self._engine.progress()

    @property
    def format_spoken(self) -> int:
        """The newest format that this node and all members speak, and that is written therefore.

        It is the oldest that this node speaks until it is ready. See `FormatChanged`.
        """
        return self._engine.format_spoken

    @property
    def page_version(self) -> int:
        """The version in which pages of a state are to be kept: that of `format_spoken`."""
        return DIALECTS[self.format_spoken].page_version

    @property
    def page_newest(self) -> int:
        """The newest version of pages that this node reads."""
        return DIALECTS[self.config.formats[1]].page_version

    def export_state(self) -> ReplicaState:
        """Return all that is served, to be kept, as every member could read it. O(content)."""
        return self.replica.export_state(page_version=self.page_version)

    def members(self) -> tuple[MemberRecord, ...]:
        """Return every known member, this node included, sorted by name. O(n).

        But for those that are gone and were forgotten; see `forget`.
        """
        return tuple(
            member
            for member in self._engine.members()
            if member.is_reachable or member not in self._written_off
        )

    def counted_members(self) -> tuple[MemberRecord, ...]:
        """Return who counts beside this node, to be kept with its state. O(n)."""
        return self._engine.counted_members()

    def forget(self, name: str) -> WriteReceipt:
        """Say of a member that is gone that it does not come back; it counts for nothing then.

        Everywhere: it is in no majority, in no judgement and in no list of members. If it comes
        back after all it is a member like any other. Whoever says so of a member that lives on
        the other side of a broken network lets both sides take themselves for whole.

        Args:
            name: the member's; or the address of a seed where this node has never met anybody,
                which is not awaited any longer then.

        Raises:
            InvalidTypeError: the name is no text.
            UnknownKeyError: there is no such member, and no such seed.
            MemberInReachError: it is neither Down nor Leaving. State unchanged after either.
        """
        check_text("name", name)
        known = {member.name: member for member in self.members()}
        member = known.get(name)
        if member is not None and member.is_reachable:
            raise MemberInReachError(name, status=member.status)
        if member is None and name not in self._engine.unmet_seeds():
            raise UnknownKeyError("member", name)
        names = [one.name for one in self._engine.members()]
        receipt = self._written_off.add(member or ToldSeed(name), known=names)
        self._update_limiter()
        return receipt

    def health(self) -> Health:
        """Judge the cluster and this node's stores. O(members, documents, keys changed since)."""
        members = self._engine.members()
        now = self._time.latest_s
        health = judge_health(
            self._partition(),
            own_problem=self.state_problem(),
            noted_problems=(
                *self._noted_problems.values(),
                *self._engine.refused_releases(now),
                *self._clocks.problems(),
                *self.sync.defaults.differences(self._engine.reachable_names()),
                *self.sync.small_trees(),
            ),
            suspected=[one.name for one in members if one.status is MemberStatus.SUSPECTED],
            gone_s={one.name: now - self._engine.since(one.name) for one in members},
            diverged_from=self._engine.diverged_from(),
            store_problems=self.sync.problems(),
            incomplete=self.replica.incomplete_documents(),
        )
        return evolve(health, ages_s=self._problem_ages.of(health.problems, now))

    def _partition(self) -> PartitionView:
        """Judge whether a majority is in reach, of those who were not written off. O(members)."""
        return self._engine.partition()

    def diagnostics(self) -> Diagnostics:
        """Show what every part of it keeps, by the part's name. O(1).

        For a person who looks for a fault, and for tests: what is in it may change with any
        release. A part is read when it is asked for, and shows views of live state, which are to
        be read at once. There are names, addresses and keys among them: none of it is for a log.
        """
        return Diagnostics(self._inspectable())

    def _inspectable(self) -> Mapping[str, Inspectable]:
        of_engine = self._engine.inspectable()
        if self._inspected is None or self._inspected[0] is not of_engine:
            self._inspected = (
                of_engine,
                {
                    **of_engine,
                    "written_off": self._written_off,
                    "limiter": self.limiter,
                    "worker_leases": self.leases,
                    "load": self.sync.load,
                },
            )
        return self._inspected[1]

    def note_problem(self, kind: str, text: str) -> None:
        """Have a problem of the driver's told by `health`, or no longer. O(1).

        Args:
            kind: which one; a later text of the same kind takes its place.
            text: one line; empty when it is over.

        Raises:
            InvalidTypeError: one of them is no text. State unchanged.
        """
        check_text("kind", kind)
        check_text("text", text)
        if text:
            self._noted_problems[kind] = text
        else:
            self._noted_problems.pop(kind, None)

    def has_problem(self, kind: str) -> bool:
        """Tell whether a problem of this kind is noted. O(1)."""
        return kind in self._noted_problems

    def seen_by(self, receipt: WriteReceipt) -> frozenset[str]:
        """Return the peers known to hold a write, this node not counted. O(peers).

        Raises:
            InvalidTypeError: no receipt.
        """
        check_kind("receipt", receipt, WriteReceipt, wanted="a WriteReceipt")
        return self._tracker.seen_by(self.replica.writer_of(receipt), receipt.sequence)

    def request_acknowledgements(self, *, is_wanted: bool) -> None:
        """Ask peers to acknowledge entries at once instead of with the next exchange."""
        self._engine.request_acknowledgements(is_wanted=is_wanted)

    # Documents and decisions

    def document(self, name: str, kind: type[LatticeT]) -> Document[LatticeT]:
        """Return a document with its type, made empty when it is not there; see `Document`. O(1).

        Args:
            name: the same on every node; none that `check_free_name` says is the library's own.
            kind: a registered class of lattices.
        """
        check_free_name(name)
        return Document(self.replica, name, kind=kind)

    def acquire(self, key: str, *, cost: int = 1, now: float) -> Decision:
        """Decide whether a request may pass, and count it when it may. O(1), and never waits.

        As `RateLimiter.acquire`, once the limit is known here.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key; `StartupConfig`.
            LocalError: as `RateLimiter.acquire`. Nothing is counted.
        """
        early = self.startup.decide(key, cost=cost)
        return self.limiter.acquire(key, cost=cost, now=now) if early is None else early

    def acquire_many(self, costs: Mapping[str, int], *, now: float) -> Decision:
        """Decide on the limits of several keys, all or nothing; as `RateLimiter.acquire_many`.

        Raises:
            NotReadyError: as `acquire`, for any of the keys.
            LocalError: as `RateLimiter.acquire_many`. Nothing is counted.
        """
        check_kind("costs", costs, Mapping, wanted="a mapping of keys to units")
        left = costs if self.is_ready else self.startup.still_to_decide(costs)
        if costs and not left:
            return UNKNOWN_YET
        return self.limiter.acquire_many(left, now=now)

    def reserve(
        self, key: str, *, estimate: int, lease_s: float = 600.0, now: float
    ) -> Reservation:
        """Count an estimate, to be settled later; as `RateLimiter.reserve`.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.reserve`. Nothing is counted.
        """
        self.startup.check_limit(key)
        return self.limiter.reserve(key, estimate=estimate, lease_s=lease_s, now=now)

    def settle(self, reservation: Reservation | str, *, actual: int, now: float) -> None:
        """Count what was used in the place of an estimate; as `RateLimiter.settle`.

        Raises:
            LocalError: as `RateLimiter.settle`. Nothing is counted.
        """
        self.limiter.settle(reservation, actual=actual, now=now)

    def peek(self, key: str, *, cost: int = 1, now: float) -> Decision:
        """Tell what `acquire` would decide, by what is known here; as `RateLimiter.peek`.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.peek`.
        """
        self.startup.check_limit(key)
        return self.limiter.peek(key, cost=cost, now=now)

    def refund(self, key: str, *, cost: int = 1, now: float) -> None:
        """Give units back that were admitted and not used; as `RateLimiter.refund`.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.refund`. Nothing is given back.
        """
        self.startup.check_limit(key)
        self.limiter.refund(key, cost=cost, now=now)

    def reset_limit(self, key: str, *, now: float) -> None:
        """Let nothing of a key's limits be used any more; as `RateLimiter.reset`.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.reset`.
        """
        self.startup.check_limit(key)
        self.limiter.reset(key, now=now)

    def renew_worker(self, worker_id: str, *, now: float) -> None:
        """Take note that a worker with a `ttl_s` lives, and tell the others; see `WorkerLeases`.

        No write: its version stays, and nothing is logged.

        Raises:
            UnknownKeyError: there is none of that id.
            InvalidValueError: it has no `ttl_s`. State unchanged after either.
        """
        self.leases.renew(worker_id, now=self._time.follow(now))
        self._told()

    # The driver's side

    def note_time(self, now: float) -> None:
        """Take a reading of the driver's clock and do nothing else; see `MonotonicTime`."""
        self._time.advance(now)

    def restore(
        self, state: ReplicaState, *, age_s: float, now: float, members: Iterable[MemberRecord] = ()
    ) -> None:
        """Begin with a state that was kept on disk, before `join`. See `Engine.restore`."""
        self._engine.restore(state, age_s=age_s, now=self._time.advance(now), members=members)
        self._settle()
        self.sync.note_all()
        self._written_off.follow()
        self.leases.follow_all(now=self._time.latest_s)

    def join(self, seeds: Iterable[str], *, now: float, may_find_more: bool = False) -> None:
        """Ask seeds to let this node in; dial them for ever after. See `Engine.join`."""
        self._engine.join(seeds, now=self._time.advance(now), may_find_more=may_find_more)
        self._settle()

    def drain(self, *, now: float) -> None:
        """Say that this node is about to leave; `leave` is to follow. See `Engine.drain`."""
        self._engine.drain(now=self._time.advance(now))

    @property
    def has_handed_over(self) -> bool:
        """Whether others have confirmed all that this node held when it began to drain.

        Also when nobody is left in reach who could. O(members).
        """
        return self._engine.has_handed_over

    def leave(self, *, now: float) -> None:
        """Flush what was written, hand on the counts of limits, say goodbye to every peer."""
        now = self._time.advance(now)
        self._volatile.send(self.limiter.leave(now=now))
        self._engine.leave(now=now)

    def stop(self) -> None:
        """Take note that nobody drives this node any more: its state is `stopped`."""
        self._is_stopped = True

    def receive(self, data: bytes, *, sender: str, now: float) -> None:
        """Take in one frame. Never raises on what a peer sent. O(size)."""
        now = self._time.advance(now)
        self._engine.receive(data, sender=sender, now=now)
        self._volatile.receive(sender=sender, now=now)
        self._settle()

    def handle_timer(self, now: float) -> None:
        """Do everything that is due."""
        now = self._time.advance(now)
        self._engine.handle_timer(now)
        self._settle()  # what has changed may make something due for the limiter
        self._volatile.tick_limiter(now)
        self._volatile.tick_load(now)
        if self._volatile.tick_leases(now):
            self._remove_overdue()
        if now >= self._look_at:
            self._look_at = now + ProblemAges.LOOK_INTERVAL_S
            with unguarded(self.replica):
                self.health()
        if now >= self._collect_at:
            self._collect_at = now + COLLECT_INTERVAL_S
            self._collect_defaults()
        self._settle()

    @property
    def is_comparing_clocks(self) -> bool:
        """Whether this node has just asked others how its clock stands: writes had better wait."""
        return self._engine.is_about_to_compare(self._time.latest_s)

    def clock_offsets(self) -> list[ClockOffset]:
        """Return how far the wall clocks of the members in reach are from this one's. O(members).

        Those that have been measured, sorted by name.
        """
        return list(self._engine.clock_offsets(self._time.latest_s))

    def round_trips_s(self) -> Mapping[str, float]:
        """Return how long members take to answer a probe, in seconds, by name. O(1).

        A moving mean of those that were probed by this node.
        """
        return self._engine.round_trips_s()

    @property
    def _is_first_in_reach(self) -> bool:
        """Whether this node does what one node does for all. O(members).

        None that leaves does, and when all do nobody is in reach.
        """
        return self._engine.reachable_names()[:1] == [self.name]

    def _remove_overdue(self) -> None:
        """Remove workers that are long gone, where it is this node's turn."""
        is_our_turn = self.is_ready and self._partition().has_quorum and not self._clocks.is_ahead()
        if is_our_turn and self._is_first_in_reach:
            with unguarded(self.replica):
                for worker_id in self.leases.overdue():
                    if self.sync.get_worker_state(worker_id) is not None:
                        self.sync.remove_worker_state(worker_id)

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` is to be called next, in monotonic seconds."""
        engine_due, volatile_due = self._engine.next_deadline(), self._volatile.next_deadline()
        if engine_due is None or (volatile_due is not None and volatile_due < engine_due):
            return volatile_due
        return engine_due

    def packets_to_send(self) -> list[Packet]:
        """Return the frames to send, local writes flushed; drains. O(size)."""
        if self._speaks_several:
            self._engine.agree_on_format()
        packets = self._engine.packets_to_send()
        self._follow_changes()  # sending changes no member
        return packets

    def events(self) -> list[Event]:
        """Return what happened since the last call; drains."""
        events = self._engine.events()
        if events and any(isinstance(event, ChangesDropped) for event in events):
            with unguarded(self.replica):
                self.sync.publish_loss()
                self.leases.follow_all(now=self._time.latest_s)
        return events

    def connection_lost(self, address: str, *, now: float, end: LinkEnd = LinkEnd.BROKEN) -> None:
        """Learn that a link broke or could not be made. See `Engine.connection_lost`."""
        now = self._time.advance(now)
        self._engine.connection_lost(address, now=now, end=end)
        self._settle()

    def heard_again(self) -> list[str]:
        """Return the addresses that could not be reached, and from where a frame came; drains.

        Their peers are there again, wait for an answer, and are to be dialled without a pause.
        """
        return self._engine.heard_again()

    def link_state(self, address: str, *, is_busy: bool, now: float) -> None:
        """Learn that a link has more to carry than it takes, or is free again."""
        self._engine.link_state(address, is_busy=is_busy, now=self._time.advance(now))

    def excuse_all(self, now: float) -> None:
        """Hold nobody's silence until now against them. See `Engine.excuse_all`."""
        self._engine.excuse_all(self._time.advance(now))

    # Inside

    def _wake(self) -> None:
        if self.wakeup is not None:
            self.wakeup()

    def _settle(self) -> None:
        """Bring the stores and the limiter up to what has just changed below them."""
        self._follow_changes()
        self._update_limiter()
        if self.sync.defaults.is_stale and self.is_ready and not self._clocks.is_ahead():
            with unguarded(self.replica):
                self.sync.defaults.keep()
            self._settle()

    def _follow_changes(self) -> None:
        changes = self.replica.changes()
        if changes:
            self._follow(changes)

    def _follow(self, changes: Sequence[Change]) -> None:
        """Tell each who keeps something beside the documents what has changed in them."""
        documents = [change.document for change in changes]
        with unguarded(self.replica):
            self.sync.publish(changes)
            if WORKERS_DOCUMENT in documents:
                self.leases.follow(changes, now=self._time.latest_s)
                self.sync.ages.follow(
                    changes, now=self._time.latest_s, is_settled=self._engine.is_ready
                )
            if WRITTEN_OFF_DOCUMENT in documents:
                self._written_off.follow()

    def _collect_defaults(self) -> None:
        """Remove what the files of nodes say that are gone for long, where it is our turn."""
        said_by = self.sync.defaults.said_by()
        if not (said_by and self.is_ready and self._is_first_in_reach):
            return
        if not self._partition().has_quorum:
            return
        now = self._time.latest_s
        for name in gone_for_long(said_by, self._engine, written_off=self._written_off, now=now):
            with unguarded(self.replica):
                self.sync.defaults.remove(name)

    def _update_limiter(self) -> None:
        """Tell the limiter of the members, when they or what this node knows have changed."""
        # Asked after every frame: one look at the engine.
        seen = (self._engine.standing, self._written_off.revision, self._is_stopped)
        if seen == self._limiter_state:
            return
        self._limiter_state = seen
        state = self.state
        self._volatile.update_members(self._time.latest_s)
        partition = self._partition()
        # All may have begun alone at once beside others that they were told of.
        is_alone = state is NodeState.ISOLATED and not partition.has_quorum
        is_waiting = state is NodeState.JOINING or is_alone
        self.limiter.update_members(
            self._engine.reachable_names(),
            has_quorum=partition.has_quorum and not is_waiting,
            member_count=partition.quorum_of,
            has_met=not is_waiting,
            is_ready=self.is_ready,
            now=self._time.latest_s,
        )

    def _check(self, turn: int | None = None) -> None:
        """Assert the invariants of everything inside, or of one part in its turn.

        Raises:
            BrokenInvariant: one does not hold.
        """
        check_parts(self._inspectable(), turn=turn)


def _check_arguments(
    config: MeshConfig, rng: random.Random, wall_clock: Callable[[], float], now: float
) -> None:
    """Refuse what no node can be made of; see `MeshNode`."""
    check_kind("config", config, MeshConfig, wanted="a MeshConfig")
    check_kind("rng", rng, random.Random, wanted="a random.Random")
    check_callable("wall_clock", wall_clock, wanted="a function that returns seconds")
    check_number("now", now, wanted="a number of seconds")
    if config.address is None:
        raise ConfigError("a node needs an address; a runtime takes its transport's")
    check_own_address(config.address, port_min=1)


def _engine_of(
    config: MeshConfig,
    *,
    incarnation: int,
    replica: Replica,
    tracker: StabilityTracker,
    written_off: WrittenOff,
    rng: random.Random,
    now: float,
) -> Engine:
    """Make the engine of a node, whose address has been checked."""
    assert config.address is not None
    record = MemberRecord(
        name=config.name,
        incarnation=incarnation,
        address=config.address,
        actor=replica.actor,
        region=config.region,
        zone=config.zone,
        formats=config.formats,
    )
    return Engine(
        cluster=config.cluster_name,
        record=record,
        config=config.gossip,
        replica=replica,
        tracker=tracker,
        topology=TopologyManager(config.name, full_mesh_threshold=config.full_mesh_threshold),
        written_off=written_off,
        rng=rng,
        now=now,
    )
