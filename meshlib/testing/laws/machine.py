"""`machine(spec)`: replicas of a type on a bad network, driven by hypothesis.

    TestVotesMachine = machine(VOTES).TestCase

Deltas are absorbed in place where the type can, as replicas of a mesh do it, so what is kept
incrementally (digests, indices, orders) is checked against what is computed anew. The network
drops, repeats and reorders; replicas are cut off, restart as new writers with their state, with
an old snapshot or with an empty disk. After every step each replica must show what its visible
writes amount to; at the end all are connected, and one round of exchanges must make them equal.

Source: riak_dt's crdt_statem_eqc and antidote's crdt_properties, with deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from meshlib.testing.laws.history import History
from meshlib.testing.laws.profile import Profile, current_profile
from meshlib.testing.laws.spec import CRDTSpec, Event
from meshlib.testing.laws.trial import LawViolation

__all__ = ["ReplicaMachine", "check_machine", "machine"]

S = TypeVar("S")

LAW: Final = "machine"
STATEMENT: Final = "replicas show what their visible writes amount to, and end up equal"
IN_FLIGHT_MAX: Final = 64
"""Deltas under way; the oldest is lost beyond it, as on a full queue."""


class ReplicaMachine(RuleBasedStateMachine):
    """The rules that fit every type. `machine` adds one for each operation of a spec."""

    spec: CRDTSpec[Any]
    replica_count: int

    def __init__(self) -> None:
        super().__init__()
        self.history: History[Any] = History(
            self.spec, replica_count=self.replica_count, is_in_place=True
        )
        self.in_flight: list[tuple[int, int, Event]] = []  # sender, receiver, what it carries
        self.cut_off: frozenset[int] = frozenset()
        self.snapshots = [self.history.save(replica) for replica in range(self.replica_count)]
        self.used_dots = 0
        self.is_violated = False

    def write(self, replica: int, operation: str, arguments: dict[str, Any]) -> None:
        """Perform an operation on one replica and send its delta to the others."""
        replica %= self.replica_count
        with self.expected():
            event = self.history.perform(replica, operation, arguments)
        if event is None:
            return
        self.used_dots += len(event.dots)
        for other in range(self.replica_count):
            if other != replica:
                self.in_flight.append((replica, other, event))
        del self.in_flight[:-IN_FLIGHT_MAX]

    def connected(self, left: int, right: int) -> bool:
        """Tell whether two replicas are on the same side of the partition."""
        return (left in self.cut_off) == (right in self.cut_off)

    @rule(number=st.integers(0, 4095), is_repeated=st.booleans())
    def deliver(self, number: int, is_repeated: bool) -> None:
        """Deliver any delta under way, in any order; it may stay under way to come again."""
        ready = [m for m in self.in_flight if self.connected(m[0], m[1])]
        if ready:
            message = ready[number % len(ready)]
            if not is_repeated:
                self.in_flight.remove(message)
            with self.expected():
                self.history.deliver(message[1], message[2])

    @rule(number=st.integers(0, 4095))
    def drop(self, number: int) -> None:
        """Lose a delta under way."""
        if self.in_flight:
            del self.in_flight[number % len(self.in_flight)]

    @rule(replica=st.integers(0, 4095), other=st.integers(0, 4095))
    def exchange(self, replica: int, other: int) -> None:
        """Let one replica join the whole state of another, if it can reach it."""
        replica, other = replica % self.replica_count, other % self.replica_count
        if replica != other and self.connected(replica, other):
            with self.expected():
                self.history.exchange(replica, other)

    @rule(sides=st.integers(0, 4095))
    def partition(self, sides: int) -> None:
        """Cut some replicas off from the others. Their deltas wait."""
        self.cut_off = frozenset(r for r in range(self.replica_count) if sides >> r & 1)

    @rule()
    def heal(self) -> None:
        """Connect all replicas again."""
        self.cut_off = frozenset()

    @rule(replica=st.integers(0, 4095))
    def save(self, replica: int) -> None:
        """Write a snapshot of one replica to its disk."""
        replica %= self.replica_count
        self.snapshots[replica] = self.history.save(replica)

    @rule(replica=st.integers(0, 4095), how=st.sampled_from(["kept", "snapshot", "lost"]))
    def restart(self, replica: int, how: str) -> None:
        """Restart one replica as a new writer: with its state, its snapshot, or neither."""
        replica %= self.replica_count
        if how == "snapshot":
            self.history.restore(replica, self.snapshots[replica])
        else:
            self.history.restart(replica, is_disk_lost=how == "lost")
            if how == "lost":
                self.snapshots[replica] = self.history.save(replica)

    @invariant()
    def no_dot_is_used_twice(self) -> None:
        """Every dot belongs to one write."""
        if self.spec.is_reincarnated and self.used_dots != len(self.history.dots):
            self.violated("a dot was used twice")

    @invariant()
    def replicas_show_their_visible_writes(self) -> None:
        """Each replica shows what the oracle makes of the writes visible to it."""
        for replica in range(self.replica_count):
            self.check_replica(replica)

    def check_replica(self, replica: int) -> None:
        """Compare one replica with the oracle, and its structure with its own rules.

        Raises:
            LawViolation: they differ.
        """
        spec, state = self.spec, self.history.state(replica)
        check = getattr(state, "_check", None)
        if check is not None:
            check()
        if spec.oracle is not None:
            shown, due = spec.value(state), spec.oracle(self.history.visible(replica))
            if shown != due:
                self.violated(f"replica {replica} shows {shown!r}", f"it ought to show {due!r}")

    def teardown(self) -> None:
        """Connect everything, exchange once in a line and back, and compare all replicas."""
        if self.is_violated:
            return
        self.cut_off = frozenset()
        last = self.replica_count - 1
        for replica in range(last):
            self.history.exchange(replica + 1, replica)
        for replica in reversed(range(last)):
            self.history.exchange(replica, replica + 1)
        for replica in range(self.replica_count):
            self.check_replica(replica)
            self.check_equal(replica)

    def check_equal(self, replica: int) -> None:
        """Compare one replica with the last one, and with the join of its deltas.

        Raises:
            LawViolation: they differ.
        """
        spec, history = self.spec, self.history
        state, other = history.state(replica), history.state(self.replica_count - 1)
        rebuilt = history.deltas_joined(history.absorbed(replica))
        for words, compared in (("the last replica", other), ("the join of its deltas", rebuilt)):
            if not spec.equal(state, compared):
                self.violated(f"replica {replica}: {state!r}", f"{words}: {compared!r}")
            if spec.digest is not None and spec.digest(state) != spec.digest(compared):
                self.violated(f"replica {replica} and {words} are equal, their digests differ")
            if spec.codec is not None and spec.codec.encode(state) != spec.codec.encode(compared):
                self.violated(f"replica {replica} and {words} are equal, their bytes differ")

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Take whatever the type raises for a finding.

        Raises:
            LawViolation: it raised something.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self.violated(f"{type(error).__name__} was raised: {error}")

    def violated(self, *findings: str) -> NoReturn:
        """Say what is wrong.

        Raises:
            LawViolation: always.
        """
        self.is_violated = True
        raise LawViolation(
            spec_name=self.spec.name,
            law=LAW,
            statement=STATEMENT,
            world=f"machine of {self.replica_count} replicas",
            history=self.history.told(),
            findings=findings,
        )


def machine(spec: CRDTSpec[S], *, replica_count: int = 3) -> type[ReplicaMachine]:
    """Return a state machine for a type; its `TestCase` is for pytest or unittest to collect.

    How many runs and steps are tried is up to `MESHLIB_LAWS_PROFILE`, read by this call.

    Args:
        spec: the type.
        replica_count: how many replicas; at least 2.
    """
    rules = {name: _rule_of(name, operation) for name, operation in spec.operations.items()}
    title = "".join(word.title() for word in spec.name.replace("_", " ").split())
    made = type(
        f"{title}Machine",
        (ReplicaMachine,),
        {
            "__doc__": f"Replicas of {spec.name} on a bad network.",
            "spec": spec,
            "replica_count": replica_count,
            **rules,
        },
    )
    profile = current_profile()
    made.TestCase.settings = profile.settings(  # type: ignore[attr-defined]
        profile.machine_examples, steps=profile.machine_steps
    )
    return made


def check_machine(
    spec: CRDTSpec[S],
    *,
    profile: Profile | None = None,
    replica_count: int = 3,
    is_shrunk: bool = True,
) -> None:
    """Run the state machine of a type without a test runner.

    Args:
        spec: the type.
        profile: how many runs and steps; default: what `MESHLIB_LAWS_PROFILE` names.
        replica_count: how many replicas; at least 2.
        is_shrunk: look for the shortest run once one has failed.

    Raises:
        LawViolation: a replica shows what it ought not to; the message holds the history.
    """
    profile = profile or current_profile()
    run_state_machine_as_test(
        machine(spec, replica_count=replica_count),
        settings=profile.settings(
            profile.machine_examples, steps=profile.machine_steps, is_shrunk=is_shrunk
        ),
    )


def _rule_of(name: str, operation: Any) -> Callable[..., None]:
    def perform(self: ReplicaMachine, replica: int, **arguments: Any) -> None:
        self.write(replica, name, arguments)

    perform.__name__ = perform.__qualname__ = f"perform_{name}"
    decorated: Any = rule(replica=st.integers(0, 4095), **operation.arguments)
    made: Callable[..., None] = decorated(perform)
    return made
