"""How the cluster looks from one node: a judgement of what it knows, and no more.

Rule this file owns: what makes a node degraded, for how long a death does, and since when a problem
is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from attrs import frozen

from meshlib.membership import PartitionView

__all__ = ["LONG_GONE_S", "Health", "HealthStatus", "ProblemAges", "judge_health"]

LONG_GONE_S: Final = 900.0
"""How long a Down member makes a node `degraded` while a majority is in reach, in seconds."""

_NAMED_MAX: Final = 5
"""Documents that one line names; of the others it says how many there are."""


class HealthStatus(StrEnum):
    """How the cluster looks from here. The values are the specification's words."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    PARTITIONED = "partitioned"


@frozen(slots=True, kw_only=True)
class Health:
    """A judgement of one node about its cluster and itself.

    Args:
        status: healthy; degraded while this node is not ready or has met nobody, a member is
            suspected or Down, or a store or the storage is not well; partitioned while members
            are out of reach and no majority is in reach.
        cluster_size: members in reach, this node included.
        stores_healthy: whether every store can be read, lacks no entry that came, and agrees
            with its peers.
        partition: what the partition detector sees.
        problems: what is wrong, one line each; empty when healthy.
        ages_s: for how long each of the problems has been there, in seconds, in the same order.
    """

    status: HealthStatus
    cluster_size: int
    stores_healthy: bool
    partition: PartitionView
    problems: tuple[str, ...]
    ages_s: tuple[float, ...] = ()


class ProblemAges:
    """Since when each problem is there: since it was seen first without a break.

    It is looked for every `LOOK_INTERVAL_S`, whether anybody asks or not, so that it is told too
    young by so much at most.
    """

    LOOK_INTERVAL_S: Final = 2.0

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def of(self, problems: Sequence[str], now: float) -> tuple[float, ...]:
        """Return how old the problems are that are there now, in seconds. O(n).

        Args:
            problems: all of them, one line each.
            now: monotonic seconds.
        """
        self._since = {line: self._since.get(line, now) for line in problems}
        return tuple(now - self._since[line] for line in problems)


def judge_health(
    partition: PartitionView,
    *,
    own_problem: str,
    noted_problems: Iterable[str],
    suspected: Iterable[str],
    gone_s: Mapping[str, float],
    diverged_from: Iterable[str],
    store_problems: Iterable[str],
    incomplete: Sequence[str],
) -> Health:
    """Judge a cluster and a node's stores; pure. O(n).

    Args:
        partition: what the partition detector sees.
        own_problem: why the node is not ready; empty when it is.
        noted_problems: what its driver has noted.
        suspected: members that are suspected.
        gone_s: since how long each member is in its status, in seconds.
        diverged_from: members whose content differs at equal vectors.
        store_problems: what is wrong with the stores.
        incomplete: documents of which an entry could not be read.
    """
    problems = [own_problem] if own_problem else []
    problems += noted_problems
    problems += [
        f"{name} is down"
        for name in partition.unreachable
        if not partition.has_quorum or gone_s[name] <= LONG_GONE_S
    ]
    problems += [f"{name} is suspected" for name in suspected]
    if partition.unmet_count and not (partition.has_quorum or own_problem):
        absent, count = partition.unmet_count, partition.quorum_of
        problems.append(f"no majority: {absent} of {count} that are to be here were never met")
    faults = [f"content differs from {name} at equal vectors" for name in diverged_from]
    faults += store_problems
    if incomplete:
        faults.append(f"entries could not be read here, of {_some(incomplete)}")
    if partition.unreachable and not partition.has_quorum:
        status = HealthStatus.PARTITIONED
    elif problems or faults:
        status = HealthStatus.DEGRADED
    else:
        status = HealthStatus.HEALTHY
    return Health(
        status=status,
        cluster_size=partition.reachable_count,
        stores_healthy=not faults,
        partition=partition,
        problems=(*problems, *faults),
    )


def _some(names: Sequence[str]) -> str:
    """Return a few names, and how many more there are."""
    more = len(names) - _NAMED_MAX
    return ", ".join(names[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
