"""What the peers have seen, by their vectors: who has a write, and which removals are settled.

Rule: a tombstone may go only when every member has seen the removal *and* this node has
absorbed everything that member had absorbed when it saw it. The first alone diverges: a member
may hold an older write of the same key that is still on its way here. Every decision about
that must live in this file.

The second condition looks at the member's whole vector and not only at its own number, because
writes of one node may reach this one through another, in any order.
Source: causal stability (Baquero, Almeida, Shoker, "Pure operation-based replicated data types",
2017); Yorkie's minimum version vector.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.replication.vector import Vector, is_mark, marked_number

__all__ = ["GracePeriod", "StabilityTracker"]


@define(slots=True)
class _Peer:
    """One peer's vectors.

    Args:
        actor: the writer it is now; another one means that it began again.
        heard_at: when its vector was heard last, in monotonic seconds.
        latest: the latest numbers heard, pointwise, partial vectors included.
        settled: the latest whole vector of it that this node's own vector has reached, without
            marks.
        waiting: a whole vector of it that this node's has not reached yet; kept until it has,
            so that a peer that always writes is still caught up with.
        newest: the newest whole vector heard.
        reached: `settled` as it was heard.
    """

    actor: ActorId
    heard_at: float
    latest: dict[ActorId, int] = field(factory=dict)
    settled: Vector = field(factory=dict)
    waiting: Vector | None = None
    newest: Vector = field(factory=dict)
    reached: Vector | None = None


def _has_reached(ours: Vector, theirs: Vector) -> bool:
    """Tell whether a vector covers another.

    What both have forgotten counts as covered, and so does what this node never heard of and the
    other has forgotten.
    """
    return all(
        ours.get(actor, 0) >= marked_number(sequence) or (is_mark(sequence) and actor not in ours)
        for actor, sequence in theirs.items()
    )


def _minimum(vectors: Iterable[Vector]) -> dict[ActorId, int]:
    """Return the pointwise minimum of one or more vectors without marks."""
    iterator = iter(vectors)
    result = dict(next(iterator))
    for vector in iterator:
        result = {
            actor: min(sequence, vector[actor])
            for actor, sequence in result.items()
            if actor in vector
        }
    return result


class StabilityTracker:
    """The peers' vectors as this node has heard them from themselves.

    Only what a peer says of itself counts; a relayed vector is never put in here.
    """

    __slots__ = ("_peers",)

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}

    def observe(
        self,
        peer: str,
        vector: Vector,
        *,
        actor: ActorId,
        our_vector: Vector,
        now: float,
        is_partial: bool = False,
    ) -> None:
        """Take note of a peer's vector. O(actors).

        Args:
            peer: its name.
            vector: its vector.
            actor: the writer it is now: one that began again has nothing of what it had.
            our_vector: this node's vector.
            now: monotonic seconds.
            is_partial: whether `vector` names only some actors. Such a vector counts for
                `seen_by` and `stable`, but not for `settled`: it does not tell what else the
                peer had absorbed by then.
        """
        known = self._peers.get(peer)
        if known is None or known.actor != actor:
            known = self._peers[peer] = _Peer(actor, now)
        known.heard_at = now
        latest = known.latest
        for writer, sequence in vector.items():
            # One that forgot a writer has not seen what that wrote meanwhile.
            number = marked_number(sequence)
            if number > latest.get(writer, 0):
                latest[writer] = number
        if not is_partial:
            known.newest = dict(vector)
            # A writer that neither has any more is asked for no more.
            known.latest = {a: n for a, n in latest.items() if a in vector or a in our_vector}
            self._settle(known, our_vector)

    @staticmethod
    def _settle(peer: _Peer, our_vector: Vector) -> None:
        """Move on to the newest whole vector of a peer that this node has reached."""
        if peer.newest is peer.reached:
            return
        if _has_reached(our_vector, peer.newest):
            peer.reached, peer.waiting = peer.newest, None
        elif peer.waiting is None:
            peer.waiting = peer.newest
            return
        elif _has_reached(our_vector, peer.waiting):
            peer.reached, peer.waiting = peer.waiting, peer.newest
        else:
            return
        peer.settled = {actor: marked_number(number) for actor, number in peer.reached.items()}

    def forget(self, peer: str) -> None:
        """Drop a peer: it is no member any more, or has begun again."""
        self._peers.pop(peer, None)

    def peers(self) -> tuple[str, ...]:
        """Return the names of the peers heard of, sorted."""
        return tuple(sorted(self._peers))

    def vector(self, peer: str) -> Vector | None:
        """Return the latest numbers heard from a peer; None before the first. O(1)."""
        known = self._peers.get(peer)
        return None if known is None else known.latest

    def heard_at(self, peer: str) -> float | None:
        """Return when a peer's vector was heard last, in monotonic seconds; None before."""
        known = self._peers.get(peer)
        return None if known is None else known.heard_at

    def seen_by(self, actor: ActorId, sequence: int) -> frozenset[str]:
        """Return the peers that have absorbed a write, this node not counted. O(peers)."""
        return frozenset(
            name for name, peer in self._peers.items() if peer.latest.get(actor, 0) >= sequence
        )

    def forgot_with_less(
        self, members: Collection[str], actor: ActorId, sequence: int
    ) -> tuple[str, ...]:
        """Return those of `members` that forgot a writer with less than `sequence`. O(members).

        By the newest whole vector of each. Who counts the writer, with however little, is told
        apart by its vector.
        """
        return tuple(
            name
            for name in members
            if name in self._peers
            for known in (self._peers[name].newest.get(actor, 0),)
            if is_mark(known) and marked_number(known) < sequence
        )

    def stable(self, members: Collection[str], *, our_vector: Vector) -> dict[ActorId, int]:
        """Return what every one of `members` has absorbed: the log need not keep it.

        Args:
            members: the names of the live members but this node; one that was never heard has
                nothing.
            our_vector: this node's vector.
        """
        if not all(name in self._peers for name in members):
            return {}
        return _minimum([our_vector, *(self._peers[name].latest for name in members)])

    def settled(self, members: Collection[str], *, our_vector: Vector) -> dict[ActorId, int]:
        """Return the numbers up to which removals are stable by both conditions.

        Args:
            members: the names of all members but this node, those that are Down included until
                they are forgotten.
            our_vector: this node's vector.
        """
        if not all(name in self._peers for name in members):
            return {}
        for name in sorted(members):
            self._settle(self._peers[name], our_vector)
        return _minimum([our_vector, *(self._peers[name].settled for name in members)])

    def diagnostics(self) -> Mapping[str, Any]:
        """Show the vectors that were heard, by the peer."""
        return {"peers": MappingProxyType(self._peers)}

    def _check(self) -> None:
        """Assert that what is settled was reached, and that nothing heard has gone back."""
        for peer in self._peers.values():
            reached = peer.reached or {}
            unmarked = {actor: marked_number(number) for actor, number in reached.items()}
            require(self, peer.settled == unmarked, "what is settled is not what was reached")
            is_caught_up = peer.newest is peer.reached
            is_open = peer.waiting is not None
            require(self, not (is_caught_up and is_open), "a vector is waited for and reached")
            is_awaited = is_caught_up or is_open or not peer.newest
            require(self, is_awaited, "a vector is neither reached nor waited for")
            latest = peer.latest
            is_kept = all(latest.get(a, 0) >= marked_number(n) for a, n in peer.newest.items())
            require(self, is_kept, "a number that was heard has gone back")
            is_unmarked = all(n > 0 and not is_mark(n) for n in latest.values())
            require(self, is_unmarked, "a mark is taken for a number")


class GracePeriod:
    """Tells what this node has had for some time, from samples of its vector.

    A removal is kept that long beyond its being stable, because news of a new member and
    packets under way take time. Measured here and in monotonic seconds: no wall clock decides
    what is dropped.

    Args:
        grace_s: the period, in seconds.
    """

    __slots__ = ("_grace_s", "_samples")

    SAMPLES: Final = 8
    """Samples kept for one period: the period is at most an eighth longer than set."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._samples: deque[tuple[float, dict[ActorId, int]]] = deque()

    def aged(self, vector: Vector, *, now: float) -> Vector:
        """Take a sample if one is due; return the numbers covered a period ago. O(actors)."""
        if self._grace_s == 0:
            return vector
        samples = self._samples
        if not samples or now - samples[-1][0] >= self._grace_s / self.SAMPLES:
            samples.append((now, dict(vector)))
        while len(samples) > 1 and now - samples[1][0] >= self._grace_s:
            samples.popleft()
        taken_at, sample = samples[0]
        return sample if now - taken_at >= self._grace_s else {}

    def diagnostics(self) -> Mapping[str, Any]:
        """Show when the vector was sampled."""
        return {"grace_s": self._grace_s, "sampled_at": tuple(at for at, _ in self._samples)}

    def _check(self) -> None:
        """Assert that the samples are in order, and not too many."""
        times = [at for at, _ in self._samples]
        require(self, times == sorted(times), "the samples are out of order")
        require(self, len(times) <= self.SAMPLES + 2, "too many samples are kept")
