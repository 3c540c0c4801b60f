"""The replica's upkeep: documents, forgetting, collecting, trimming, keeping on disk."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from support.world import World

from meshlib.errors import (
    BrokenInvariant,
    DecodeError,
    DocumentTypeError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    RejectReason,
    StateError,
    UnknownKeyError,
)
from meshlib.identity import actor_id
from meshlib.limits import DOCUMENT_NAME_BYTES_MAX
from meshlib.replication import ChangesDropped, IdentityStolen, ReplicationConfig, document, vector
from meshlib.replication.vector import BASE, is_mark


def test_a_document_is_made_when_it_is_opened(world: World) -> None:
    """And is the same one afterwards."""
    a = world.replica("a")
    assert a.open("m", type_tag="lww_map") is a.get("m")
    assert ["m"] == a.documents()


def test_an_empty_document_is_no_content(world: World) -> None:
    """Who has opened it and who has not are equal."""
    a, b = world.replica("a"), world.replica("b")
    a.open("m", type_tag="lww_map")
    assert a.content_digest() == b.content_digest()


def test_a_document_keeps_its_type(world: World) -> None:
    """Opening it as another is the caller's mistake."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    with pytest.raises(DocumentTypeError):
        a.open("m", type_tag="g_counter")


def test_an_unknown_type_is_refused(world: World) -> None:
    """Nothing is made."""
    a = world.replica("a")
    with pytest.raises(InvalidTypeError):
        a.open("m", type_tag="no such type")
    assert [] == a.documents()


def test_a_malformed_name_is_refused(world: World) -> None:
    """A name travels and is a label."""
    a = world.replica("a")
    with pytest.raises(InvalidValueError):
        a.open("a\nb", type_tag="lww_map")
    with pytest.raises(LimitError):
        a.open("x" * (DOCUMENT_NAME_BYTES_MAX + 1), type_tag="lww_map")


def test_documents_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the caller as for peers."""
    monkeypatch.setattr(document, "DOCUMENTS_MAX", 1)
    a, b = world.replica("a"), world.replica("b")
    entry = world.put(b, "x", 1, document="other")
    a.open("m", type_tag="lww_map")
    with pytest.raises(LimitError):
        a.open("n", type_tag="lww_map")
    assert [RejectReason.LIMIT] == [one.reason for one in a.receive([entry]).rejected]


def test_an_unknown_document_cannot_be_read(world: World) -> None:
    """It is told apart from an empty one."""
    with pytest.raises(UnknownKeyError):
        world.replica("a").get("m")


def test_equal_vectors_mean_equal_content(world: World) -> None:
    """R1, for nodes that got there in different ways."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entries = [world.put(a, "x", 1), world.put(a, "y", 2), world.remove(a, "x")]
    b.receive(entries)
    world.transfer(a, c)
    assert a.vector_hash() == b.vector_hash() == c.vector_hash()
    assert a.content_digest() == b.content_digest() == c.content_digest()


def test_a_tombstone_goes_when_settled_and_past_its_grace(world: World) -> None:
    """Neither alone is enough."""
    a = world.replica("a", config=ReplicationConfig(tombstone_grace_s=80.0))
    world.put(a, "x", 1)
    world.remove(a, "x")
    settled = dict(a.version_vector)
    assert 0 == a.collect_tombstones(settled, now=0.0)
    assert 0 == a.collect_tombstones({}, now=100.0)
    assert 1 == a.collect_tombstones(settled, now=100.0)


def test_an_unsettled_tombstone_stays(world: World) -> None:
    """Somebody may still hold an older write."""
    a = world.replica("a")
    world.put(a, "x", 1)
    world.remove(a, "x")
    assert 0 == a.collect_tombstones({a.actor: 1}, now=0.0)
    assert 1 == a.collect_tombstones({a.actor: 2}, now=0.0)


def test_a_tombstone_without_a_number_is_never_collected(world: World) -> None:
    """Nothing tells when it is settled."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    a.write("m", lambda s, c: s.set("x", 1, stamp=c.stamp()))
    a.write("m", lambda s, c: s.remove("x", stamp=c.stamp()))
    a.flush()
    assert 0 == a.collect_tombstones({a.actor: 9}, now=0.0)


def test_a_forgotten_writers_tombstones_are_collected(world: World) -> None:
    """All had them before it was forgotten."""
    a, b = world.replica("a"), world.replica("b")
    a.receive([world.put(b, "x", 1), world.remove(b, "x")])
    a.forget(b.actor)
    assert 1 == a.collect_tombstones({}, now=0.0)


def test_a_forgotten_writer_is_refused(world: World) -> None:
    """Its content stays, its old entries are dropped, its later ones refused."""
    a, b = world.replica("a"), world.replica("b")
    first, second = world.put(b, "x", 1), world.put(b, "y", 2)
    a.receive([first])
    a.forget(b.actor)
    assert [] == a.receive([first]).rejected
    received = a.receive([second])
    assert [RejectReason.IDENTITY] == [one.reason for one in received.rejected]
    assert ([], {"x": 1}) == (received.gaps, world.live(a))
    a._check()


def test_forgetting_drops_what_waits(world: World) -> None:
    """An entry behind a gap that will never be filled is not kept."""
    a, b = world.replica("a"), world.replica("b")
    entries = [world.put(b, key, 1) for key in "xyz"]
    a.receive([entries[0], entries[2]])
    a.forget(b.actor)
    assert (0, 0) == (len(a._parts.gaps), len(a._parts.log))


def test_a_node_does_not_forget_itself(world: World) -> None:
    """It would refuse its own writes."""
    a = world.replica("a")
    with pytest.raises(StateError):
        a.forget(a.actor)


def test_forgetting_the_unknown_changes_nothing(world: World) -> None:
    """Nor is it an error: members come and go without writing."""
    a = world.replica("a")
    a.forget(actor_id("z", 1))
    assert ({}, {}) == (dict(a.version_vector), dict(a.advertised_vector()))


def test_a_new_node_gets_what_forgotten_writers_wrote(world: World) -> None:
    """No log has it and no vector names them, so it is sent as a state."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    a.receive([world.put(b, "x", 1)])
    a.forget(b.actor)
    assert a.lacking(c.advertised_vector(), bytes_max=1000).needs_transfer
    world.transfer(a, c)
    assert {"x": 1} == world.live(c)
    assert (a.vector_hash(), 1) == (c.vector_hash(), c.version_vector[BASE])
    assert not a.lacking(c.advertised_vector(), bytes_max=1000).needs_transfer


def test_peers_forget_what_a_vector_marks(world: World) -> None:
    """Then their hashes are equal again."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entry = world.put(c, "x", 1)
    a.receive([entry])
    b.receive([entry])
    a.forget(c.actor)
    assert [c.actor] == b.learn_forgotten(a.advertised_vector(), keep=[a.actor, b.actor])
    assert a.vector_hash() == b.vector_hash()


def test_a_writer_is_not_forgotten_before_all_of_it_is_here(world: World) -> None:
    """The peer's state brings the rest first, a removal that the peer has dropped among it."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entries = [world.put(c, "x", 1), world.put(c, "y", 2), world.remove(c, "x")]
    a.receive(entries)
    b.receive(entries[:1])
    a.forget(c.actor)
    assert 1 == a.collect_tombstones({}, now=0.0)
    assert [] == b.learn_forgotten(a.advertised_vector(), keep=[])
    assert 1 == b.version_vector[c.actor]
    assert not b.reaches(a.advertised_vector())
    world.transfer(a, b)
    assert {"y": 2} == world.live(a) == world.live(b)
    assert b.reaches(a.advertised_vector())
    assert [c.actor] == b.learn_forgotten(a.advertised_vector(), keep=[])
    assert a.vector_hash() == b.vector_hash()


def test_who_has_more_of_a_writer_than_one_that_forgot_it_sends_its_state(world: World) -> None:
    """Entries would be refused there; and the writer is counted again, so that others see it."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entries = [world.put(c, "x", 1), world.remove(c, "x"), world.put(c, "y", 2)]
    a.receive(entries[:1])
    a.forget(c.actor)
    b.receive(entries)
    assert b.lacking(a.advertised_vector(), bytes_max=1000).needs_transfer
    assert not a.reaches(b.advertised_vector())
    world.transfer(b, a)
    assert {"y": 2} == world.live(a)
    assert 3 == a.version_vector[c.actor]
    assert not b.lacking(a.advertised_vector(), bytes_max=1000).needs_transfer


def test_two_that_forgot_a_writer_with_other_numbers_have_other_vectors_after(world: World) -> None:
    """Equal hashes would say that a third, which forgot it as one of them did, has it all."""
    a, b, c, d = (world.replica(name) for name in "abcd")
    entries = [world.put(c, "x", 1), world.put(c, "y", 2)]
    for replica in (a, d):
        replica.receive(entries[:1])
        replica.forget(c.actor)
    b.receive(entries)
    b.forget(c.actor)
    assert b.lacking(a.advertised_vector(), bytes_max=1000).needs_transfer
    world.transfer(b, a)
    assert {"x": 1, "y": 2} == world.live(a)
    assert a.vector_hash() != d.vector_hash()
    assert a.lacking(d.advertised_vector(), bytes_max=1000).needs_transfer
    world.transfer(a, d)
    assert {"x": 1, "y": 2} == world.live(d)
    for replica in (a, d):
        assert [c.actor] == replica.learn_forgotten(b.advertised_vector(), keep=[])
    assert a.vector_hash() == b.vector_hash() == d.vector_hash()


def test_a_writer_of_which_somebody_has_less_is_not_forgotten_on_a_peers_word(world: World) -> None:
    """It would be in no vector any more that this somebody lacks something."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entry = world.put(c, "x", 1)
    a.receive([entry])
    b.receive([entry])
    a.forget(c.actor)
    asked: list[tuple[Any, int]] = []

    def is_lacking(actor: Any, sequence: int) -> bool:
        asked.append((actor, sequence))
        return True

    assert [] == b.learn_forgotten(a.advertised_vector(), keep=[], is_lacking=is_lacking)
    assert [(c.actor, 1)] == asked
    assert c.actor in b.version_vector


def test_marks_are_not_all_that_a_peer_needs_that_lacks_entries(world: World) -> None:
    """One that counts a writer forgotten here, and has less of it, needs the state."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entries = [world.put(c, "x", 1), world.put(c, "y", 2)]
    a.receive(entries)
    a.forget(c.actor)
    b.receive(entries[:1])
    assert not a.names_forgotten(b.advertised_vector())
    b.receive(entries[1:])
    assert a.names_forgotten(b.advertised_vector())


def test_members_are_not_forgotten_on_a_peers_word(world: World) -> None:
    """Who is a member here writes on."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entry = world.put(c, "x", 1)
    a.receive([entry])
    b.receive([entry])
    a.forget(c.actor)
    assert [] == b.learn_forgotten(a.advertised_vector(), keep=[c.actor])
    assert c.actor in b.version_vector


def test_a_mark_needs_no_entries(world: World) -> None:
    """A peer that has forgotten a writer is sent nothing of it."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entry = world.put(c, "x", 1)
    a.receive([entry])
    b.receive([entry])
    a.forget(c.actor)
    assert any(is_mark(number) for number in a.advertised_vector().values())
    found = b.lacking(a.advertised_vector(), bytes_max=1000)
    assert ([], False) == (found.entries, found.needs_transfer)


def test_a_vector_with_this_nodes_own_actor_ahead_is_theft(world: World) -> None:
    """A state may tell what entries did not."""
    a, thief, b = world.replica("a"), world.replica("a"), world.replica("b")
    b.receive([world.put(thief, "x", 1)])
    world.transfer(b, a)
    assert [IdentityStolen(actor=a.actor, sequence=1)] == a.events()
    assert a.actor not in a.version_vector


def test_trimming_joins_what_stays(world: World) -> None:
    """The log shrinks without losing anything."""
    a, b = world.replica("a"), world.replica("b")
    for number in range(20):
        world.put(a, "x", number)
    assert 2 == a.trim({a.actor: 2})
    entries = a.lacking({a.actor: 2}, bytes_max=100_000).entries
    assert len(entries) < 18
    b.receive([evolve(entries[0], first=1), *entries[1:]])
    assert {"x": 19} == world.live(b)
    a._check()


def test_a_state_kept_on_disk_comes_back(world: World) -> None:
    """Under a new actor, with content, vector and what was forgotten."""
    a, b = world.replica("a"), world.replica("b")
    a.receive([world.put(b, "y", 2)])
    a.forget(b.actor)
    world.put(a, "x", 1)
    restored = world.replica("a", incarnation=2)
    restored.import_state(a.export_state(page_bytes_max=1100))
    assert {"x": 1, "y": 2} == world.live(restored)
    assert a.vector_hash() == restored.vector_hash()
    assert a.advertised_vector() == restored.advertised_vector()
    restored._check()


def test_a_state_is_imported_first_or_not_at_all(world: World) -> None:
    """Not over something, and not by the actor that wrote it."""
    a, b = world.replica("a"), world.replica("b")
    world.put(a, "x", 1)
    world.put(b, "y", 2)
    with pytest.raises(StateError):
        b.import_state(a.export_state())
    with pytest.raises(StateError):
        world.replica("a").import_state(a.export_state())


def test_half_a_state_is_refused(world: World) -> None:
    """Nothing of it is taken."""
    a, b = world.replica("a"), world.replica("b")
    for number in range(100):
        world.put(a, f"k{number}", "v" * 100)
    state = a.export_state(page_bytes_max=2048)
    with pytest.raises(DecodeError):
        b.import_state(evolve(state, pages=state.pages[:-1]))
    assert ([], {}) == (b.documents(), dict(b.version_vector))


def test_a_state_from_the_future_is_refused(world: World) -> None:
    """The wall clock went back: told apart, so that the state is kept for later."""
    a, b = world.replica("a"), world.replica("b")
    world.offsets["a"] = 100.0
    world.put(a, "x", 1)
    with pytest.raises(DecodeError) as caught:
        b.import_state(a.export_state())
    assert RejectReason.CLOCK is caught.value.reason


def test_changes_that_nobody_drains_are_bounded(world: World) -> None:
    """Who missed some is told to read again."""
    a = world.replica("a", config=ReplicationConfig(changes_max=3))
    for number in range(5):
        world.put(a, "x", number)
    assert 2 == len(a.changes())
    assert [ChangesDropped(change_count=3)] == a.events()


def test_events_that_nobody_drains_are_bounded(world: World) -> None:
    """The newest stay, the others are counted."""
    a = world.replica("a", config=ReplicationConfig(events_max=2))
    thief = world.replica("a")
    for number in range(4):
        a.receive([world.put(thief, "x", number)])
    assert 2 == len(a.events())
    assert 2 == a._served.journal.events_dropped


def test_actors_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer cannot make the vector grow without end."""
    monkeypatch.setattr("meshlib.replication.intake.ACTORS_MAX", 1)
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    a.receive([world.put(b, "x", 1)])
    entry = world.put(c, "y", 1)
    for _ in range(5):
        assert [RejectReason.LIMIT] == [one.reason for one in a.receive([entry]).rejected]
    assert c.actor not in a.version_vector


def test_the_check_finds_a_wrong_hash(world: World) -> None:
    """The invariants are worth something."""
    a = world.replica("a")
    world.put(a, "x", 1)
    a._parts.vector._sum += 1
    with pytest.raises(BrokenInvariant, match="hash"):
        a._parts.vector._check()


def test_the_check_finds_a_number_that_was_skipped(world: World) -> None:
    """A reserved number is either open or in the vector."""
    a = world.replica("a")
    world.put(a, "x", 1)
    a._writes.reserved += 1
    with pytest.raises(BrokenInvariant, match="reserved"):
        a._check()


def test_marks_are_above_all_numbers() -> None:
    """A mark still fits the signed 64 bits of a vector on the wire."""
    assert 2 * vector.MARK - 1 <= (1 << 63) - 1
