"""The log keeps each writer's entries without a hole, within its limit."""

from __future__ import annotations

import pytest

from meshlib.crdt import GCounter, decode, encode
from meshlib.errors import BrokenInvariant
from meshlib.identity import ActorId, actor_id
from meshlib.replication import Gap, LogEntry
from meshlib.replication.entries.joining import JOINING_S
from meshlib.replication.entries.log import ReplicationLog, entry_bytes, join_entries

A, B = actor_id("a", 1), actor_id("b", 1)


def entry(
    sequence: int, *, actor: ActorId = A, document: str = "n", total: int | None = None
) -> LogEntry:
    delta = encode(GCounter().increment(sequence if total is None else total, by=actor))
    return LogEntry(actor, sequence, sequence, document, delta)


def filled(*entries: LogEntry, bytes_max: int = 1 << 20) -> ReplicationLog:
    log = ReplicationLog(bytes_max=bytes_max)
    for one in entries:
        log.append(one)
    return log


def test_what_a_peer_lacks_comes_in_order() -> None:
    """Entries above the peer's number come, each writer's in order."""
    log = filled(entry(1), entry(2), entry(3))
    found = log.lacking({A: 3}, {A: 1}, bytes_max=10_000)
    assert [2, 3] == [one.first for one in found.entries]
    assert found.is_complete


def test_a_peer_that_lacks_nothing_gets_nothing() -> None:
    """Equal vectors need no entries."""
    found = filled(entry(1)).lacking({A: 1}, {A: 1}, bytes_max=10_000)
    assert ([], False, True) == (found.entries, found.needs_transfer, found.is_complete)


def test_writers_that_the_peer_does_not_know_come_first() -> None:
    """A new writer is not starved by a known one that writes much."""
    log = filled(*(entry(n) for n in range(1, 5)), entry(1, actor=B))
    found = log.lacking({A: 4, B: 1}, {A: 1}, bytes_max=10_000)
    assert [B, A, A, A] == [one.actor for one in found.entries]


def test_small_documents_come_before_large_ones() -> None:
    """A large document does not hold up a small one."""
    large = [entry(n, document="large") for n in range(1, 9)]
    log = filled(*large, entry(1, actor=B, document="small"))
    found = log.lacking({A: 8, B: 1}, {}, bytes_max=10_000)
    assert "small" == found.entries[0].document


def test_the_budget_ends_the_answer() -> None:
    """What does not fit waits for the next exchange, and the answer says so."""
    log = filled(entry(1), entry(2), entry(3))
    found = log.lacking({A: 3}, {}, bytes_max=2 * entry_bytes(entry(1)))
    assert [1, 2] == [one.first for one in found.entries]
    assert not found.is_complete


def test_one_entry_over_the_budget_is_sent_alone() -> None:
    """An exchange always makes progress."""
    found = filled(entry(1), entry(2)).lacking({A: 2}, {}, bytes_max=1)
    assert [1] == [one.first for one in found.entries]


def test_a_peer_behind_the_mark_needs_a_transfer() -> None:
    """What every member had was dropped; a new peer cannot get it from the log."""
    log = filled(entry(1), entry(2))
    assert 1 == log.trim({A: 1})
    assert log.lacking({A: 2}, {}, bytes_max=10_000).needs_transfer
    assert not log.lacking({A: 2}, {A: 1}, bytes_max=10_000).needs_transfer


def test_a_joined_entry_that_is_partly_stable_stays() -> None:
    """A range is dropped only when all of it is stable."""
    log = filled(LogEntry(A, 1, 3, "n", entry(3).delta))
    assert 0 == log.trim({A: 2})
    assert 1 == log.trim({A: 3})


def test_neighbours_of_one_document_are_joined() -> None:
    """Joining keeps the numbers and the join of the deltas."""
    joined = join_entries(entry(1, total=4), entry(2, total=9))
    assert (1, 2) == (joined.first, joined.last)
    assert GCounter().increment(9, by=A) == decode(joined.delta)


def test_only_the_older_half_is_joined() -> None:
    """What most peers lack is still sent one by one."""
    log = filled(*(entry(n) for n in range(1, 9)))
    assert 3 == log.join_adjacent()
    assert [(1, 4), (5, 5), (6, 6), (7, 7), (8, 8)] == [(one.first, one.last) for one in log]
    log._check()
    assert {A: 8} == log.ends()


def test_neighbours_of_different_documents_are_not_joined() -> None:
    """An entry is of one document."""
    log = filled(*(entry(n, document=f"n{n % 2}") for n in range(1, 9)))
    assert 0 == log.join_adjacent()


def test_entries_that_cannot_be_read_are_not_joined() -> None:
    """One that was passed over stays as it came."""
    log = filled(*(LogEntry(A, n, n, "n", b"\xc1") for n in range(1, 9)))
    assert 0 == log.join_adjacent()


def test_what_comes_before_an_unreadable_entry_is_joined() -> None:
    """One that was passed over parts its neighbours and holds up nothing."""
    entries = [entry(n) for n in range(1, 17)]
    entries[4] = LogEntry(A, 5, 5, "n", b"\xc1")
    log = filled(*entries)
    assert 5 == log.join_adjacent()
    assert [(1, 4), (5, 5), (6, 8), (9, 9)] == [(one.first, one.last) for one in log][:4]
    log._check()


def test_joining_ends_when_its_time_is_over() -> None:
    """However little there is to be read: what it stands for may be long."""
    readings = [0.0]

    def seconds() -> float:
        readings[0] += JOINING_S / 4
        return readings[0]

    log = ReplicationLog(bytes_max=1 << 20, seconds=seconds)
    for n in range(1, 65):
        log.append(entry(n))
    assert 0 < log.join_adjacent() < 4
    steps = 1
    while log.join_adjacent():
        steps += 1
    assert steps > 8
    assert next(iter(log)).last >= 32
    log._check()


def test_a_clock_that_is_set_back_ends_a_step_of_joining() -> None:
    """No step waits for a clock to come back."""
    readings = iter([100.0, 0.0])
    log = ReplicationLog(bytes_max=1 << 20, seconds=lambda: next(readings))
    for n in range(1, 9):
        log.append(entry(n))
    assert 0 == log.join_adjacent()


def test_a_full_log_drops_the_oldest() -> None:
    """The limit holds, and the mark moves up with what was dropped."""
    size = entry_bytes(entry(1))
    log = filled(*(entry(n, document=f"n{n}") for n in range(1, 9)), bytes_max=size * 6)
    was_over = log.is_over
    dropped = log.shorten()
    assert was_over
    assert dropped == log.trimmed(A) > 0
    assert not log.is_over
    log._check()
    assert {A: 8} == log.ends()


def test_the_oldest_of_all_writers_goes_first() -> None:
    """A writer that fell silent does not keep its old entries for ever."""
    size = entry_bytes(entry(1, document="x1"))
    log = filled(
        entry(1, actor=B, document="x1"),
        *(entry(n, document=f"x{n}") for n in range(1, 5)),
        bytes_max=size * 4,
    )
    log.shorten()
    assert 1 == log.trimmed(B)


def test_a_gap_is_filled_from_the_log() -> None:
    """The entries of the missing numbers come."""
    log = filled(*(entry(n) for n in range(1, 6)))
    found = log.between(Gap(A, 2, 3), bytes_max=10_000)
    assert [2, 3] == [one.first for one in found.entries]
    assert found.is_complete


def test_a_gap_behind_the_mark_needs_a_transfer() -> None:
    """What was dropped cannot fill a gap."""
    log = filled(entry(1), entry(2))
    log.trim({A: 1})
    assert log.between(Gap(A, 1, 2), bytes_max=10_000).needs_transfer


def test_a_gap_of_an_unknown_writer_is_not_filled() -> None:
    """A peer may ask a node that knows less."""
    found = filled().between(Gap(A, 1, 2), bytes_max=10_000)
    assert ([], False, False) == (found.entries, found.needs_transfer, found.is_complete)


def test_a_range_takes_the_place_of_what_it_holds() -> None:
    """A joined entry that overlaps leaves no double in the log."""
    log = filled(entry(1), entry(2), LogEntry(A, 2, 4, "n", entry(4).delta))
    assert [(1, 1), (2, 4)] == [(one.first, one.last) for one in log]
    log._check()
    assert {A: 4} == log.ends()


def test_a_transfer_empties_the_log_behind_it() -> None:
    """After a transfer the log would have a hole; it begins anew above."""
    log = filled(entry(1), entry(2))
    log.skip_to(A, 7)
    assert (0, 7) == (len(log), log.trimmed(A))
    log.append(entry(8))
    log._check()
    assert {A: 8} == log.ends()


def test_a_forgotten_writer_leaves_the_log() -> None:
    """Nothing of it is sent any more."""
    log = filled(entry(1), entry(1, actor=B))
    log.forget(A)
    assert [B] == [one.actor for one in log]
    assert entry_bytes(entry(1, actor=B)) == log.bytes


def test_a_hole_is_found_by_the_check() -> None:
    """The invariant is worth something."""
    log = filled(entry(1), entry(3))
    with pytest.raises(BrokenInvariant, match="hole"):
        log._check()
