"""What readers may see of a transfer before it is joined, and what never depends on it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.world import World

from meshlib.errors import UnknownKeyError
from meshlib.identity import actor_id
from meshlib.replication import Replica, TransferPage, TransferPages
from meshlib.replication.page_content import PageContent


def small_and_large(world: World) -> Replica:
    """Return a replica with two small maps and a tree of many pages."""
    replica = world.replica("a")
    replica.open("a tree", type_tag="prefix_cache")
    for number in range(300):
        text = f"{number:03} some prompt that is long enough to need several pages"
        replica.write(
            "a tree", partial(lambda t, s, _: s.insert(t, tenant="worker", access=7), text)
        )
    replica.flush()
    world.put(replica, "limit", 5, document="m")
    world.put(replica, "policy", "p", document="z")
    return replica


def take(replica: Replica, pages: TransferPages, count: int) -> list[TransferPage]:
    """Let a replica see so many pages."""
    taken = [next(pages) for _ in range(count)]
    for page in taken:
        replica.absorb_page(page, is_shown=True)
    return taken


def test_maps_come_before_what_is_large(world: World) -> None:
    """Whatever they are called, and however many entries they have."""
    a = small_and_large(world)
    for number in range(400):
        world.put(a, f"key-{number}", "v", document="z")
    names = [page.document for page in a.transfer_pages({}, page_bytes_max=4096)]
    assert names == sorted(names, key=lambda name: name == "a tree")
    assert names.count("a tree") > 3


def test_readers_see_a_map_before_the_transfer_is_over(world: World) -> None:
    """It is told as a change too."""
    a, b = small_and_large(world), world.replica("b")
    b.open("m", type_tag="lww_map")
    take(b, a.transfer_pages(b.transfer_offer(), page_bytes_max=4096), 2)
    assert (world.live(b), world.live(b, document="z")) == ({"limit": 5}, {"policy": "p"})
    assert ["m", "z"] == [change.document for change in b.changes()]


def test_what_came_before_its_sender_was_ready_is_shown_once_it_is(world: World) -> None:
    """With the next page, whatever that is of."""
    a, b = small_and_large(world), world.replica("b")
    b.open("m", type_tag="lww_map")
    pages = a.transfer_pages(b.transfer_offer(), page_bytes_max=4096)
    for _ in range(3):
        b.absorb_page(next(pages))
    assert world.live(b) == {}
    take(b, pages, 1)
    assert (world.live(b), world.live(b, document="z")) == ({"limit": 5}, {"policy": "p"})


def test_what_is_shown_is_in_nothing_that_others_are_given(world: World) -> None:
    """Vector, digest, offer, pages and file are those of a node without it."""
    a, b = small_and_large(world), world.replica("b")
    before = b.content_digest()
    take(b, a.transfer_pages(b.transfer_offer(), page_bytes_max=4096), 2)
    assert ({}, before) == (dict(b.version_vector), b.content_digest())
    exported = b.export_state()
    parts = [PageContent.decode(page.state).part for page in exported.pages]
    assert not any(b"limit" in part for part in parts)
    b._check()


def test_a_tree_is_not_shown(world: World) -> None:
    """Only what has numbered entries is, which can be told from what was removed."""
    a, b = small_and_large(world), world.replica("b")
    take(b, a.transfer_pages(b.transfer_offer(), page_bytes_max=4096), 4)
    with pytest.raises(UnknownKeyError):
        b.get("a tree")


def test_what_was_removed_here_is_not_shown(world: World) -> None:
    """Rule R2 holds for what is shown: covered here and absent is dead."""
    a, b = world.replica("a"), world.replica("b")
    entry = world.put(a, "k", 1)
    b.receive([entry])
    world.put(a, "other", 1)
    world.remove(b, "k")
    b.collect_tombstones({b.actor: 1}, now=0.0)
    b.collect_tombstones({b.actor: 1}, now=1.0)
    take(b, a.transfer_pages(b.transfer_offer()), 1)
    assert world.live(b) == {"other": 1}


def test_a_node_that_comes_back_goes_on_with_what_it_had(world: World) -> None:
    """What was shown to its readers before is not part of it, nor what is adopted now."""
    a, b = small_and_large(world), world.replica("b")
    world.put(b, "own", 1)
    take(b, a.transfer_pages(b.transfer_offer(), page_bytes_max=4096), 2)
    b.begin_rejoin(actor_id("b", 2))
    assert world.live(b) == {"own": 1}
    world.transfer(a, b)
    b.finish_rejoin()
    assert world.live(b) == {"own": 1, "limit": 5}
    b._check()


def test_a_write_over_what_is_shown_wins(world: World) -> None:
    """It is stamped later, although the other's clock is ahead, and counts on from its version."""
    a, b = world.replica("a"), world.replica("b")
    world.offsets["a"] = 30.0
    world.put(a, "k", "old")
    world.put(a, "k", "older")
    pages = a.transfer_pages(b.transfer_offer())
    take(b, pages, 1)
    world.put(b, "k", "new")
    assert world.live(b) == {"k": "new"}
    b.complete_transfer(pages.vector)
    state: Any = b.get("m")
    assert (world.live(b), state.version("k")) == ({"k": "new"}, 3)


def test_a_state_of_a_future_that_is_not_believed_is_not_shown(world: World) -> None:
    """What waits to be joined waits to be seen."""
    a, b = world.replica("a"), world.replica("b")
    world.offsets["a"] = 90.0
    world.put(a, "k", 1)
    take(b, a.transfer_pages(b.transfer_offer()), 1)
    assert world.live(b) == {}


def test_what_was_shown_stays_when_its_sender_is_gone(world: World) -> None:
    """It travels as a write of the node that has it, with the stamps of those who wrote it."""
    a, b, c = small_and_large(world), world.replica("b"), world.replica("c")
    take(b, a.transfer_pages(b.transfer_offer(), page_bytes_max=4096), 2)
    assert b.keep_early() == 2
    assert (world.live(b), world.live(b, document="z")) == ({"limit": 5}, {"policy": "p"})
    assert list(b.version_vector) == []
    c.receive(b.flush())
    before: Any = a.get("m")
    after: Any = c.get("m")
    assert before.entry("limit") == after.entry("limit")
    assert (b.content_digest(), dict(b.version_vector)) == (c.content_digest(), {b.actor: 2})
    b._check()


def test_what_came_in_another_way_is_not_written_again(world: World) -> None:
    """Nor what the transfer itself brought; readers are told to look again."""
    a, b = world.replica("a"), world.replica("b")
    entries = [world.put(a, "k", 1), world.put(a, "l", 2)]
    pages = a.transfer_pages(b.transfer_offer())
    take(b, pages, 1)
    b.receive(entries)
    b.changes()
    assert b.keep_early() == 0
    assert [("m", True)] == [(change.document, change.is_reset) for change in b.changes()]
    assert not b.has_open_writes
    b.complete_transfer(pages.vector)
    assert (a.vector_hash(), a.content_digest()) == (b.vector_hash(), b.content_digest())


def test_what_was_shown_and_is_dead_is_not_kept(world: World) -> None:
    """One who has seen the removal and dropped it brings no entry, and covers it."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entry = world.put(a, "k", 1)
    c.receive([entry])
    take(b, a.transfer_pages(b.transfer_offer()), 1)
    assert world.live(b) == {"k": 1}
    world.remove(c, "k")
    c.collect_tombstones({c.actor: 1}, now=0.0)
    c.collect_tombstones({c.actor: 1}, now=1.0)
    world.transfer(c, b)
    assert world.live(b) == {}
    assert not b.has_open_writes


def test_entries_that_come_meanwhile_are_seen_too(world: World) -> None:
    """A map that is shown goes on with what its peers write."""
    a, b, c = small_and_large(world), world.replica("b"), world.replica("c")
    take(b, a.transfer_pages(b.transfer_offer(), page_bytes_max=4096), 2)
    b.receive([world.put(c, "late", 1)])
    assert world.live(b) == {"limit": 5, "late": 1}
    b._check()


def test_it_is_told_how_much_is_in(world: World) -> None:
    """Entries of how many, from the first page to the last."""
    a, b = small_and_large(world), world.replica("b")
    pages = a.transfer_pages(b.transfer_offer(), page_bytes_max=4096)
    assert b.arrived() == (0, 0)
    seen = []
    for page in pages:
        b.absorb_page(page)
        seen.append(b.arrived())
    assert seen[0] == (1, 302)
    assert seen == sorted(seen)
    assert seen[-1] == (302, 302)
    b.complete_transfer(pages.vector)
    assert b.arrived() == (0, 0)


def test_a_large_tree_takes_the_place_of_a_small_one(world: World) -> None:
    """What was here is in it, and readers are told to read it again."""
    a, b = world.replica("a"), world.replica("b")
    for replica, count in ((a, 1500), (b, 3)):
        replica.open("t", type_tag="prefix_cache")
        for number in range(count):
            text = f"{replica.actor.hex()} {number}"
            replica.write("t", partial(lambda t, s, _: s.insert(t, tenant="w", access=7), text))
        replica.flush()
    b.changes()
    world.transfer(a, b)
    state: Any = b.get("t")
    assert len(state) == 1503
    assert [True] == [change.is_reset for change in b.changes()]
    world.transfer(b, a)
    assert a.content_digest() == b.content_digest()
    b._check()


def test_a_removal_that_was_shown_is_kept_as_this_nodes_own(world: World) -> None:
    """With the time that it had: its writer is counted by nobody, who would keep it for good."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    value = world.put(a, "k", 1)
    world.put(a, "other", 2)
    removal = world.remove(a, "k")
    c.receive([value])
    pages = list(a.transfer_pages(b.transfer_offer()))
    for page in pages:
        b.absorb_page(page, is_shown=True)
    assert b.keep_early() == 2
    kept: Any = b.get("m")
    gone: Any = a.get("m")
    assert kept.entry("k").actor == b.actor
    assert kept.entry("k").stamp[:2] == gone.entry("k").stamp[:2]
    assert kept.entry("other") == gone.entry("other")

    c.receive(b.flush())
    assert (world.live(b), world.live(c)) == ({"other": 2}, {"other": 2})
    for replica in (b, c):
        settled = dict(replica.version_vector)
        replica.collect_tombstones(settled, now=0.0)
        replica.collect_tombstones(settled, now=1.0)
        state: Any = replica.get("m")
        assert state.entry("k") is None
        replica._check()
    a.receive(b.flush())
    assert removal
