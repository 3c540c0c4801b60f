"""Real replicas through random schedules: they must end equal, and with the last writes.

The harness is `support/schedules.py`. Each rule that the schedules need is broken once, to show
that they would notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from support.schedules import Cluster

from meshlib.clock import HybridClock
from meshlib.crdt import LWWMap
from meshlib.errors import MeshError
from meshlib.replication import LogEntry, Received, Replica, StabilityTracker, replica
from meshlib.replication.entries.log import ReplicationLog
from meshlib.replication.intake import Intake
from meshlib.replication.page_content import PageContent
from meshlib.replication.transfers.arrivals import Arrivals


@pytest.mark.parametrize("is_dense", [False, True])
@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(start, start + 20), marks=[pytest.mark.slow] if start >= 20 else [])
        for start in range(0, 100, 20)
    ],
)
def test_replicas_end_equal_and_with_the_last_writes(
    cluster_class: type[Cluster], seeds: range, *, is_dense: bool
) -> None:
    """Whatever is lost, repeated, reordered, trimmed or collected, nothing is lost or undone."""
    for seed in seeds:
        cluster_class(seed, is_dense=is_dense).run()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thousands_of_schedules_end_equal_and_with_the_last_writes(
    cluster_class: type[Cluster],
) -> None:
    """The same over many more seeds."""
    for seed in range(100, 4000):
        cluster_class(seed, is_dense=seed % 2 == 0).run()


def fails(cluster_class: type[Cluster], seed: int) -> bool:
    """Tell whether a schedule ends wrong."""
    try:
        cluster_class(seed, is_dense=seed % 2 == 0).run()
    except (AssertionError, MeshError):
        return True
    return False


# What breaks a rule: each is one line of the real thing undone.


def naive_stability(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """A removal counts as settled once all have seen it, whatever is still on its way here."""

    def settle(peer: Any, our_vector: Any) -> None:
        peer.settled = peer.newest

    patch.setattr(StabilityTracker, "_settle", staticmethod(settle))


def partial_vectors_count_as_whole(
    patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]
) -> None:
    """What a peer said of a few writers counts as all that it had."""
    observe = StabilityTracker.observe

    def observe_whole(self: Any, peer: str, vector: Any, **rest: Any) -> None:
        known = self.vector(peer) or {} if rest.pop("is_partial") else {}
        observe(self, peer, {**known, **vector}, **rest)

    patch.setattr(StabilityTracker, "observe", observe_whole)


def collect_at_once(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """A tombstone goes as soon as this node has it."""
    patch.setattr(StabilityTracker, "settled", lambda self, members, our_vector: dict(our_vector))


def return_without_rejoining(patch: pytest.MonkeyPatch, cluster_class: type[Cluster]) -> None:
    """A node that was away for too long goes on as if nothing had happened."""

    def come_back(self: Any) -> None:
        self.away = None

    patch.setattr(cluster_class, "come_back", come_back)
    patch.setattr(Replica, "forget", lambda self, actor: None)


def lose_unsent_writes_when_rejoining(
    patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]
) -> None:
    """A node that comes back takes a peer's state and writes nothing again."""
    patch.setattr(replica, "write_again", lambda former, parts, write, was_present: (0, []))


def covers_is_not_checked(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """An entry of a transfer is taken although its key was removed here."""
    patch.setattr(LWWMap, "absorb_transfer", lambda self, part, covers: self.absorb(part))


def absence_proves_nothing(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """What a sender's vector covers and the sender does not have is kept."""
    patch.setattr(Arrivals, "_dead", staticmethod(lambda document, gathered, vector: []))


def vector_moves_over_a_gap(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """An entry ahead of a gap is absorbed, and counted with all before it."""

    def keep(self: Any, entry: LogEntry) -> None:
        self._absorb(entry, entry.first - 1, Received())

    patch.setattr(Intake, "_keep", keep)


def pages_may_be_missing(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """A transfer counts as complete with any page."""
    encode = PageContent.encode
    patch.setattr(
        PageContent, "encode", lambda self, *version: encode(evolve(self, is_last=True), *version)
    )


def writes_stay_open_while_receiving(
    patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]
) -> None:
    """A peer's removal may be in the vector before an older write of this node is."""
    patch.setattr(Replica, "_close_writes", lambda self: None)


def log_has_holes(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """What is dropped from the log does not raise its mark."""
    drop = ReplicationLog._drop_front

    def drop_front(self: Any, log: Any, count: int) -> None:
        trimmed = log.trimmed
        drop(self, log, count)
        log.trimmed = trimmed

    patch.setattr(ReplicationLog, "_drop_front", drop_front)


def time_does_not_travel(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """A transfer does not move the hybrid clock: a write may be older than what was collected."""
    patch.setattr(Arrivals, "_observe", lambda self, arrival: True)


def what_is_shown_is_not_observed(patch: pytest.MonkeyPatch, _cluster_class: type[Cluster]) -> None:
    """A write over what is shown may be stamped before it."""
    observe = HybridClock.observe

    def show(self: Any, name: str, part: Any, arrival: Any) -> None:
        patch.setattr(HybridClock, "observe", lambda *_: None)
        shown(self, name, part, arrival)
        patch.setattr(HybridClock, "observe", observe)

    shown = Arrivals._show
    patch.setattr(Arrivals, "_show", show)


MUTANTS = (
    collect_at_once,
    return_without_rejoining,
    lose_unsent_writes_when_rejoining,
    vector_moves_over_a_gap,
    log_has_holes,
    pytest.param(naive_stability, marks=pytest.mark.slow),
    time_does_not_travel,
    *(
        pytest.param(mutant, marks=pytest.mark.long)
        for mutant in (
            absence_proves_nothing,
            covers_is_not_checked,
            pages_may_be_missing,
            partial_vectors_count_as_whole,
            what_is_shown_is_not_observed,
            writes_stay_open_while_receiving,
        )
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_is_noticed(
    mutant: Callable[[pytest.MonkeyPatch, Any], None],
    monkeypatch: pytest.MonkeyPatch,
    cluster_class: type[Cluster],
) -> None:
    """With a rule broken, some schedule ends with nodes that differ or have lost a write."""
    mutant(monkeypatch, cluster_class)
    assert any(fails(cluster_class, seed) for seed in range(2000))
