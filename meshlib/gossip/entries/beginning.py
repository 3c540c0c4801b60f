"""Who may begin: when a node holds what its cluster holds, and may say that it is ready.

Rules this file owns:
- What a peer has is a goal only when that peer was ready as it said so: two that have just
  started would take each other's nothing for everything.
- A node that is told of nobody else is its own cluster, and begins at once. It may be the first of
  a cluster, and have been restarted: for `bootstrap_listen_s`, in which members that know it dial
  it, it holds up whoever rolls the cluster, or the next ones to go would take the rest along.
- Among nodes of which none is ready the one with the newest stored state begins, else the lowest
  name, once no ready peer was heard for `bootstrap_after_s`; the others take its state. The
  second of that order waits twice as long, the third three times, and so on: one that should
  begin and never does holds nobody up for ever.
- A node that met nobody may begin too. It does not know whether there is a cluster: when it meets
  a ready peer it is not ready until it has what that one has. Peers may go on taking its own state
  meanwhile, or two such nodes would wait for each other; who knows another ready peer does not.
- Who has the state of one that began alone knows no more than that one: for `bootstrap_listen_s`
  it says so, is no proof of a cluster, and when it hears of one it is not ready until it has what
  that holds. The one that began alone does so until somebody has had its state for long enough for
  all who know it to have dialled it: then it has a cluster, of which it need not have heard all.
- A peer that was reached and does not let this node in shows that there is a cluster: as long as it
  says so this node does not begin alone beside it, and is ready no longer if it has. A rollout that
  skips a release, or has the wrong token, stops there and splits nothing.
- Who has what a ready peer has, and was met by others, is not ready before their answers have shown
  how its clock stands beside a majority's, if they come: a ready node is written to at once, and
  what is stamped far ahead would replace what is newer.
- Nobody begins with fewer than `bootstrap_expect` members in reach, or while a ready one is.
- A node that comes back after a long absence is not ready to its peers before it has taken their
  state, whatever it is to itself: what it has may have been removed meanwhile.

What two that both began have is joined by anti-entropy, as ever. Readiness is told in the header of
every frame, and only when all messages in the frame were made while it was so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from attrs import define, frozen

from meshlib.gossip.clock_offsets import ClockOffsets
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.events import Began, Rejoined
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.reports import EventQueue
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.membership import MemberRecord, MemberStatus
from meshlib.replication import Replica, marked_number

__all__ = ["Beginning", "NodeState", "SyncProgress"]

GOAL_S = 10.0
"""A peer's vector that was not reached in this time is replaced by a newer one as the goal: the
peer may be gone, and what only it had with it."""

DENIED_S = 60.0
"""How long a peer's word counts that it does not let this node in, in seconds: it is dialled, and
says so, far more often."""

CONTACT_S = 1.0
"""How long a seed that is there takes at most, as a rule, until its first answer, in seconds."""

LOOK_S = 0.25
"""How often a node that is not ready looks whether it may begin."""


class NodeState(StrEnum):
    """What a node is doing, in one word."""

    STARTING = "starting"
    JOINING = "joining"
    SYNCING = "syncing"
    READY = "ready"
    ISOLATED = "isolated"
    DRAINING = "draining"
    STOPPED = "stopped"


@frozen(slots=True, kw_only=True)
class SyncProgress:
    """How much of what a node waits for is in.

    Args:
        done: what came.
        total: how much there is, about: it may grow, and other nodes go on writing.
        unit: what is counted: `entries` of a state, or `writes` of the log.
    """

    done: int
    total: int
    unit: str


@define(slots=True, kw_only=True)
class _Heard:
    """What a member said of itself last.

    Args:
        actor: the writer it was then; another one means that it began again.
        is_newcomer: whether it was not ready yet when it was heard first.
        is_ready: whether it was ready.
        is_leaving: whether it was about to leave.
        is_alone: whether it had begun alone, and had found no cluster yet.
        stored_at_ms: of when its stored state is.
        at: when it was heard, in monotonic seconds.
    """

    actor: ActorId
    is_newcomer: bool
    is_ready: bool = False
    is_leaving: bool = False
    is_alone: bool = False
    stored_at_ms: int = 0
    at: float = 0.0


class Beginning:
    """Decides when this node is ready.

    Args:
        config: the settings.
        cluster: the cluster's name, for the header of frames.
        replica: what this node holds.
        view: this node among its members.
        offsets: how the members' clocks stand.
        timers: let it look again.
        events: hears how it began.
        now: monotonic seconds.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        cluster: str,
        replica: Replica,
        view: MembershipView,
        offsets: ClockOffsets,
        timers: TimerQueue,
        events: EventQueue,
        now: float,
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._replica = replica
        self._view = view
        self._offsets = offsets
        self._timers = timers
        self._events = events
        self._heard: dict[str, _Heard] = {}
        self._goal: Mapping[ActorId, int] | None = None
        self._goal_set_at = now
        self._is_goal_lone = False
        self._since = self._joined_at = now
        self._is_armed = False
        self._denied_at: float | None = None
        self._listens_until = -math.inf
        self._followed_at: float | None = None
        """Since when somebody is known to be ready by what this node had when it began alone."""
        self._is_started = False
        self._has_entered = False
        self._has_others = False
        self._is_alone = False
        self._is_ready_told = False
        """Whether this node was ready after its frames were packed last."""
        self._told: tuple[MemberRecord, bool, bool, bool, int] | None = None
        self._header: FrameHeader
        """Of the frames that were packed last: it seldom changes, and is asked for at each step."""
        self.stored_at_ms = 0
        """Of when the state is that it began with; see `FrameHeader`."""
        self.has_met = False
        self.is_ready = False

    # What it looks like from outside

    @property
    def tells_ready(self) -> bool:
        """Whether peers may take this node's vector for their goal."""
        return (self.is_ready or self._is_alone) and not self._replica.is_rejoining

    @property
    def wants_goal(self) -> bool:
        """Whether this node looks for a ready peer whose state it takes."""
        return not self.is_ready or self._replica.is_rejoining

    @property
    def state(self) -> NodeState:
        """What this node is doing."""
        if self._view.is_draining or self._view.is_leaving:
            return NodeState.DRAINING
        if not self._is_started:
            return NodeState.STARTING
        if not self.is_ready:
            return NodeState.SYNCING if self._view.peers() else NodeState.JOINING
        return NodeState.ISOLATED if self._is_isolated else NodeState.READY

    @property
    def _is_isolated(self) -> bool:
        """Whether this node knows of others and has met nobody yet."""
        return self._has_others and not self.has_met

    @property
    def has_others(self) -> bool:
        """Whether this node was told of others, or knows them from before a restart."""
        return self._has_others

    def problem(self) -> str:
        """Say in one line why this node is not ready, or that it is alone; empty when all is well.

        O(members).
        """
        state = self.state
        if state is NodeState.ISOLATED:
            return "isolated: no peer was met since the start; going on alone"
        if state is NodeState.DRAINING:
            return "leaving"
        if self.is_ready:
            is_back = self._replica.is_rejoining
            return "back after a long absence: what changed meanwhile is awaited" if is_back else ""
        if state is NodeState.STARTING:
            return "not ready: it has not begun to join"
        if self.ready_peers():
            return "not ready: the state of the cluster is still on its way"
        count, expected = self._view.reachable_count(), self._config.bootstrap_expect
        if count < expected:
            return f"not ready: {count} of the {expected} nodes that it takes to begin are here"
        if state is NodeState.JOINING and self._denied_at is not None:
            return "not ready: a peer was reached that does not let this node in"
        if state is NodeState.JOINING:
            return "not ready: no peer was met yet"
        return "not ready: none of the peers in reach is ready yet"

    def progress(self) -> SyncProgress | None:
        """Return how much of what this node waits for is in; None unless it is `syncing`.

        Of a state on its way, in entries; else of the goal's writes, once there is one. O(actors).
        """
        if self.state is not NodeState.SYNCING:
            return None
        done, total = self._replica.arrived()
        if total:
            return SyncProgress(done=done, total=total, unit="entries")
        if self._goal is None:
            return None
        vector = self._replica.version_vector
        wanted = {actor: marked_number(number) for actor, number in self._goal.items()}
        done = sum(min(vector.get(actor, 0), number) for actor, number in wanted.items())
        return SyncProgress(done=done, total=sum(wanted.values()), unit="writes")

    def ready_peers(self) -> list[str]:
        """Return the members in reach that said last that they are ready, sorted. O(members)."""
        return [m.name for m in self._view.peers() if self._is_known(m.name, m.actor, True)]

    def unready_peers(self) -> list[str]:
        """Return the members in reach that said last that they are not, sorted. O(members)."""
        return [m.name for m in self._view.peers() if self._is_known(m.name, m.actor, False)]

    def _is_known(self, name: str, actor: ActorId, is_ready: bool) -> bool:
        heard = self._heard.get(name)
        return heard is not None and heard.actor == actor and heard.is_ready is is_ready

    def is_listening(self, now: float) -> bool:
        """Tell whether it began with nobody, or by one who did, and members may know it. O(1)."""
        return self.is_ready and now < self._listens_until

    @property
    def _knows_nobody(self) -> bool:
        """Whether what this node knows is of one that had met nobody: itself, or who let it in."""
        return self._is_alone or self.is_listening(self._timers.now)

    def heard_since(self, name: str, since: float) -> tuple[bool, bool] | None:
        """Return whether a member was ready and leaving when heard, None if not since then."""
        heard, member = self._heard.get(name), self._view.members.get(name)
        if heard is None or member is None or heard.actor != member.actor or heard.at < since:
            return None
        return heard.is_ready, heard.is_leaving

    def is_comparing_clocks(self, now: float) -> bool:
        """Tell whether this node waits for its peers' clocks before it is ready. O(members).

        Whoever met it first may not have told it yet how many they are.
        """
        if self.is_ready or not self.has_met:
            return False
        return self._is_entering(now) or self._offsets.is_awaited(now)

    def is_about_to_compare(self, now: float) -> bool:
        """Tell whether it does, or has just asked seeds to let it in. O(members) at most."""
        if self.is_ready:
            return False
        return self._is_entering(now) or self._offsets.is_awaited(now)

    def _is_entering(self, now: float) -> bool:
        """Tell whether seeds were asked a moment ago, and none has told yet whom there is."""
        is_asking = self._is_started and self._has_others and not self._has_entered
        return is_asking and now - self._joined_at < CONTACT_S

    def note_entered(self) -> None:
        """Take note that a peer has told whom there is."""
        self._has_entered = True

    # What happens to it

    def start(self, seeds: Iterable[str], now: float, *, may_find_more: bool) -> None:
        """Begin at once when nobody else is to be met, else wait for a ready peer.

        Args:
            seeds: the addresses that were given, this node's own among them or not.
            now: monotonic seconds.
            may_find_more: whether the source of the seeds may tell of others later.
        """
        given = tuple(seeds)
        others = [seed for seed in given if seed != self._view.record.address]
        self._has_others = self._has_others or bool(others) or (may_find_more and not given)
        if self._is_started:
            return
        self._is_started = True
        self._since = self._joined_at = now
        is_own_cluster = not others and not may_find_more
        if is_own_cluster and self._config.bootstrap_expect <= 1:
            if not self.stored_at_ms:
                self._listens_until = now + self._config.bootstrap_listen_s
            self._begin(now, is_final=False)
        self._arm(now)

    def note_others(self) -> None:
        """Take note that there were others before a restart: who meets none of them is isolated."""
        self._has_others = True

    def restart(self, now: float, *, contact_at: float) -> None:
        """Take note that this node comes back as a new writer.

        Its readers are served from what it had, so what it was to them it stays.

        Args:
            now: monotonic seconds.
            contact_at: when it was last in contact with the others.
        """
        self.note_stored(max(0.0, now - contact_at))
        self._goal, self._is_goal_lone = None, False
        self._is_alone = self._is_ready_told = False
        self._since = now
        if self._is_started:
            self._arm(now)

    def on_pause(self, now: float) -> None:
        """Wait anew after this process was stopped: who was ready meanwhile is still to be read."""
        self._since = now

    def deny(self, now: float) -> None:
        """Take note that a peer was reached that does not let this node in. O(1).

        One that has begun alone, and met nobody, is not ready any longer.
        """
        if not self._is_isolated:
            return
        self._denied_at = now
        if self._is_alone and self.is_ready:
            self.is_ready = False
            self._arm(now)

    def _is_denied(self, now: float) -> bool:
        """Tell whether a peer was reached of late that does not let this node in. O(1)."""
        return not self.has_met and self._denied_at is not None and now - self._denied_at < DENIED_S

    def note_stored(self, age_s: float) -> None:
        """Take note of how old the state is that this node begins with."""
        clock = self._replica.clock
        self.stored_at_ms = max(1, int((clock.wall_s() - age_s) * 1000))

    def forget(self, name: str) -> None:
        """Drop what is kept about a member that is gone."""
        self._heard.pop(name, None)

    def hear(self, header: FrameHeader, now: float) -> bool:
        """Take note of what a member says of itself in a frame. O(1).

        Returns:
            Whether it is no member that is known here, says that it is ready, and this node looks
            for one that is, or has nobody: it is to be asked then.
        """
        member = self._view.members.get(header.name)
        if member is None or member.actor != header.actor:
            return header.is_ready and (self.wants_goal or not self._view.peers())
        known = self._heard.get(header.name)
        if known is None or known.actor != header.actor:
            known = _Heard(actor=header.actor, is_newcomer=not header.is_ready)
            if len(self._heard) >= len(self._view.members):
                self._heard = {n: h for n, h in self._heard.items() if n in self._view.members}
            self._heard[header.name] = known
        known.is_ready = header.is_ready
        known.is_leaving = header.is_leaving
        known.is_alone = header.is_alone
        known.stored_at_ms = header.stored_at_ms
        known.at = now
        if header.is_ready and member.is_reachable:
            self._since = now
            if known.is_newcomer:
                self._note_follower(now)
            if self._is_goal_lone and not header.is_alone:
                self._goal, self._is_goal_lone = None, False
            is_proof = not known.is_newcomer and (self._is_alone or not header.is_alone)
            if is_proof and self.is_ready and self._knows_nobody:
                # There is a cluster after all.
                self.is_ready = False
                self._arm(now)
        return False

    def _note_follower(self, now: float) -> None:
        """Take note that somebody is ready who was not when it met this node."""
        if not (self._is_alone and self.is_ready):
            return
        if self._followed_at is None:
            self._followed_at = now
        config = self._config
        if now - self._followed_at > config.heal_interval_s + config.bootstrap_listen_s:
            self._is_alone = False

    def on_vector(self, vector: Mapping[ActorId, int], header: FrameHeader, now: float) -> None:
        """Take a ready peer's whole vector for the goal, unless there is one. O(actors)."""
        is_due = self._goal is None or now - self._goal_set_at > GOAL_S
        if is_due and self._is_worth_having(header):
            self._set_goal(vector, header, now)

    def _set_goal(self, vector: Mapping[ActorId, int], header: FrameHeader, now: float) -> None:
        self._goal, self._goal_set_at = dict(vector), now
        self._is_goal_lone = header.is_alone

    def on_equal(self, header: FrameHeader, now: float) -> None:
        """Take note that a peer's vector is this node's own."""
        if self._is_worth_having(header):
            if self.is_comparing_clocks(now):
                self._set_goal(self._replica.version_vector, header, now)
            else:
                self._catch_up(now, is_lone=header.is_alone)

    def _is_worth_having(self, header: FrameHeader) -> bool:
        """Tell whether this node waits for what the sender of a frame has."""
        if not header.is_ready or not self.wants_goal:
            return False
        return not header.is_alone or all(self._heard[n].is_alone for n in self.ready_peers())

    def is_worth_showing(self, header: FrameHeader) -> bool:
        """Tell whether readers may see at once what a ready peer sends of its state.

        A node that is not ready decides by it: it knows less itself. One that comes back, or went
        on alone, goes on with what it had.
        """
        is_filling = not self.is_ready and not self._replica.is_rejoining
        return is_filling and self._is_worth_having(header)

    def check_goal(self, now: float) -> None:
        """Become ready once the goal has been reached. O(actors) while there is one."""
        if self._goal is None or self.is_comparing_clocks(now):
            return
        if self._replica.reaches(self._goal):
            self._catch_up(now, is_lone=self._is_goal_lone)

    def _catch_up(self, now: float, *, is_lone: bool) -> None:
        self._is_alone = False
        self._listens_until = now + self._config.bootstrap_listen_s if is_lone else -math.inf
        self._become_ready(now, is_whole=True)

    # Beginning

    def _arm(self, now: float) -> None:
        """Look now and again whether this node may begin: one chain of timers."""
        if not self._is_armed and self.wants_goal:
            self._is_armed = True
            self._timers.set(now + LOOK_S, Timer(TimerKind.BEGIN))

    def on_begin_timer(self, _timer: Timer, now: float) -> None:
        """Begin if it is this node's turn, and look again later if it is not."""
        self._is_armed = False
        self.check_goal(now)  # some may not have answered in time
        if self._view.is_draining or self._view.is_leaving or not self.wants_goal:
            return
        if self._may_begin(now):
            # One that comes back keeps aside what it had, for as long as it may have been alone.
            self._begin(now, is_final=bool(self._view.peers()) or self._is_the_last())
        self._arm(now)

    def _is_the_last(self) -> bool:
        """Tell whether nobody is awaited: there never were others, or all of them left. O(members).

        Who is merely out of reach stays in the table of a node that is alone.
        """
        if not self._has_others:
            return True
        return self.has_met and not any(m.status is MemberStatus.DOWN for m in self._view.members)

    def _may_begin(self, now: float) -> bool:
        """Tell whether it is this node's turn to begin. O(members)."""
        config = self._config
        wait_s = config.bootstrap_after_s
        if not wait_s or now - self._since < wait_s:
            return False
        if self._view.reachable_count() < config.bootstrap_expect or self.ready_peers():
            return False
        if self._is_denied(now):
            return False
        return now - self._since >= wait_s * (1 + self._place())

    def _place(self) -> int:
        """Return how many of those in reach go before this node. O(members)."""
        own = (-self.stored_at_ms, self._view.name)
        others = [(name, self._heard[name]) for name in self.unready_peers()]
        return sum((-h.stored_at_ms, name) < own for name, h in others if not h.is_leaving)

    def _begin(self, now: float, *, is_final: bool) -> None:
        if not self.is_ready:
            self._is_alone, self._followed_at = not self.has_met, None
            if self._has_others or self.has_met:  # else nobody was waited for
                self._events.emit(
                    Began(peers=self._view.peer_names(), is_isolated=self._is_isolated)
                )
        elif not is_final:
            return
        self._become_ready(now, is_whole=is_final)

    def _become_ready(self, now: float, *, is_whole: bool) -> None:
        """Say ready from now on, and let those wait no longer who wait for somebody ready.

        Args:
            now: monotonic seconds.
            is_whole: whether a node that comes back has what it came back for.
        """
        self._goal, self._is_goal_lone = None, False
        self.is_ready = True
        if not self._replica.is_rejoining:
            self._replica.keep_early()
        if is_whole and self._replica.is_rejoining:
            report = self._replica.finish_rejoin()
            self._events.emit(
                Rejoined(old=report.old, new=report.new, kept=report.kept, lost=report.lost)
            )
        if self.tells_ready:
            # Due at once, but in a frame of its own: this one's messages were made before.
            self._timers.set(now, Timer(TimerKind.TELL_READY))

    def drain(self, now: float) -> None:
        """Let those in reach have what this node has kept aside, if none of them is ready."""
        if self._replica.is_rejoining and self._view.peers() and not self.ready_peers():
            self._become_ready(now, is_whole=True)

    def waiting_peers(self) -> list[str]:
        """Return the neighbours that wait for somebody ready. O(members)."""
        neighbours = set(self._view.neighbours())
        return [name for name in self.unready_peers() if name in neighbours]

    # The header

    def header(self) -> FrameHeader:
        """Return the header of the frames that are packed now.

        Ready is said only if it was so after the frames before these as well: then everything in
        them was made by a ready node.
        """
        view, record = self._view, self._view.record
        tells_ready = self.tells_ready
        is_ready = self._is_ready_told and tells_ready
        self._is_ready_told = tells_ready
        is_leaving = view.is_draining or view.is_leaving
        is_alone = self._knows_nobody
        # Whose state is the newest is asked of those that wait: who is ready need not say.
        stored_at_ms = 0 if is_ready else self.stored_at_ms
        told = (record, is_ready, is_leaving, is_alone, stored_at_ms)
        if told != self._told:
            self._told = told
            self._header = FrameHeader(
                self._cluster,
                record.name,
                record.incarnation,
                record.actor,
                record.address,
                is_ready=is_ready,
                is_leaving=is_leaving,
                is_alone=is_alone,
                stored_at_ms=stored_at_ms,
            )
        return self._header

    def diagnostics(self) -> Mapping[str, Any]:
        """Show whether this node is ready, what it waits for, and what others said."""
        return {
            "is_ready": self.is_ready,
            "tells_ready": self.tells_ready,
            "is_alone": self._is_alone,
            "is_started": self._is_started,
            "has_met": self.has_met,
            "has_others": self._has_others,
            "has_entered": self._has_entered,
            "stored_at_ms": self.stored_at_ms,
            "since": self._since,
            "goal": self._goal,
            "denied_at": self._denied_at,
            "listens_until": self._listens_until,
            "followed_at": self._followed_at,
            "heard": MappingProxyType(self._heard),
        }

    def _check(self) -> None:
        """Assert the invariants of readiness."""
        require(self, self._goal is None or self.wants_goal, "there is a goal, and none is wanted")
        require(self, self.tells_ready or not self._is_ready_told, "ready is said too soon")
        is_over = not (self.is_ready and self._replica.has_early)
        require(self, is_over, "a node is ready, and shows what it has not joined")
        are_known = all(name in self._view.members for name in self._heard)
        require(self, are_known, "what somebody said is kept who is forgotten")
        looks = self._timers.of(TimerKind.BEGIN)
        require(self, len(looks) == self._is_armed, "looking whether to begin is not due once")
        is_going = self._view.is_draining or self._view.is_leaving
        waits = self._is_started and self.wants_goal and not is_going
        require(self, self._is_armed or not waits, "it is never looked whether to begin")
