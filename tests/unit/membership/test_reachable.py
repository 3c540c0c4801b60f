"""What the table keeps of those in reach, so that nobody has to count them."""

from __future__ import annotations

import pytest
from attrs import evolve

from meshlib.identity import actor_id
from meshlib.membership import MemberRecord, MemberStatus, MemberTable


def record(name: str, status: MemberStatus = MemberStatus.ALIVE, zone: str = "") -> MemberRecord:
    return MemberRecord(
        name=name,
        incarnation=1,
        status=status,
        address=name,
        actor=actor_id(name, 1),
        zone=zone,
    )


def test_the_count_follows_those_that_come_and_go() -> None:
    """Suspected members are in reach, Down ones are not, and a forgotten one is nobody."""
    table = MemberTable()
    counts = []
    for news in (
        record("a"),
        record("b"),
        record("b", MemberStatus.SUSPECTED),
        record("b", MemberStatus.DOWN),
        evolve(record("b"), incarnation=2),
    ):
        table.apply(news, now=0.0)
        counts.append(table.reachable_count)
    table.forget("b")
    table._check()

    assert [*counts, table.reachable_count] == [1, 2, 2, 1, 2, 1]


def test_those_in_reach_are_sorted_and_up_to_date() -> None:
    """The tuple is made anew after each change."""
    table = MemberTable()
    table.apply(record("b"), now=0.0)
    before = table.reachable()
    table.apply(record("a"), now=0.0)

    assert [m.name for m in before] == ["b"]
    assert [m.name for m in table.reachable()] == ["a", "b"]
    assert table.reachable() is table.reachable()


def test_news_of_one_member_looks_at_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of thousands that comes with one message took seconds, for each looked at all."""
    table = MemberTable()
    for number in range(200):
        table.apply(record(f"m{number:03}"), now=0.0)
    looked: list[str] = []

    def counting(self: MemberRecord) -> bool:
        looked.append(self.name)
        return self.status in (MemberStatus.ALIVE, MemberStatus.SUSPECTED)

    monkeypatch.setattr(MemberRecord, "is_reachable", property(counting))
    for status in (MemberStatus.SUSPECTED, MemberStatus.DOWN):
        table.apply(record("m100", status), now=0.0)
        table.reachable()

    assert set(looked) == {"m100"}


def test_a_suspicion_leaves_the_graph_alone() -> None:
    """The revision of those in reach moves only when somebody comes, goes or moves house."""
    table = MemberTable()
    table.apply(record("a"), now=0.0)
    before = table.reachable_revision
    table.apply(record("a", MemberStatus.SUSPECTED), now=0.0)
    suspected = table.reachable_revision
    table.apply(evolve(record("a"), incarnation=2, zone="z1"), now=0.0)
    moved = table.reachable_revision
    table.apply(evolve(record("a", MemberStatus.DOWN), incarnation=2, zone="z1"), now=0.0)

    assert (before, suspected) == (1, 1)
    assert suspected < moved < table.reachable_revision
