"""Entries that cannot be absorbed yet wait, within a limit."""

from __future__ import annotations

from meshlib.identity import ActorId, actor_id
from meshlib.replication import Gap, LogEntry
from meshlib.replication.entries.gap_buffer import GapBuffer
from meshlib.replication.entries.log import entry_bytes

A, B = actor_id("a", 1), actor_id("b", 1)


def entry(first: int, last: int | None = None, *, actor: ActorId = A) -> LogEntry:
    return LogEntry(actor, first, first if last is None else last, "n", b"x" * 100)


SIZE = entry_bytes(entry(1))


def test_the_next_entry_is_taken_and_others_wait() -> None:
    """Only what follows without a gap comes out."""
    buffer = GapBuffer(bytes_max=100 * SIZE)
    buffer.put(entry(5))
    buffer.put(entry(3))
    assert buffer.pop_next(A, have=1) is None
    assert entry(3) == buffer.pop_next(A, have=2)
    assert A in buffer
    assert entry(5) == buffer.pop_next(A, have=4)
    assert A not in buffer


def test_what_the_vector_has_passed_is_dropped() -> None:
    """A transfer may have brought it meanwhile."""
    buffer = GapBuffer(bytes_max=100 * SIZE)
    buffer.put(entry(3))
    buffer.put(entry(4))
    assert buffer.pop_next(A, have=9) is None
    assert (0, 0) == (len(buffer), buffer.bytes)


def test_what_the_vector_has_passed_is_dropped_behind_one_that_reaches_further_too() -> None:
    """Else it would wait again behind that one, when that one cannot be absorbed yet."""
    buffer = GapBuffer(bytes_max=100 * SIZE)
    buffer.put(entry(3, 9))
    buffer.put(entry(4, 5))
    assert entry(3, 9) == buffer.pop_next(A, have=5)
    assert A not in buffer


def test_a_range_that_reaches_further_replaces_its_first() -> None:
    """Of two entries with one first number the longer one is kept."""
    buffer = GapBuffer(bytes_max=100 * SIZE)
    buffer.put(entry(3))
    buffer.put(entry(3, 6))
    buffer.put(entry(3, 4))
    assert entry(3, 6) == buffer.pop_next(A, have=2)


def test_gaps_are_named_before_and_between() -> None:
    """What is to be asked for is exactly what is missing."""
    buffer = GapBuffer(bytes_max=100 * SIZE)
    for first in (4, 5, 9):
        buffer.put(entry(first))
    assert [Gap(A, 2, 3), Gap(A, 6, 8)] == buffer.gaps(A, have=1)


def test_one_writer_fills_a_quarter_at_most() -> None:
    """A writer far ahead does not crowd out the others."""
    buffer = GapBuffer(bytes_max=8 * SIZE)
    assert [True, True, False] == [buffer.put(entry(first)) for first in (3, 4, 5)]
    assert buffer.put(entry(3, actor=B))


def test_an_entry_further_ahead_makes_way() -> None:
    """What comes next is worth more than what comes later."""
    buffer = GapBuffer(bytes_max=8 * SIZE)
    for first in (8, 9, 3):
        assert buffer.put(entry(first))
    assert [Gap(A, 2, 2), Gap(A, 4, 7)] == buffer.gaps(A, have=1)


def test_a_writer_can_be_dropped() -> None:
    """Its bytes are free again."""
    buffer = GapBuffer(bytes_max=8 * SIZE)
    buffer.put(entry(3))
    buffer.put(entry(3, actor=B))
    buffer.drop(A)
    assert ([B], SIZE) == (buffer.actors(), buffer.bytes)


def test_an_entry_larger_than_the_share_is_refused() -> None:
    """It leaves nothing behind."""
    buffer = GapBuffer(bytes_max=2 * SIZE)
    assert not buffer.put(entry(3))
    assert A not in buffer
