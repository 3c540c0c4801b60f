"""Entries without what their readers have: made short, made whole, and never another entry."""

from __future__ import annotations

import random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from support.world import World

from meshlib.crdt import KnownText
from meshlib.hashing import hash64
from meshlib.identity import actor_id
from meshlib.replication import LogEntry, Replica, ReplicationConfig, ShortEntry
from meshlib.replication.entries.shortening import SHORT_BYTES_MAX, ShortEntries, shortened, whole
from meshlib.routing import TreeInsert, TreeRemove
from meshlib.sync import MeshSyncManager

ACTOR = actor_id("a", 1)
CONFIG = ReplicationConfig(tombstone_grace_s=0.0, known_bytes_min=4)
DOCUMENT = "tree:m"
SHARED = "You are a helpful assistant. "


def known(text: bytes, other: bytes, size: int, *, group: str = "w", own: int = 0) -> KnownText:
    return KnownText(group, text, own, hash64(other), size)


def entry(data: bytes) -> LogEntry:
    return LogEntry(ACTOR, 1, 1, DOCUMENT, data)


# One entry


@given(st.binary(min_size=8, max_size=200), st.binary(max_size=50), st.binary(max_size=50))
def test_a_short_entry_becomes_the_one_it_was(text: bytes, before: bytes, after: bytes) -> None:
    """With the same bytes, whatever stands around the text."""
    other = text[: len(text) // 2 + 4] + b"something else"
    made = entry(before + text + after)
    size = len(text) // 2 + 4
    short = shortened(made, [known(text, other, size)], bytes_min=4)
    assert short is not None
    assert len(short.rest) == len(made.delta) - size
    assert made == whole(short, {hash64(other): other}.get)


def test_an_unknown_name_makes_no_entry() -> None:
    """It is asked for instead."""
    short = shortened(entry(b"0123456789"), [known(b"0123456789", b"01234567", 8)], bytes_min=4)
    assert short is not None
    assert whole(short, lambda _: None) is None


def test_another_text_under_that_name_makes_no_entry() -> None:
    """The hash is of all that the entry was."""
    short = shortened(entry(b"0123456789"), [known(b"0123456789", b"01234567", 8)], bytes_min=4)
    assert short is not None
    assert whole(short, lambda _: b"abcdefgh") is None
    assert whole(short, lambda _: b"0123") is None
    assert whole(evolve(short, digest=1), lambda _: b"01234567") is None


def test_what_would_be_too_large_is_not_made() -> None:
    """A small frame does not make its reader build a large entry."""
    short = shortened(entry(b"0123456789"), [known(b"0123456789", b"01234567", 8)], bytes_min=4)
    assert short is not None
    huge = evolve(short, holes=tuple(hole._replace(end=400_000) for hole in short.holes) * 2)
    assert whole(huge, lambda _: b"x" * 400_000) is None


def test_a_short_beginning_is_not_named() -> None:
    """A name costs as much."""
    text = b"0123456789"
    assert shortened(entry(text), [known(text, b"0123", 4)], bytes_min=5) is None


def test_a_text_of_the_same_entry_is_not_named() -> None:
    """Whoever reads the entry does not have it yet."""
    first, second = b"0123456789", b"0123456789 and more"
    texts = [
        known(first, b"", 0, own=hash64(first)),
        known(second, first, 10, group="x", own=hash64(second)),
    ]
    assert shortened(entry(first + second), texts, bytes_min=4) is None


def test_few_short_entries_are_kept() -> None:
    """They are for those that are still to be told."""
    kept = ShortEntries()
    for number in range(1, 200):
        kept.put(ShortEntry(ACTOR, number, number, DOCUMENT, b"x" * 20_000, 1, ()))
        kept._check()
    assert kept.diagnostics()["bytes"] <= SHORT_BYTES_MAX
    old, new = LogEntry(ACTOR, 1, 1, DOCUMENT, b""), LogEntry(ACTOR, 199, 199, DOCUMENT, b"")
    assert kept.get(old) is old
    assert isinstance(kept.get(new), ShortEntry)


# Replicas


class Routers:
    """Replicas with trees that push to each other; what is not known is sent whole."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.replicas = [world.replica(f"n{number}", config=CONFIG) for number in range(count)]
        self.syncs = [MeshSyncManager(replica) for replica in self.replicas]
        self.short = self.unknown = 0

    def push(self, source: int) -> None:
        """Flush, and bring the entries to the others."""
        self.world.wall_s += 0.01
        for made in self.replicas[source].flush():
            pushed = self.replicas[source].shortest(made)
            for replica in self.replicas:
                if replica is not self.replicas[source]:
                    assert not replica.receive([self._read(replica, pushed, made)]).rejected

    def _read(self, replica: Replica, pushed: Any, made: LogEntry) -> LogEntry:
        if isinstance(pushed, LogEntry):
            return pushed
        read = replica.whole(pushed)
        self.short += read is not None
        self.unknown += read is None
        assert read in (made, None)
        return made if read is None else read

    def are_equal(self) -> bool:
        first, *others = [replica.get(DOCUMENT) for replica in self.replicas]
        return all(first == other and first.digest() == other.digest() for other in others)


WORDS = (SHARED, "Über ", "\U0001f600 ", "Translate this. ", "the quick brown fox ", "a ")
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
        st.sampled_from(["w1", "w2"]),
        st.sampled_from(["insert", "insert", "insert", "remove", "evict", "push"]),
    ),
    max_size=40,
)


@given(STEPS)
def test_replicas_agree_also_where_a_named_text_was_evicted(steps: list[Any]) -> None:
    """Whoever does not know a name any more gets the whole, and all are equal in the end."""
    routers = Routers(World(), 3)
    for where, words, tenant, what in steps:
        sync = routers.syncs[where]
        if what == "insert":
            sync.sync_tree_operation("m", TreeInsert("".join(words), tenant))
        elif what == "remove":
            sync.sync_tree_operation("m", TreeRemove(tenant))
        elif what == "evict" and sync.trees.has("m"):
            routers.replicas[where].write(
                DOCUMENT, lambda state, _: type(state)(cache=state.cache.evict_to(20))
            )
        elif what == "push":
            routers.push(where)
    for where in range(3):
        routers.syncs[where].sync_tree_operation("m", TreeInsert("a", "w1"))
        routers.push(where)
    assert routers.are_equal()
    for replica in routers.replicas:
        replica._check()


def test_a_text_that_is_mostly_known_travels_as_its_end(world: World) -> None:
    """Below 0.4 of its bytes, and so does one that is used again."""
    routers = Routers(world, 2)
    sync, replica = routers.syncs[0], routers.replicas[0]
    rng = random.Random(1)
    beginning = "".join(rng.choices("abcdefgh ", k=5600))
    for number in range(5):
        end = "".join(rng.choices("abcdefgh ", k=2400))
        sync.sync_tree_operation("m", TreeInsert(beginning + end, f"w{number}"))
        [made] = replica.flush()
        short = replica.shortest(made)
        if number:
            assert isinstance(short, ShortEntry)
            assert len(short.rest) < 0.31 * 8000
        assert not routers.replicas[1].receive([made]).rejected


def test_a_group_of_texts_is_shortened_text_by_text(world: World) -> None:
    """Each of them names what was known before the group began."""
    routers = Routers(world, 2)
    sync = routers.syncs[0]
    for word in ("one", "two"):
        sync.sync_tree_operation("m", TreeInsert(word * 50 + SHARED, "w1"))
    routers.push(0)
    for number in range(4):
        for word in ("one", "two"):
            text = word * 50 + SHARED + f"{number}" * 40
            sync.sync_tree_operation("m", TreeInsert(text, f"w{number % 2}"))
    routers.push(0)
    assert (routers.short, routers.unknown) == (1, 0)
    assert routers.are_equal()


@pytest.mark.parametrize("has_evicted", [False, True])
def test_a_reader_that_has_evicted_the_beginning_is_told_of_it(
    world: World, *, has_evicted: bool
) -> None:
    """It says that it does not know the name, and changes nothing."""
    routers = Routers(world, 2)
    sync, other = routers.syncs[0], routers.replicas[1]
    sync.sync_tree_operation("m", TreeInsert(SHARED * 10, "w1"))
    routers.push(0)
    if has_evicted:
        routers.syncs[1].sync_tree_operation("m", TreeRemove("w1"))
    sync.sync_tree_operation("m", TreeInsert(SHARED * 10 + "more", "w2"))
    [made] = routers.replicas[0].flush()
    short = routers.replicas[0].shortest(made)
    assert isinstance(short, ShortEntry)
    assert (None if has_evicted else made) == other.whole(short)


def test_no_document_knows_no_names(world: World) -> None:
    """A newcomer is sent the whole."""
    routers = Routers(world, 1)
    newcomer = world.replica("new")
    for text in (SHARED, SHARED + "x"):
        routers.syncs[0].sync_tree_operation("m", TreeInsert(text, "w1"))
        [made] = routers.replicas[0].flush()
    short = routers.replicas[0].shortest(made)
    assert isinstance(short, ShortEntry)
    assert newcomer.whole(short) is None
