"""Who counts for the majority, and who may be forgotten."""

from __future__ import annotations

import itertools

import pytest

from meshlib.identity import actor_id
from meshlib.membership import (
    Electorate,
    MemberRecord,
    MemberStatus,
    MemberTable,
    PartitionState,
)

ALIVE, SUSPECTED, DOWN, LEAVING = MemberStatus


def record(name: str, status: MemberStatus = ALIVE, *, incarnation: int = 1) -> MemberRecord:
    return MemberRecord(
        name=name,
        incarnation=incarnation,
        address=f"{name}:1",
        actor=actor_id(name, incarnation),
        status=status,
    )


class World:
    """A node's table and who counts in it."""

    def __init__(self, names: str, *, is_silence_an_end: bool = False) -> None:
        self.table = MemberTable()
        self.written_off: list[MemberRecord] = []
        self.electorate = Electorate(
            self.table, written_off=self.written_off, is_silence_an_end=is_silence_an_end
        )
        self.now = 0.0
        self.hear(*names)

    def hear(
        self, *names: str, status: MemberStatus = ALIVE, incarnation: int = 1
    ) -> PartitionState:
        """Take news of members one after the other, judged after each; return what it is."""
        for name in names:
            self.now += 1.0
            self.table.apply(record(name, status, incarnation=incarnation), now=self.now)
            self.electorate.judge()
        self.electorate._check()
        return self.electorate.judge().state

    def member(self, name: str) -> MemberRecord:
        """Return what is known of a member."""
        found = self.table.get(name)
        assert found is not None
        return found


# Majorities


def test_a_down_member_counts_as_long_as_it_is_known() -> None:
    """However long it is gone: it may be alive on the other side."""
    world = World("abcd")

    assert world.hear("d", status=DOWN) is PartitionState.WITH_QUORUM
    assert world.hear("c", status=DOWN) is PartitionState.WITHOUT_QUORUM
    assert (world.electorate.judge().quorum_of, world.electorate.judge().known_count) == (4, 4)


def test_whose_place_another_has_taken_counts_no_longer_where_a_majority_sees_it() -> None:
    """Three of three are replaced, one after the other, and nothing is missing."""
    world = World("abc")
    for old, new in zip("abc", "def", strict=True):
        assert world.hear(old, status=DOWN) is PartitionState.WITH_QUORUM
        assert world.hear(new) is PartitionState.WITH_QUORUM
        assert 3 == world.electorate.judge().quorum_of


def test_a_newcomer_does_not_make_a_minority_whole() -> None:
    """Nobody is replaced where no majority is."""
    world = World("abcd")
    world.hear("c", "d", status=DOWN)

    assert world.hear("e") is PartitionState.WITH_QUORUM  # three of the five that it knows
    world = World("abcde")
    world.hear("c", "d", "e", status=DOWN)
    assert world.hear("f") is PartitionState.WITHOUT_QUORUM
    assert 6 == world.electorate.judge().quorum_of


def test_who_was_replaced_and_comes_back_counts_again() -> None:
    """Two halves of four are none of them a majority, whoever was away once."""
    world = World("abc")
    world.hear("c", status=DOWN)
    world.hear("d")
    world.hear("c", incarnation=2)
    world.hear("b", "d", status=DOWN)

    assert world.electorate.judge().state is PartitionState.WITHOUT_QUORUM


def test_two_that_count_the_same_members_never_both_have_a_majority_apart() -> None:
    """All cuts of a cluster of up to six in two, with one member that is gone or none."""
    for count in range(2, 7):
        names = "abcdef"[:count]
        for size, gone in itertools.product(range(1, count), (*names, "")):
            sides = set(names[:size]), set(names[size:])
            views = []
            for side in sides:
                world = World(names)
                world.hear(*(name for name in names if name not in side - {gone}), status=DOWN)
                views.append(world.electorate.judge())
            counted = {view.quorum_of for view in views}
            assert len(counted) > 1 or not all(view.has_quorum for view in views), (sides, gone)


def test_who_was_replaced_is_not_counted_out_of_the_peak_once_more() -> None:
    """When it is forgotten nobody else's place is free for that, nor when none was ever reached."""
    world = World("abcde")
    world.hear("e", status=DOWN)
    world.hear("f")  # in the place of e
    world.table.forget("e")
    world.electorate.forget("e")
    world.hear("g", status=DOWN)  # of whom this node has only heard
    world.table.forget("g")
    world.electorate.forget("g")
    world.hear("d", status=DOWN)

    view = world.electorate.judge()
    assert (view.reachable_count, view.quorum_of, world.table.peak_count) == (4, 5, 5)


# Two


def test_of_two_silence_makes_no_majority() -> None:
    """The other may be on the far side of a broken network, and think the same."""
    assert World("ab").hear("b", status=DOWN) is PartitionState.WITHOUT_QUORUM


def test_of_two_the_one_whose_peer_has_ended_is_whole() -> None:
    """It is told so before or after the other is Down."""
    early, late = World("ab"), World("ab")
    early.electorate.note_ended(early.member("b"))
    early.hear("b", status=DOWN)
    late.hear("b", status=DOWN)
    before = late.electorate.judge().state
    late.electorate.note_ended(late.member("b"))

    assert before is PartitionState.WITHOUT_QUORUM
    for world in (early, late):
        view = world.electorate.judge()
        assert (view.state, view.quorum_of) == (PartitionState.WITH_QUORUM, 1)
        assert view.unreachable == ("b",)


def test_that_one_start_has_ended_says_nothing_of_the_next() -> None:
    """It came back, and is silent now."""
    world = World("ab")
    world.electorate.note_ended(world.member("b"))
    world.hear("b", status=DOWN)
    world.hear("b", incarnation=2)

    assert world.hear("b", status=DOWN, incarnation=2) is PartitionState.WITHOUT_QUORUM


def test_that_a_process_has_ended_is_no_majority_of_three() -> None:
    """The third may reach what this one does not."""
    world = World("abc")
    for name in "bc":
        world.electorate.note_ended(world.member(name))

    assert world.hear("b", "c", status=DOWN) is PartitionState.WITHOUT_QUORUM


def test_two_of_whom_one_left_are_whole_at_once() -> None:
    """Who said goodbye counts for nothing."""
    world = World("ab")

    assert world.hear("b", status=LEAVING) is PartitionState.NORMAL
    assert 1 == world.electorate.judge().quorum_of


def test_who_sets_it_takes_silence_for_an_end() -> None:
    """Of two only: of three the majority decides as ever."""
    pair = World("ab", is_silence_an_end=True)
    trio = World("abc", is_silence_an_end=True)

    assert pair.hear("b", status=DOWN) is PartitionState.WITH_QUORUM
    assert trio.hear("b", "c", status=DOWN) is PartitionState.WITHOUT_QUORUM


def test_three_of_whom_one_was_written_off_are_two() -> None:
    """From then on it is as with any two."""
    world = World("abc")
    world.hear("c", status=DOWN)
    world.written_off.append(world.member("c"))
    world.electorate.note_ended(world.member("b"))

    assert world.hear("b", status=DOWN) is PartitionState.WITH_QUORUM


# Forgetting


@pytest.mark.parametrize(
    ("gone", "may"), [("c", True), ("bc", False)], ids=["majority", "minority"]
)
def test_only_a_majority_forgets_who_counts(gone: str, may: bool) -> None:
    """A side without one forgets nobody by itself."""
    world = World("abc")
    world.hear(*gone, status=DOWN)

    assert may is world.electorate.may_forget(world.member("c"))
    longest = world.electorate.longest_gone()
    assert ("c" if may else None) == (longest and longest.name)


def test_who_does_not_count_may_be_forgotten_anywhere() -> None:
    """It left, or an operator wrote it off; the one that is gone for longest goes first."""
    world = World("abcd")
    world.hear("b", status=LEAVING)
    world.hear("c", "d", status=DOWN)
    world.written_off.append(world.member("c"))

    assert [True, True, False] == [world.electorate.may_forget(world.member(n)) for n in "bcd"]
    assert world.member("b") is world.electorate.longest_gone()
    world.table.forget("b")
    world.electorate.forget("b")
    assert world.member("c") is world.electorate.longest_gone()


def test_nothing_is_kept_of_who_is_forgotten() -> None:
    """Nor is a name that is met again later held for gone."""
    world = World("ab")
    world.electorate.note_ended(world.member("b"))
    world.hear("b", status=DOWN)
    world.table.forget("b")
    world.electorate.forget("b")
    world.electorate._check()
    world.hear("b", incarnation=2)

    assert world.electorate.diagnostics() == {"has_quorum": True, "left_out": {}, "ended": {}}
