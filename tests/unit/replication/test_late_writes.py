"""What was removed comes back by a later write only, also when the removal has been dropped."""

from __future__ import annotations

from typing import Any

import pytest
from support.world import World

from meshlib.codec import pack, unpack
from meshlib.errors import DecodeError
from meshlib.identity import actor_id
from meshlib.replication import LogEntry, Replica, TransferPage, TransferPages
from meshlib.replication.late_writes import POSTPONED_MAX


def removed_and_dropped(world: World) -> tuple[Replica, LogEntry, LogEntry]:
    """Return a replica that dropped a removal of "key", the removal, and an older, unseen write."""
    cut_off, here = world.replica("cut-off"), world.replica("here")
    unseen = world.put(cut_off, "key", "unseen")
    world.put(here, "key", "seen")
    removal = world.remove(here, "key")
    assert here.collect_tombstones(here.version_vector, now=0.0) == 1
    return here, removal, unseen


def settle(replica: Replica) -> None:
    """Let a second pass in which nothing more comes."""
    replica.write_late()
    replica.write_late()


def entry_of(replica: Replica, key: str = "key") -> Any:
    state: Any = replica.get("m")
    return state.entry(key)


def removal_stamp(removal: LogEntry, world: World) -> Any:
    reader = world.replica("reader")
    world.wall_s += 1.0
    skipped = LogEntry(removal.actor, 1, 1, removal.document, removal.delta)
    reader.receive([skipped])
    return entry_of(reader).stamp


def test_an_older_write_that_comes_as_an_entry_is_written_again(world: World) -> None:
    """It stays, as a write of this node after the removal."""
    here, removal, unseen = removed_and_dropped(world)
    here.receive([unseen])
    settle(here)

    assert world.live(here) == {"key": "unseen"}
    assert entry_of(here).stamp > removal_stamp(removal, world)
    assert entry_of(here).actor == here.actor


def test_an_older_write_that_comes_with_a_state_is_written_again(world: World) -> None:
    """As one that comes as an entry, and once: then nothing is left to do."""
    here, removal, unseen = removed_and_dropped(world)
    other = world.replica("other")
    other.receive([unseen])
    world.transfer(other, here)
    settle(here)
    entries = here.flush()

    assert world.live(here) == {"key": "unseen"}
    assert entry_of(here).stamp > removal_stamp(removal, world)
    assert len(entries) == 1
    other.receive(entries)
    settle(other)
    assert world.live(other) == {"key": "unseen"}
    assert other.flush() == []


def test_a_node_that_took_over_the_state_knows_as_much(world: World) -> None:
    """It never saw the removal, and those who did may ask it."""
    here, removal, unseen = removed_and_dropped(world)
    newcomer = world.replica("newcomer")
    world.put(here, "other", 1)
    world.transfer(here, newcomer)
    newcomer.receive([unseen])
    settle(newcomer)

    assert entry_of(newcomer).stamp > removal_stamp(removal, world)


def test_a_state_on_disk_tells_as_much(world: World) -> None:
    """A node that begins from it writes again what comes late."""
    here, removal, unseen = removed_and_dropped(world)
    world.put(here, "other", 1)
    restarted = world.replica("here", incarnation=2)
    restarted.import_state(here.export_state())
    restarted.receive([unseen])
    settle(restarted)

    assert entry_of(restarted).stamp > removal_stamp(removal, world)


def test_a_write_after_the_removal_is_taken_as_it_is(world: World) -> None:
    """In ordinary operation nothing is written again."""
    here, _, _ = removed_and_dropped(world)
    later = world.put(world.replica("later"), "key", "later")
    here.receive([later])
    settle(here)

    assert world.live(here) == {"key": "later"}
    assert here.flush() == []


def test_an_older_write_of_a_key_that_is_here_loses_as_ever(world: World) -> None:
    """What is here was written after the removal, or its tombstone would be."""
    here, _, unseen = removed_and_dropped(world)
    world.put(here, "key", "again")
    here.receive([unseen])
    settle(here)

    assert world.live(here) == {"key": "again"}
    assert here.flush() == []


def test_a_late_removal_is_no_write_to_be_kept(world: World) -> None:
    """Nothing comes back by it."""
    here, _, _ = removed_and_dropped(world)
    other = world.replica("other")
    world.wall_s -= 100.0
    written, removal = world.put(other, "gone", 1), world.remove(other, "gone")
    here.receive([written, removal])
    settle(here)

    assert world.live(here) == {}


def test_the_last_of_several_late_writes_stays(world: World) -> None:
    """What came first does not win by being written again before the rest has come."""
    cut_off, here = world.replica("cut-off"), world.replica("here")
    unseen = [world.put(cut_off, "key", 1), world.remove(cut_off, "key")]
    unseen.append(world.put(cut_off, "key", 2))
    world.put(here, "key", "seen")
    removal = world.remove(here, "key")
    here.collect_tombstones(here.version_vector, now=0.0)
    for entry in unseen:
        here.receive([entry])
        assert here.write_late() == 0, "more may be on its way"
    settle(here)

    assert world.live(here) == {"key": 2}
    assert entry_of(here).stamp > removal_stamp(removal, world)


def test_a_late_write_that_was_overwritten_since_is_left_alone(world: World) -> None:
    """Written again, the key would win over the next write, that has not come here yet."""
    here, _, unseen = removed_and_dropped(world)
    other = world.replica("other")
    here.receive([unseen])
    assert here.write_late() == 0, "more may be on its way"
    here.receive([world.put(other, "key", "newer")])
    newest = world.put(other, "key", "newest")
    world.wall_s += 0.05

    assert here.write_late() == 0
    assert here.flush() == []
    assert entry_of(here).actor == other.actor
    here.receive([newest])
    assert world.live(here) == world.live(other) == {"key": "newest"}


def test_late_writes_that_follow_one_another_for_ever_are_written_in_the_end(world: World) -> None:
    """They are waited for a number of times, and as often again afterwards."""
    cut_off, here = world.replica("cut-off"), world.replica("here")
    unseen = [world.put(cut_off, f"key-{number}", number) for number in range(POSTPONED_MAX + 2)]
    world.put(here, "other", "seen")
    world.remove(here, "other")
    assert here.collect_tombstones(here.version_vector, now=0.0) == 1
    written = []
    for entry in unseen:
        here.receive([entry])
        written.append(here.write_late())

    assert written == [0] * POSTPONED_MAX + [POSTPONED_MAX + 1, 0]
    assert entry_of(here, "key-0").actor == here.actor
    assert here.write_late() == 1
    assert here.write_late() == 0


def shown_late(world: World) -> tuple[Replica, LogEntry, TransferPages]:
    """Return a replica whose readers see a late write before it is joined, and the removal."""
    here, removal, unseen = removed_and_dropped(world)
    other = world.replica("other")
    other.receive([unseen])
    pages = other.transfer_pages(here.transfer_offer())
    here.absorb_page(next(pages), is_shown=True)
    assert world.live(here) == {"key": "unseen"}
    return here, removal, pages


def test_a_late_write_that_is_shown_early_waits_to_be_joined(world: World) -> None:
    """Nothing is written again of a state that is coming still: the rest of it may say more."""
    here, _, _ = shown_late(world)
    settle(here)

    assert here.flush() == []
    assert [*here.inspectable()["late_writes"].diagnostics()["waiting"]["m"]] == ["key"]
    here._check()


def test_a_late_write_that_was_shown_early_is_written_again_once(world: World) -> None:
    """When the transfer is complete, as one that nobody had been shown."""
    here, removal, pages = shown_late(world)
    here.complete_transfer(pages.vector)
    settle(here)

    assert world.live(here) == {"key": "unseen"}
    assert entry_of(here).stamp > removal_stamp(removal, world)
    assert len(here.flush()) == 1
    settle(here)
    assert here.flush() == []


def test_a_late_write_that_was_shown_by_one_who_is_gone_is_written_again(world: World) -> None:
    """It is kept, because readers have seen it, and not under the removal."""
    here, removal, _ = shown_late(world)
    assert here.keep_early() == 1
    settle(here)

    assert world.live(here) == {"key": "unseen"}
    assert entry_of(here).actor == here.actor
    assert entry_of(here).stamp > removal_stamp(removal, world)


def test_what_was_shown_before_a_removal_was_heard_to_be_dropped_is_late_too(world: World) -> None:
    """One peer shows a write and is gone, and another's state has dropped a removal after it."""
    there, removal, unseen = removed_and_dropped(world)
    world.put(there, "other", 1)
    gone, here = world.replica("gone"), world.replica("newcomer")
    gone.receive([unseen])
    here.absorb_page(next(gone.transfer_pages(here.transfer_offer())), is_shown=True)
    world.transfer(there, here)
    settle(here)

    assert world.live(here) == {"key": "unseen", "other": 1}
    assert entry_of(here).stamp > removal_stamp(removal, world)


def test_one_that_comes_back_removes_again_what_the_others_never_heard_of(world: World) -> None:
    """It was cut off, removed a key, and forgot the removal as it had forgotten the others."""
    peer, away = world.replica("peer"), world.replica("away")
    away.receive([world.put(peer, "key", 1), world.put(peer, "kept", 2)])
    world.remove(away, "key")
    away.collect_tombstones(away.version_vector, now=0.0)
    away.begin_rejoin(actor_id("away", 2))
    world.transfer(peer, away)
    report = away.finish_rejoin()
    peer.receive(away.flush())

    assert report.kept == 1
    assert world.live(away) == world.live(peer) == {"kept": 2}


def test_one_that_comes_back_writes_again_what_it_may_have_removed(world: World) -> None:
    """A write of the others' that it never saw, older than a removal that it has forgotten."""
    away, removal, unseen = removed_and_dropped(world)
    peer = world.replica("peer")
    peer.receive([unseen])
    away.begin_rejoin(actor_id("here", 2))
    world.transfer(peer, away)
    away.finish_rejoin()

    assert world.live(away) == {"key": "unseen"}
    assert entry_of(away).stamp > removal_stamp(removal, world)


def test_numbers_that_another_process_wrote_prove_no_removal(world: World) -> None:
    """A process that lives twice: the other one's writes are not taken for removed here."""
    away, twin, peer = world.replica("x"), world.replica("x"), world.replica("peer")
    world.put(away, "mine", 1)
    peer.receive([world.put(twin, "theirs", 2), world.put(twin, "theirs too", 3)])
    away.begin_rejoin(actor_id("x", 2))
    world.transfer(peer, away)
    away.finish_rejoin()

    assert {"theirs": 2, "theirs too": 3}.items() <= world.live(away).items()


def test_a_page_from_a_sender_with_removals_in_its_future_is_refused(world: World) -> None:
    """Everything would be late to who believed it."""
    here, _, _ = removed_and_dropped(world)
    world.put(here, "other", 1)
    page = next(iter(here.transfer_pages({})))
    version, numbers, *rest = unpack(page.state)
    future = (*numbers[:5], numbers[3] + 1, 0, *numbers[7:])

    with pytest.raises(DecodeError, match="in the sender's future"):
        world.replica("b").absorb_page(TransferPage("m", pack((version, future, *rest))))
