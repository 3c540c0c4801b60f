"""How far a node has come, and what its seeds answered: for whoever waits for it in vain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import define, frozen

from meshlib.aio.transport import LinkFailure, LinkFault
from meshlib.gossip import SyncProgress
from meshlib.node import MeshNode, NodeState

__all__ = [
    "Attempt",
    "Attempts",
    "Diagnosis",
    "SeedReport",
    "SeedTroubles",
    "diagnose",
    "seed_reports",
]

SEEDS_TOLD_MAX: Final = 5
"""Seeds of which the health of a node tells; of the others it says how many there are."""

PATIENCE_FRAMES: Final = 4
"""As many frames are sent to a seed in about two seconds; who answers does so before."""

_ADVICE = {
    LinkFault.REFUSED: "nothing listens there",
    LinkFault.UNRESOLVABLE: "the name is not known here",
    LinkFault.TIMED_OUT: "nobody answers there",
    LinkFault.WRONG_TOKEN: "it asks for another peer token",
    LinkFault.WRONG_CLUSTER: "it is of a cluster of another name",
    LinkFault.WRONG_VERSION: "it speaks another version",
    LinkFault.TLS: "the TLS handshake failed",
    LinkFault.CLOSED: "it closes the connection without a word: is it a node, is the token right?",
    LinkFault.ABSENT: "no node takes frames there",
    LinkFault.CARRIER: "what carries the frames cannot be reached",
    LinkFault.OTHER: "it cannot be reached",
}


@define(slots=True)
class Attempt:
    """What was tried with one address.

    Args:
        sent_count: frames handed to the transport for it.
        failure_count: attempts that came to nothing.
        failure: the last of them; None when there was none, or the transport did not say why.
    """

    sent_count: int = 0
    failure_count: int = 0
    failure: LinkFailure | None = None


class Attempts:
    """What was tried with the addresses that are watched: as many as there are seeds."""

    __slots__ = ("_by_address",)

    def __init__(self) -> None:
        self._by_address: dict[str, Attempt] = {}

    def watch(self, addresses: Iterable[str]) -> None:
        """Watch these addresses from now on, and no others; what is known of them stays."""
        known = self._by_address
        self._by_address = {address: known.get(address) or Attempt() for address in addresses}

    def sent(self, address: str) -> None:
        """Note that a frame was handed to the transport. O(1)."""
        attempt = self._by_address.get(address)
        if attempt is not None:
            attempt.sent_count += 1

    def failed(self, address: str, failure: LinkFailure | None) -> None:
        """Note that a link broke, or could not be made. O(1)."""
        attempt = self._by_address.get(address)
        if attempt is not None:
            attempt.failure_count += 1
            attempt.failure = failure

    def by_address(self) -> Mapping[str, Attempt]:
        """Return what is known, by address."""
        return self._by_address


@frozen(slots=True, kw_only=True)
class SeedReport:
    """What came of one seed.

    Args:
        address: the seed.
        member: the name of the member in reach that has this address; None without one.
        sent_count: frames handed to the transport for it.
        failure_count: attempts that came to nothing.
        failure: the last of them.
    """

    address: str
    member: str | None
    sent_count: int
    failure_count: int
    failure: LinkFailure | None

    def __str__(self) -> str:
        """Say it in one line."""
        if self.member is not None:
            return f"{self.address} is the member {self.member!r}"
        if self.failure is not None:
            return f"{self.address}: {_ADVICE[self.failure.fault]} ({self.failure})"
        if self.failure_count:
            return f"{self.address}: the link breaks ({self.failure_count} times)"
        if self.sent_count:
            return f"{self.address}: no answer to {self.sent_count} frames"
        return f"{self.address}: not dialled yet"

    @property
    def trouble(self) -> str:
        """What keeps this node from the seed, in the same words for as long as it is so; or empty.

        One that was dialled a moment ago and has said nothing may yet answer, and has none.
        """
        if self.member is not None or not self.sent_count:
            return ""
        if self.failure is not None:
            return f"seed {self.address}: {_ADVICE[self.failure.fault]} ({self.failure})"
        if self.failure_count:
            return f"seed {self.address}: the link breaks"
        return f"seed {self.address}: no answer" if self.sent_count > PATIENCE_FRAMES else ""


class SeedTroubles:
    """Has the health of a node that has met nobody tell of each seed why; bounded."""

    __slots__ = ("_noted",)

    def __init__(self) -> None:
        self._noted: tuple[str, ...] = ()

    def look(self, node: MeshNode, reports: Iterable[SeedReport]) -> None:
        """Note what is wrong now, and no longer what was. O(seeds).

        Args:
            node: whose health is to tell it.
            reports: what came of its seeds.
        """
        is_alone = node.state in (NodeState.JOINING, NodeState.ISOLATED)
        found = [report.trouble for report in reports if report.trouble] if is_alone else []
        if len(found) > SEEDS_TOLD_MAX:
            found[SEEDS_TOLD_MAX:] = [f"seeds: {len(found) - SEEDS_TOLD_MAX} more likewise"]
        self._noted, before = tuple(found), self._noted
        if self._noted != before:
            for number in range(max(len(before), len(found))):
                node.note_problem(f"seed {number}", found[number] if number < len(found) else "")


@frozen(slots=True, kw_only=True)
class Diagnosis:
    """How far a node has come.

    Args:
        state: what the node is doing, in one word.
        is_ready: it holds what the cluster held when they met, or has begun itself.
        has_joined: it has met a peer, or there is none to meet.
        members: the names of the members in reach, this node included, sorted.
        seeds: what came of each seed, in their order.
        progress: how much of the cluster's state is in, while the node is `syncing`; else None.
        problems: what is wrong, as `Health.problems` has it.
        story: all of it for a human, one line each.
    """

    state: NodeState
    is_ready: bool
    has_joined: bool
    members: tuple[str, ...]
    seeds: tuple[SeedReport, ...]
    progress: SyncProgress | None
    problems: tuple[str, ...]
    story: tuple[str, ...]


def seed_reports(
    node: MeshNode, *, seeds: Iterable[str], attempts: Attempts
) -> tuple[SeedReport, ...]:
    """Tell what came of each seed, in their order. O(members + seeds).

    Args:
        node: the node.
        seeds: the addresses by which it is to join, in order.
        attempts: what was tried with them.
    """
    by_address = {
        member.address: member.name
        for member in node.members()
        if member.is_reachable and member.name != node.name
    }
    tried = attempts.by_address()
    return tuple(
        SeedReport(
            address=address,
            member=by_address.get(address),
            sent_count=attempt.sent_count,
            failure_count=attempt.failure_count,
            failure=attempt.failure,
        )
        for address in seeds
        if address != node.address and (attempt := tried.get(address)) is not None
    )


def diagnose(
    node: MeshNode,
    *,
    seeds: Iterable[str],
    attempts: Attempts,
    discovery_problem: str,
) -> Diagnosis:
    """Put together what is known. O(members + seeds).

    Args:
        node: the node.
        seeds: the addresses by which it is to join, in order.
        attempts: what was tried with them.
        discovery_problem: what is wrong with the source of the seeds; empty when nothing is.
    """
    reports = seed_reports(node, seeds=seeds, attempts=attempts)
    names = tuple(member.name for member in node.members() if member.is_reachable)
    story: list[str] = []
    if node.is_ready:
        story.append(node.state_problem() or "ready")
    elif len(names) > 1:
        peers = ", ".join(name for name in names if name != node.name)
        story.append(f"met {peers}: {node.state_problem().removeprefix('not ready: ')}")
    else:
        story.append("no peer was met")
    progress = node.progress()
    if progress is not None:
        story.append(f"about {progress.done:,} of {progress.total:,} {progress.unit} are in")
    if discovery_problem:
        story.append(discovery_problem)
    story += [str(report) for report in reports if len(names) == 1 or report.member is None]
    own = node.state_problem()
    problems = node.health().problems
    told = {own, *(report.trouble for report in reports)}
    story += [problem for problem in problems if problem not in told]
    return Diagnosis(
        state=node.state,
        is_ready=node.is_ready,
        has_joined=node.has_joined,
        members=names,
        seeds=reports,
        progress=progress,
        problems=problems,
        story=tuple(story),
    )
