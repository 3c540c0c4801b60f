"""The member table is a join: any order of news ends in the same table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.identity import actor_id
from meshlib.membership import MemberRecord, MemberStatus, MemberTable

STATUSES = list(MemberStatus)


def record(
    name: str = "a",
    incarnation: int = 1,
    status: MemberStatus = MemberStatus.ALIVE,
    version: int = 1,
) -> MemberRecord:
    return MemberRecord(
        name=name,
        incarnation=incarnation,
        status=status,
        address=f"{name}:{incarnation}",
        actor=actor_id(name, incarnation),
        version=version,
    )


records = st.builds(
    record,
    name=st.sampled_from("abc"),
    incarnation=st.integers(0, 3),
    status=st.sampled_from(STATUSES),
    version=st.integers(1, 5),
)


@given(st.lists(records, max_size=12), st.randoms(use_true_random=False))
def test_any_order_of_news_ends_in_the_same_table(news: list[MemberRecord], rng: object) -> None:
    """Two tables that were given the same records in other orders are equal."""
    left, right = MemberTable(), MemberTable()
    for piece in news:
        left.apply(piece, now=0.0)
    shuffled = list(news) + news[:3]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    for piece in shuffled:
        right.apply(piece, now=0.0)

    assert list(left) == list(right)
    left._check()


@given(records, records)
def test_a_version_never_goes_back(first: MemberRecord, second: MemberRecord) -> None:
    """The version kept is at least that of everything that was applied."""
    table = MemberTable()
    table.apply(first, now=0.0)
    table.apply(second, now=0.0)
    kept = table.get(second.name)

    assert kept is not None
    assert kept.version >= second.version


def test_down_is_final_for_one_incarnation() -> None:
    """Alive news of the same incarnation does not bring a Down member back."""
    table = MemberTable()
    table.apply(record(status=MemberStatus.DOWN), now=0.0)

    assert table.apply(record(status=MemberStatus.ALIVE), now=1.0) is None


def test_a_higher_incarnation_brings_a_member_back() -> None:
    """A new start, or a refutation, is Alive again."""
    table = MemberTable()
    table.apply(record(status=MemberStatus.DOWN), now=0.0)
    table.apply(record(incarnation=2), now=1.0)
    kept = table.get("a")

    assert kept is not None
    assert kept.status is MemberStatus.ALIVE


def test_a_forgotten_member_is_not_brought_back_by_old_news() -> None:
    """What was forgotten is remembered by its incarnation."""
    table = MemberTable()
    table.apply(record(status=MemberStatus.DOWN), now=0.0)
    table.forget("a")

    assert table.apply(record(), now=1.0) is None
    assert table.apply(record(incarnation=2), now=1.0) is not None


def test_the_table_is_bounded() -> None:
    """A member beyond the bound is not taken in."""
    table = MemberTable(members_max=2)
    kept = [table.apply(record(name), now=0.0) for name in "abc"]

    assert [piece is not None for piece in kept] == [True, True, False]


def test_since_is_when_the_status_changed() -> None:
    """News that leaves the status as it was does not move the time."""
    table = MemberTable()
    table.apply(record(), now=1.0)
    table.apply(record(incarnation=2), now=2.0)
    table.apply(record(incarnation=2, status=MemberStatus.SUSPECTED), now=3.0)

    assert table.since("a") == 3.0


def test_a_full_table_says_so() -> None:
    """Then somebody is to be forgotten before another name has room."""
    table = MemberTable(members_max=2)
    was_full = []
    for name in "ab":
        was_full.append(table.is_full)
        table.apply(record(name), now=0.0)
    is_full = table.is_full
    table.forget("a")

    assert (was_full, is_full, table.is_full) == ([False, False], True, False)
    table._check()


def test_the_peak_falls_when_a_member_leaves_or_is_forgotten() -> None:
    """It counts who was in reach at once, and not those that said goodbye."""
    table = MemberTable()
    for name in "abcd":
        table.apply(record(name), now=0.0)
    table.apply(record("a", status=MemberStatus.LEAVING), now=1.0)
    after_leaving = table.peak_count
    table.apply(record("b", status=MemberStatus.DOWN), now=1.0)
    after_death = table.peak_count
    table.forget("b")

    assert (after_leaving, after_death, table.peak_count) == (3, 3, 2)
