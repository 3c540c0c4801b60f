"""Histories: what a few replicas did, replayed from a program of plain steps.

A step is a tuple of literals, so the same program can be shrunk, printed, and replayed by
another process:

    ("perform", replica, operation, {argument: value})
    ("deliver", replica, number)       the number-th delta so far, in any order, any number of times
    ("exchange", replica, other)       the replica joins the whole state of the other
    ("restart", replica, disk)         a new incarnation: with its state, or with an empty disk

Rule: whoever joins states to tell what a history leads to does it in this file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from attrs import define, field, frozen

from meshlib.clock import Stamp
from meshlib.crdt import Dot
from meshlib.errors import InvalidValueError
from meshlib.identity import ActorId, actor_id
from meshlib.testing.laws.spec import CRDTSpec, Event, OperationContext

__all__ = ["DISK_KEPT", "DISK_LOST", "History", "Program", "Refusal", "Step", "Transition"]

S = TypeVar("S")

Step = tuple[Any, ...]
Program = Sequence[Step]

DISK_KEPT: Final = "disk kept"
DISK_LOST: Final = "disk lost"


@define(slots=True, kw_only=True)
class _Replica(Generic[S]):
    state: S
    actor: ActorId
    incarnation: int = 1
    sequence: int = 0
    next_dot: int = 1
    time: int = 0
    absorbed: dict[int, Event] = field(factory=dict)  # whose delta was joined
    visible: dict[int, Event] = field(factory=dict)  # and what those deltas carry along


@frozen(slots=True, kw_only=True)
class Transition(Generic[S]):
    """One write as its replica saw it.

    Args:
        event: the write.
        before: the state it was made on.
        after: that state joined with the delta.
        full: what the operation's `full` returned; None when it has none.
    """

    event: Event
    before: S
    after: S
    full: S | None


@frozen(slots=True, kw_only=True)
class Refusal(Generic[S]):
    """One write that the type refused.

    Args:
        operation: its name.
        before: the state as the deltas that had arrived make it.
        after: the state after the attempt.
        error: why it was refused.
    """

    operation: str
    before: S
    after: S
    error: Exception


class History(Generic[S]):
    """Replicas of one type, what they wrote, and what each of them has.

    Args:
        spec: the type.
        replica_count: how many replicas there are; at least 1.
        is_in_place: absorb deltas in place where the type can, as a replica of a mesh does,
            instead of joining them into new states.
    """

    def __init__(self, spec: CRDTSpec[S], *, replica_count: int, is_in_place: bool = False) -> None:
        self.spec = spec
        self.events: list[Event] = []
        self.transitions: list[Transition[S]] = []
        self.refusals: list[Refusal[S]] = []
        self.dots: set[Dot] = set()
        self.is_actor_used = False
        self.is_stamp_used = False
        self.log: list[tuple[Any, ...]] = []  # what happened, for `told`
        self._absorb = spec.absorb if is_in_place else None
        self._replicas = [
            _Replica(state=spec.bottom(), actor=actor_id(f"replica {number}", 1))
            for number in range(replica_count)
        ]

    @property
    def replica_count(self) -> int:
        """How many replicas there are."""
        return len(self._replicas)

    def run(self, program: Program) -> None:
        """Take each step in turn. Steps that do not fit (nothing to deliver yet) do nothing."""
        for kind, replica, *rest in program:
            if kind == "perform":
                self.perform(replica, rest[0], rest[1])
            elif kind == "deliver":
                if self.events:
                    self.deliver(replica, self.events[rest[0] % len(self.events)])
            elif kind == "exchange":
                self.exchange(replica, rest[0])
            elif kind == "restart":
                self.restart(replica, is_disk_lost=rest[0] == DISK_LOST)
            else:
                raise InvalidValueError(f"no step is called {kind!r}")

    def state(self, replica: int) -> S:
        """Return the state of one replica. It is the replica's own: do not change it."""
        return self._replicas[replica].state

    def states(self) -> list[S]:
        """Return the state of each replica, in order."""
        return [replica.state for replica in self._replicas]

    def visible(self, replica: int) -> list[Event]:
        """Return the events that one replica must show, by index. O(n log n)."""
        return _in_order(self._replicas[replica].visible)

    def absorbed(self, replica: int) -> list[Event]:
        """Return the events whose deltas have reached one replica, by index. O(n log n)."""
        return _in_order(self._replicas[replica].absorbed)

    def perform(self, replica: int, operation: str, arguments: Mapping[str, Any]) -> Event | None:
        """Let one replica perform an operation; None when the type refused it.

        Mutable arguments are changed once the operation is done: a type that keeps a reference
        to one instead of its bytes will not agree with its peers for long.
        """
        here = self._replicas[replica]
        rule = self.spec.operations[operation]
        self.log.append(("perform", replica, operation, arguments, len(self.events)))
        context = self._context(here)
        given = {name: copy.deepcopy(value) for name, value in arguments.items()}
        try:
            delta = rule.apply(here.state, context, **given)
        except self.spec.refusals as error:
            self.log[-1] = ("refuse", replica, operation, arguments, error)
            self._refused(here, operation, error)
            return None
        self.is_actor_used |= context.is_actor_used
        self.is_stamp_used |= context.is_stamp_used
        event = Event(
            index=len(self.events),
            operation=operation,
            arguments=dict(arguments),
            actor=here.actor,
            sequence=context.sequence,
            stamp=context.stamp(),
            dots=tuple(context.dots),
            seen=tuple(_in_order(here.visible)),
            delta=delta,
            seen_indices=frozenset(here.visible),
        )
        full = None
        if rule.full is not None:
            full = rule.full(self.spec.copy(here.state), self._context(here), **given)
        before = here.state if self._absorb is None else self.spec.copy(here.state)
        self.events.append(event)
        self.dots.update(context.dots)
        here.sequence = context.sequence
        here.next_dot = context.next_dot
        here.time = context.stamp().wall_ms
        self._join(here, delta, [event])
        for value in given.values():
            _spoil(value)
        after = here.state if self._absorb is None else self.spec.copy(here.state)
        self.transitions.append(Transition(event=event, before=before, after=after, full=full))
        return event

    def deliver(self, replica: int, event: Event) -> None:
        """Let the delta of an event reach a replica, whether it has it already or not."""
        self.log.append(("deliver", replica, event.index))
        self._join(self._replicas[replica], event.delta, [event])

    def exchange(self, replica: int, other: int) -> None:
        """Let one replica join the whole state of another."""
        self.log.append(("exchange", replica, other))
        there = self._replicas[other]
        self._join(self._replicas[replica], there.state, there.absorbed.values())

    def restart(self, replica: int, *, is_disk_lost: bool) -> None:
        """Stop a replica and start it as a new writer, with its state or with none."""
        self.log.append(("restart", replica, DISK_LOST if is_disk_lost else DISK_KEPT))
        here = self._replicas[replica]
        if self.spec.is_reincarnated:
            here.incarnation += 1
            here.actor = actor_id(f"replica {replica}", here.incarnation)
            here.sequence, here.next_dot = 0, 1
        elif is_disk_lost:
            here.sequence, here.next_dot = 0, 1
        if is_disk_lost:
            here.state, here.absorbed, here.visible = self.spec.bottom(), {}, {}

    def save(self, replica: int) -> Any:
        """Return what a snapshot on disk would hold, for `restore`."""
        here = self._replicas[replica]
        return self.spec.copy(here.state), dict(here.absorbed), dict(here.visible)

    def restore(self, replica: int, saved: Any) -> None:
        """Stop a replica and start it as a new writer, from an earlier `save`."""
        self.restart(replica, is_disk_lost=False)
        self.log[-1] = ("restart", replica, "from its last snapshot")
        here = self._replicas[replica]
        state, absorbed, visible = saved
        here.state = self.spec.copy(state)
        here.absorbed, here.visible = dict(absorbed), dict(visible)

    def told(self) -> list[str]:
        """Return what happened, one line a step, for a reader."""
        return [_told(*entry) for entry in self.log]

    def shown_by(self, events: Iterable[Event]) -> list[Event]:
        """Return the events that the deltas of some events must show, by index."""
        visible: dict[int, Event] = {}
        for event in events:
            self._see(visible, event)
        return _in_order(visible)

    def deltas_joined(self, events: Iterable[Event]) -> S:
        """Return the join of the deltas of some events, in the order given."""
        return self.spec.fold(event.delta for event in events)

    def _context(self, here: _Replica[S]) -> OperationContext:
        return OperationContext(
            actor=here.actor,
            sequence=here.sequence + 1,
            stamp=Stamp(here.time + 1, 0, here.actor),
            next_dot=here.next_dot,
        )

    def _refused(self, here: _Replica[S], operation: str, error: Exception) -> None:
        self.refusals.append(
            Refusal(
                operation=operation,
                before=self.deltas_joined(_in_order(here.absorbed)),
                after=self.spec.copy(here.state),
                error=error,
            )
        )

    def _join(self, here: _Replica[S], state: S, events: Iterable[Event]) -> None:
        if self._absorb is None:
            here.state = self.spec.join(here.state, state)
        else:
            here.state, _ = self._absorb(here.state, state)
        for event in events:
            here.absorbed[event.index] = event
            here.time = max(here.time, event.stamp.wall_ms)
            self._see(here.visible, event)

    def _see(self, visible: dict[int, Event], event: Event) -> None:
        visible[event.index] = event
        for earlier in event.seen:
            if earlier.index not in visible and self.spec.carries(event, earlier):
                visible[earlier.index] = earlier


def _in_order(events: Mapping[int, Event]) -> list[Event]:
    return [events[index] for index in sorted(events)]


def _told(kind: str, replica: int, *rest: Any) -> str:
    if kind in ("perform", "refuse"):
        operation, arguments, outcome = rest
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        call = f"replica {replica} performs {operation}({given})"
        return f"write {outcome}: {call}" if kind == "perform" else f"{call}, refused: {outcome}"
    if kind == "deliver":
        return f"the delta of write {rest[0]} reaches replica {replica}"
    if kind == "exchange":
        return f"replica {replica} joins the state of replica {rest[0]}"
    return f"replica {replica} restarts, {rest[0]}"


def _spoil(value: Any) -> None:
    """Change a mutable argument after its use, as a careless caller would."""
    if isinstance(value, list | bytearray):
        value.append(0)
    elif isinstance(value, dict):
        value["changed after use"] = 0
    elif isinstance(value, set):
        value.add("changed after use")
