"""State transfers: pages that fit, what they prove, and what they never bring back."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.world import World

from meshlib.codec import pack, unpack
from meshlib.crdt import decode
from meshlib.errors import (
    DecodeError,
    LimitExceeded,
    RejectReason,
    RemoteError,
    VersionMismatch,
)
from meshlib.limits import VALUE_BYTES_MAX
from meshlib.replication import (
    EntriesHeld,
    LogEntry,
    PageSkipped,
    Replica,
    ReplicationConfig,
    TransferPage,
)
from meshlib.replication.page_content import PageContent


def fill(world: World, replica: Replica, count: int) -> None:
    for number in range(count):
        world.put(replica, f"key-{number}", "v" * 100)


def test_a_new_node_gets_everything(world: World) -> None:
    """Content of each type and the vector are the same afterwards."""
    a, b = world.replica("a"), world.replica("b")
    fill(world, a, 50)
    world.increment(a)
    a.open("t", type_tag="or_set")
    a.write("t", lambda s, c: s.add("tag", dot=c.dot()))
    a.flush()
    world.transfer(a, b)
    assert (a.vector_hash(), a.content_digest()) == (b.vector_hash(), b.content_digest())
    assert a.documents() == b.documents()
    b._check()


def test_only_what_differs_is_sent(world: World) -> None:
    """One key of many costs one bucket."""
    a, b = world.replica("a"), world.replica("b")
    fill(world, a, 200)
    world.transfer(a, b)
    world.put(a, "one more", 1)
    (page,) = a.transfer_pages(b.transfer_offer())
    content = PageContent.decode(page.state)
    part: Any = decode(content.part)
    assert 1 == len(content.begun)
    assert "one more" in part
    assert len(part) < 20


def test_pages_fit_the_limit(world: World) -> None:
    """And there are not many more than needed."""
    a = world.replica("a")
    fill(world, a, 300)
    sizes = [len(page.state) for page in a.transfer_pages({}, page_bytes_max=4096)]
    assert max(sizes) <= 4096
    assert sum(sizes) / len(sizes) > 1024


def test_a_bucket_over_the_limit_is_cut(world: World) -> None:
    """Its keys come in several pages, and only the first says that it begins."""
    a, b = world.replica("a"), world.replica("b")
    a.open("t", type_tag="or_set")
    for number in range(300):
        a.write("t", partial(lambda n, s, c: s.add(f"element-{n}", dot=c.dot()), number))
    a.flush()
    pages = list(a.transfer_pages(b.transfer_offer(), page_bytes_max=2048))
    assert len(pages) > 3
    assert max(len(page.state) for page in pages) <= 2048
    world.transfer(a, b, page_bytes_max=2048)
    assert a.content_digest() == b.content_digest()


def test_a_value_that_cannot_be_cut_is_sent_whole(world: World) -> None:
    """A page is over the limit rather than never sent."""
    a, b = world.replica("a"), world.replica("b")
    for key in "xyz":
        world.put(a, key, b"v" * (VALUE_BYTES_MAX - 8))
    world.transfer(a, b, page_bytes_max=4096)
    assert world.live(a) == world.live(b)


def test_content_comes_with_the_vector_and_not_before(world: World) -> None:
    """A transfer that breaks off leaves nothing behind."""
    a, b = world.replica("a"), world.replica("b")
    fill(world, a, 100)
    for page in a.transfer_pages({}, page_bytes_max=2048):
        b.absorb_page(page)
    assert ([], {}) == (b.documents(), dict(b.version_vector))


def test_a_missing_page_is_noticed(world: World) -> None:
    """The vector is not joined over what did not come."""
    a, b = world.replica("a"), world.replica("b")
    fill(world, a, 100)
    pages = a.transfer_pages({}, page_bytes_max=2048)
    for number, page in enumerate(pages):
        if number != 3:
            b.absorb_page(page)
    b.complete_transfer(pages.vector)
    assert {} == b.version_vector


def test_a_repeated_page_changes_nothing(world: World) -> None:
    """A sender may send one again."""
    a, b = world.replica("a"), world.replica("b")
    fill(world, a, 100)
    pages = a.transfer_pages({}, page_bytes_max=2048)
    for page in pages:
        b.absorb_page(page)
        b.absorb_page(page)
    b.complete_transfer(pages.vector)
    assert a.content_digest() == b.content_digest()


def test_pages_are_of_the_state_as_it_was(world: World) -> None:
    """What is written after the first page comes by entries: the vector does not count it."""
    a, b = world.replica("a"), world.replica("b")
    fill(world, a, 100)
    pages = a.transfer_pages({}, page_bytes_max=2048)
    b.absorb_page(next(pages))
    later = world.put(a, "later", 1)
    for page in pages:
        b.absorb_page(page)
    b.complete_transfer(pages.vector)
    assert "later" not in world.live(b)
    assert [later] == a.lacking(b.version_vector, bytes_max=1000).entries


def test_a_removal_that_was_collected_here_stays_removed(world: World) -> None:
    """R2: a peer that has not seen it cannot bring the entry back by its state."""
    a, b = world.replica("a"), world.replica("b")
    b.receive([world.put(a, "x", 1)])
    world.remove(b, "x")
    b.collect_tombstones(b.version_vector, now=0.0)
    world.put(a, "y", 2)
    world.transfer(a, b)
    assert {"y": 2} == world.live(b)


def test_a_removal_that_was_collected_there_arrives(world: World) -> None:
    """What the sender's vector covers and the sender does not have is dead here too."""
    a, b = world.replica("a"), world.replica("b")
    b.receive([world.put(a, "x", 1), world.put(a, "y", 2)])
    b.changes()
    world.remove(a, "x")
    a.collect_tombstones(a.version_vector, now=0.0)
    world.transfer(a, b)
    assert {"y": 2} == world.live(b)
    (change,) = b.changes()
    assert change.is_reset


def test_a_write_that_the_sender_has_not_seen_survives(world: World) -> None:
    """Its vector does not cover it, so its absence proves nothing."""
    a, b = world.replica("a"), world.replica("b")
    b.receive([world.put(a, "x", 1)])
    world.put(b, "z", 3)
    world.put(a, "y", 2)
    world.transfer(a, b)
    assert {"x": 1, "y": 2, "z": 3} == world.live(b)


def test_a_repair_joins_everything(world: World) -> None:
    """When equal vectors hold different content, vectors prove nothing: nothing is dropped."""
    a, b = world.replica("a"), world.replica("b")
    b.receive([world.put(a, "x", 1), world.put(a, "y", 2)])
    state: Any = b.get("m")
    state.drop(["x"])
    assert (a.vector_hash(), True) == (b.vector_hash(), a.content_digest() != b.content_digest())
    world.transfer(b, a, is_repair=True)
    world.transfer(a, b, is_repair=True)
    assert {"x": 1, "y": 2} == world.live(a) == world.live(b)


def test_entries_that_waited_are_absorbed_behind_a_transfer(world: World) -> None:
    """The gap is closed by the state."""
    a, b = world.replica("a"), world.replica("b")
    world.put(a, "x", 1)
    pages = a.transfer_pages({})
    entry = world.put(a, "y", 2)
    b.receive([entry])
    for page in pages:
        b.absorb_page(page)
    assert [entry] == b.complete_transfer(pages.vector).new
    assert {"x": 1, "y": 2} == world.live(b)
    b._check()


def test_a_log_begins_anew_behind_a_transfer(world: World) -> None:
    """What came as state cannot be given as entries."""
    a, b = world.replica("a"), world.replica("b")
    world.put(a, "x", 1)
    world.transfer(a, b)
    assert b.lacking({}, bytes_max=1000).needs_transfer


def test_the_hybrid_clock_travels_with_the_state(world: World) -> None:
    """A write made after it is later than any removal that the sender has dropped."""
    a, b = world.replica("a"), world.replica("b")
    world.offsets["a"] = 30.0
    world.put(a, "x", 1)
    world.remove(a, "x")
    tombstone: Any = a.get("m")
    stamp = tombstone.entry("x").stamp
    a.collect_tombstones(a.version_vector, now=0.0)
    world.transfer(a, b)
    world.put(b, "x", 2)
    written: Any = b.get("m")
    assert written.entry("x").stamp > stamp


def test_a_state_from_the_future_waits(world: World) -> None:
    """Vector and content are joined once they are plausible."""
    a, b = world.replica("a"), world.replica("b")
    world.offsets["a"] = 100.0
    world.put(a, "x", 1)
    world.transfer(a, b)
    assert {} == world.live(b)
    assert {} == dict(b.version_vector)
    world.wall_s += 45.0
    b.release()
    assert {"x": 1} == world.live(b)
    assert not any(isinstance(event, EntriesHeld) for event in b.events())


def test_a_document_of_another_type_does_not_block_for_ever(world: World) -> None:
    """After three transfers it is passed over, loudly, and the rest arrives."""
    a, b = world.replica("a"), world.replica("b")
    world.put(a, "x", 1)
    world.put(a, "y", 2, document="d")
    world.increment(b, document="d")
    for _ in range(2):
        with pytest.raises(DecodeError) as caught:
            world.transfer(a, b)
        assert RejectReason.TYPE is caught.value.reason
    world.transfer(a, b)
    assert {"x": 1} == world.live(b)
    (event,) = b.events()
    assert isinstance(event, PageSkipped)
    assert ("d", RejectReason.TYPE) == (event.document, event.reason)


def test_a_document_opened_as_another_type_meanwhile_is_passed_over(world: World) -> None:
    """The rest of the state arrives, and the clash is told."""
    a, b = world.replica("a"), world.replica("b")
    world.put(a, "x", 1)
    world.put(a, "y", 2, document="d")
    pages = a.transfer_pages({})
    for page in pages:
        b.absorb_page(page)
    b.open("d", type_tag="g_counter")
    b.complete_transfer(pages.vector)
    assert {"x": 1} == world.live(b)
    (event,) = b.events()
    assert isinstance(event, PageSkipped)
    assert ("d", RejectReason.TYPE) == (event.document, event.reason)


def test_what_lacks_a_skipped_entry_claims_nothing(world: World) -> None:
    """Its absence here is no removal: the peer keeps what it has."""
    config = ReplicationConfig(rejections_max=1)
    a, b = world.replica("a"), world.replica("b", config=config)
    good = world.put(a, "x", 1)
    bad = type(good)(good.actor, good.first, good.last, good.document, b"\xc1")
    b.receive([bad])
    world.put(b, "y", 2)
    world.transfer(b, a)
    assert {"x": 1, "y": 2} == world.live(a)


def test_a_state_heals_what_was_skipped(world: World) -> None:
    """A whole state that covers the entry brings what it would have, and claims count again."""
    config = ReplicationConfig(rejections_max=1)
    a, b = world.replica("a"), world.replica("b", config=config)
    good = world.put(a, "x", 1)
    b.receive([type(good)(good.actor, good.first, good.last, good.document, b"\xc1")])
    world.put(a, "y", 2)
    world.transfer(a, b)
    assert {"x": 1, "y": 2} == world.live(b)
    assert {} == b._parts.documents.get("m").skipped


def test_a_document_that_only_differs_in_tombstones_is_sent(world: World) -> None:
    """Else a removal would not arrive."""
    a, b = world.replica("a"), world.replica("b")
    entry = world.put(a, "x", 1)
    b.receive([entry])
    world.remove(a, "x")
    world.transfer(a, b)
    assert {} == world.live(b)


def test_a_page_of_a_later_version_is_told_apart(world: World) -> None:
    """A rolling upgrade is no corruption."""
    a = world.replica("a")
    world.put(a, "x", 1)
    (page,) = a.transfer_pages({})
    tree = unpack(page.state)
    with pytest.raises(VersionMismatch):
        world.replica("b").absorb_page(TransferPage("m", pack((2, *tree[1:]))))


@given(st.data())
def test_no_page_raises_but_as_a_peers_fault(data: Any) -> None:
    """Whatever bytes come, they are read or refused."""
    content = PageContent(transfer=1, index=0, vector_hash=2, time=(3, 4), begun=(5,), part=b"p")
    encoded = bytearray(content.encode())
    for _ in range(data.draw(st.integers(0, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteError):
        PageContent.decode(bytes(encoded))


@given(st.integers(0, 1 << 60), st.lists(st.booleans(), min_size=3, max_size=3))
def test_a_page_reads_as_it_was_written(number: int, flags: list[bool]) -> None:
    """Every field and flag."""
    is_last, is_repair, is_whole = flags
    content = PageContent(
        transfer=number,
        index=7,
        vector_hash=number + 1,
        time=(1_000, 2),
        begun=(0, 255),
        part=b"part",
        is_last=is_last,
        is_repair=is_repair,
        is_whole=is_whole,
    )
    assert content == PageContent.decode(content.encode())


def test_transfers_that_broke_off_are_not_kept(world: World) -> None:
    """The oldest makes way, and a late end of it joins nothing."""
    a, b = world.replica("a"), world.replica("b")
    fill(world, a, 60)
    ends = []
    for number in range(3):
        world.put(a, "n", number)
        pages = a.transfer_pages({}, page_bytes_max=2048)
        ends.append((pages, list(pages)))
    for _, made in ends:
        for page in made:
            b.absorb_page(page)
    b.complete_transfer(ends[0][0].vector)
    assert {} == b.version_vector
    b.complete_transfer(ends[2][0].vector)
    assert a.vector_hash() == b.vector_hash()


def test_a_vector_over_the_limit_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer cannot make this node's vector grow without end."""
    monkeypatch.setattr("meshlib.replication.transfers.arrivals.ACTORS_MAX", 1)
    a, b = world.replica("a"), world.replica("b")
    a.receive([world.put(world.replica("c"), "x", 1)])
    world.put(a, "y", 1)
    with pytest.raises(LimitExceeded):
        world.transfer(a, b)
    assert ([], {}) == (b.documents(), dict(b.version_vector))


def test_numbers_forgotten_in_different_places_are_joined(world: World) -> None:
    """Two nodes forgot a writer, one having had more of it: its state brings the rest."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    first, second = world.put(c, "x", 1), world.put(c, "y", 2)
    a.receive([first, second])
    b.receive([first])
    a.forget(c.actor)
    b.forget(c.actor)
    assert a.lacking(b.advertised_vector(), bytes_max=1000).needs_transfer
    world.transfer(a, b)
    assert {"x": 1, "y": 2} == world.live(b)
    assert not a.lacking(b.advertised_vector(), bytes_max=1000).needs_transfer


def test_an_entry_that_comes_during_a_transfer_does_not_outlive_its_removal(world: World) -> None:
    """A newcomer hears of a removed key from a second peer's log, after its offer to the first.

    The first has collected the removal, so that nothing in what differs from the offer speaks of
    the key: nothing is joined, and the next offer, which names the key, brings its removal.
    """
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    written = world.put(c, "gone", 1)
    removed = world.remove(c, "gone")
    kept = world.put(a, "kept", 2)
    a.receive([written, removed])
    a.collect_tombstones(a.version_vector, now=0.0)
    b.open("m", type_tag="lww_map")
    b.begin_transfer()
    pages = a.transfer_pages(b.transfer_offer())
    b.receive([written])
    for page in pages:
        b.absorb_page(page)
    b.complete_transfer(pages.vector)
    between = dict(b.version_vector)
    b.begin_transfer()
    world.transfer(a, b)

    assert between == {c.actor: 1}
    assert kept.actor in b.version_vector
    assert world.live(b) == world.live(a) == {"kept": 2}
    assert (b.vector_hash(), b.content_digest()) == (a.vector_hash(), a.content_digest())


def test_a_transfer_that_waits_keeps_the_offer_that_it_answers(world: World) -> None:
    """A second one meanwhile does not let it be joined over what came since its own offer."""
    a, b, c, d = (world.replica(name) for name in "abcd")
    world.offsets["a"] = 100.0
    written = world.put(c, "gone", 1)
    a.receive([written, world.remove(c, "gone")])
    a.collect_tombstones(a.version_vector, now=0.0)
    world.put(a, "kept", 2)
    world.put(d, "more", 3)
    b.open("m", type_tag="lww_map")
    b.begin_transfer()
    pages = a.transfer_pages(b.transfer_offer())
    b.receive([written])
    for page in pages:
        b.absorb_page(page)
    b.complete_transfer(pages.vector)
    b.begin_transfer()
    world.transfer(d, b)
    world.wall_s += 60.0
    b.release()
    between = dict(b.version_vector)
    world.offsets["a"] = 0.0
    b.begin_transfer()
    world.transfer(a, b)

    assert between == {c.actor: 1, d.actor: 1}
    assert world.live(b) == {"kept": 2, "more": 3}


def test_entries_that_come_during_a_transfer_do_not_hinder_it(world: World) -> None:
    """What the sender has too, and what it has not seen yet, is joined with the pages."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    both, alone = world.put(c, "both", 1), world.put(c, "alone", 2)
    a.receive([both])
    b.begin_transfer()
    pages = a.transfer_pages(b.transfer_offer())
    b.receive([both, alone])
    for page in pages:
        b.absorb_page(page)
    b.complete_transfer(pages.vector)

    assert world.live(b) == {"both": 1, "alone": 2}


def test_a_prefix_tree_travels_in_pages(world: World) -> None:
    """Its buckets are parts of it like those of a map."""
    a, b = world.replica("a"), world.replica("b")
    a.open("tree:x", type_tag="prefix_cache")
    for number in range(200):
        text = f"{number:03} some prompt that is long enough to need several pages"
        a.write("tree:x", partial(lambda t, s, _: s.insert(t, tenant="worker", access=7), text))
    a.flush()
    pages = list(a.transfer_pages({}, page_bytes_max=4096))
    assert max(len(page.state) for page in pages) <= 4096
    world.transfer(a, b, page_bytes_max=4096)
    assert a.content_digest() == b.content_digest()


@pytest.mark.parametrize(
    "tree",
    [
        7,
        (),
        (1,),
        (1, (), (), b""),
        (1, (1, 2, 3, 4, 5, 6), (), "text"),
        (1, (1, 2, 3, -4, 5, 6), (), b""),
        (1, (1, 2, 3, 1 << 60, 5, 6), (), b""),
        (1, (1, 2, 3, 4, 1 << 20, 6), (), b""),
        (1, (1, 2, 3, 4, 5, 6), (1 << 20,), b""),
        (1, (1, 2, 3, 4, 5, 6), (True,), b""),
    ],
)
def test_a_malformed_page_is_refused(world: World, tree: Any) -> None:
    """Each field has its type and range."""
    with pytest.raises(DecodeError):
        world.replica("a").absorb_page(TransferPage("m", pack(tree)))


def test_a_writer_forgotten_during_a_transfer_is_looked_at_all_the_same(world: World) -> None:
    """Its entry came after the offer, and the peer that dropped what it set told to forget it."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    written = world.put(c, "gone", 1)
    a.receive([written])
    world.remove(a, "gone")
    world.put(a, "kept", 2)
    a.collect_tombstones(a.version_vector, now=0.0)
    a.forget(c.actor)
    b.open("m", type_tag="lww_map")
    b.begin_transfer()
    pages = a.transfer_pages(b.transfer_offer())
    b.receive([written])
    assert b.learn_forgotten(a.advertised_vector(), keep=[]) == [c.actor]
    for page in pages:
        b.absorb_page(page)
    b.complete_transfer(pages.vector)
    were_equal = a.vector_hash() == b.vector_hash()
    b.begin_transfer()
    world.transfer(a, b)

    assert not were_equal
    assert world.live(a) == world.live(b) == {"kept": 2}


def test_a_mark_makes_a_document_whole_only_up_to_its_number(world: World) -> None:
    """Who could not read an entry lacks it, also after the state of one that forgot its writer.

    What it does not have is no proof of a removal.
    """
    writer, island, blind, sound = (world.replica(name) for name in "abcd")
    first = world.put(writer, "x", 1)
    for replica in (island, blind, sound):
        replica.receive([first])
    island.forget(writer.actor)
    entry = world.put(writer, "precious", 2)
    sound.receive([entry])
    garbled = LogEntry(entry.actor, entry.first, entry.last, entry.document, b"\xc1")
    while blind.version_vector[writer.actor] < 2:
        blind.receive([garbled])
    world.put(island, "own", 3)
    world.transfer(island, blind)
    world.transfer(blind, sound)

    assert world.live(sound)["precious"] == 2
