"""A node judges from its members whether it is on the larger side."""

from __future__ import annotations

import pytest

from meshlib.identity import actor_id
from meshlib.membership import MemberRecord, MemberStatus, PartitionDetector, PartitionState

ALIVE, SUSPECTED, DOWN, LEAVING = MemberStatus


def members(*statuses: MemberStatus) -> list[MemberRecord]:
    return [
        MemberRecord(
            name=f"n{index}",
            incarnation=1,
            address="x",
            actor=actor_id("x", index),
            status=status,
        )
        for index, status in enumerate(statuses)
    ]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((ALIVE,), PartitionState.NORMAL),
        ((ALIVE, ALIVE, SUSPECTED), PartitionState.NORMAL),
        ((ALIVE, ALIVE, DOWN), PartitionState.WITH_QUORUM),
        ((ALIVE, DOWN, DOWN), PartitionState.WITHOUT_QUORUM),
        ((ALIVE, DOWN), PartitionState.WITHOUT_QUORUM),
        ((ALIVE, ALIVE, DOWN, DOWN), PartitionState.WITHOUT_QUORUM),
        ((ALIVE, ALIVE, LEAVING, LEAVING), PartitionState.NORMAL),
    ],
)
def test_the_state_follows_who_is_in_reach(
    statuses: tuple[MemberStatus, ...], expected: PartitionState
) -> None:
    """Normal when all are in reach; half is no majority; who left does not count."""
    assert PartitionDetector().judge(members(*statuses)).state is expected


def test_the_view_names_who_is_out_of_reach() -> None:
    """The names are sorted."""
    view = PartitionDetector().judge(members(DOWN, ALIVE, DOWN))

    assert view.unreachable == ("n0", "n2")
    assert not view.has_quorum
