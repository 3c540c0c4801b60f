"""Whom a node was told of counts for the majority until it is met."""

from __future__ import annotations

import pytest
from attrs import evolve

from meshlib.identity import actor_id
from meshlib.membership import (
    Electorate,
    MemberRecord,
    MemberStatus,
    MemberTable,
    PartitionState,
    ToldAddresses,
)

OWN = "a:1"


def record(name: str, status: MemberStatus = MemberStatus.ALIVE) -> MemberRecord:
    """Return a member at the address that its name gives."""
    return MemberRecord(
        name=name, incarnation=1, status=status, address=f"{name}:1", actor=actor_id(name, 1)
    )


class World:
    """The table of node `a`, and what it was told."""

    def __init__(self, *told: str, may_find_more: bool = False, expected_count: int = 1) -> None:
        self.table = MemberTable()
        self.told = ToldAddresses(self.table)
        self.electorate = Electorate(self.table, told=self.told, expected_count=expected_count)
        self.add("a")
        self.told.tell(told, own=OWN, may_find_more=may_find_more)

    def add(self, name: str, status: MemberStatus = MemberStatus.ALIVE) -> None:
        """Let a member be known, or be known in another status."""
        known = self.table.get(name)
        news = record(name, status) if known is None else evolve(known, status=status)
        self.table.apply(news, now=0.0)
        self.told._check()

    def majority(self) -> tuple[bool, int, int]:
        """Return whether there is one, how many are in reach, and of how many it is one."""
        view = self.electorate.judge()
        return view.has_quorum, view.reachable_count, view.quorum_of


@pytest.mark.parametrize("told", [(), (OWN,), (OWN, OWN)])
def test_who_was_told_of_nobody_else_is_whole(told: tuple[str, ...]) -> None:
    """Its own address is no other node."""
    assert (True, 1, 1) == World(*told).majority()


def test_who_was_told_of_one_that_never_answers_is_half() -> None:
    """Half is no majority."""
    assert (False, 1, 2) == World("b:1").majority()


def test_two_of_three_of_whom_one_was_not_met_yet_are_a_majority() -> None:
    """And nothing is wrong: nobody was lost."""
    world = World(OWN, "b:1", "c:1")
    alone = world.majority()
    world.add("b")

    assert (False, 1, 3) == alone
    assert (True, 2, 3) == world.majority()
    assert PartitionState.NORMAL is world.electorate.judge().state


def test_a_few_that_begin_beside_many_seeds_are_no_majority() -> None:
    """They are no seeds themselves."""
    world = World("s1:1", "s2:1", "s3:1")
    world.add("b")
    world.add("c")

    assert (False, 3, 6) == world.majority()


@pytest.mark.parametrize("status", [MemberStatus.ALIVE, MemberStatus.DOWN])
def test_who_is_known_in_any_way_was_met(status: MemberStatus) -> None:
    """Then it counts as a member does."""
    world = World("b:1", "c:1")
    world.add("b", status)

    assert ("c:1",) == world.told.unmet()
    assert (status is MemberStatus.ALIVE, 3) == world.majority()[::2]


def test_who_was_met_and_forgotten_does_not_count_again() -> None:
    """Not when the same seeds are named again either."""
    world = World("b:1", "c:1")
    world.add("b")
    world.add("c", MemberStatus.DOWN)
    world.majority()
    world.table.forget("c")
    forgotten = world.majority()
    world.told.tell(["b:1", "c:1"], own=OWN, may_find_more=False)

    assert (True, 2, 2) == forgotten == world.majority()


def test_who_is_named_no_longer_does_not_count() -> None:
    """A source of seeds tells of others."""
    world = World("b:1", "c:1", "d:1", may_find_more=True)
    before = world.told.revision
    world.told.tell(["b:1"], own=OWN, may_find_more=True)

    assert (False, 1, 2) == world.majority()
    assert world.told.revision > before


def test_who_is_reached_under_another_name_was_met() -> None:
    """It says so when it is asked."""
    world = World("service:1")
    world.told.meet("service:1")
    world.told.meet("nobody:1")

    assert (True, 1, 1) == world.majority()
    assert ["service:1"] == list(world.told.diagnostics()["met"])


def test_a_source_that_names_nobody_yet_stands_for_one() -> None:
    """Until anybody is known; then for nobody."""
    world = World(may_find_more=True)
    early = world.majority()
    world.add("b")
    met = world.majority()
    world.table.forget("b")

    assert [(False, 1, 2), (True, 2, 2), (True, 1, 1)] == [early, met, world.majority()]


def test_a_source_that_names_this_node_alone_stands_for_nobody() -> None:
    """A service with one replica is whole."""
    assert (True, 1, 1) == World(OWN, may_find_more=True).majority()


@pytest.mark.parametrize(("expected_count", "majority"), [(1, True), (2, True), (4, False)])
def test_a_majority_is_one_of_no_fewer_than_it_takes_to_begin(
    expected_count: int, majority: bool
) -> None:
    """Whoever else there is, or is told of."""
    world = World("b:1", expected_count=expected_count)
    world.add("b")

    assert (majority, 2, max(2, expected_count)) == world.majority()
