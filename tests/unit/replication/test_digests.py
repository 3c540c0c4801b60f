"""Digests tell whether two nodes have the same, and where they differ."""

from __future__ import annotations

from typing import Any

from support.world import World

from meshlib.replication.transfers.digests import differing_buckets
from meshlib.routing import TreeInsert
from meshlib.sync import MeshSyncManager


def test_equal_content_has_equal_digests(world: World) -> None:
    """Whatever the order in which documents came."""
    a, b = world.replica("a"), world.replica("b")
    entries = [world.put(a, "x", 1, document=name) for name in ("one", "two")]
    b.open("two", type_tag="lww_map")
    b.receive(entries)
    assert a.content_digest() == b.content_digest() != world.replica("c").content_digest()


def test_tombstones_are_no_content(world: World) -> None:
    """One node may have collected what another still keeps."""
    a, b = world.replica("a"), world.replica("b")
    entries = [world.put(a, "x", 1), world.remove(a, "x")]
    b.receive(entries)
    a.collect_tombstones(a.version_vector, now=0.0)
    assert a.content_digest() == b.content_digest() == world.replica("c").content_digest()


def test_the_name_of_a_document_counts(world: World) -> None:
    """The same state under another name is other content."""
    a, b = world.replica("a"), world.replica("b")
    world.increment(a, document="one")
    world.increment(b, document="two")
    assert a.content_digest() != b.content_digest()


def test_an_offer_names_documents_and_digests(world: World) -> None:
    """One digest for each bucket, or one of the whole."""
    a = world.replica("a")
    world.put(a, "x", 1)
    world.increment(a)
    offer = a.transfer_offer()
    assert {"m": ("lww_map", 256), "n": ("g_counter", 1)} == {
        name: (tag, len(digests)) for name, (tag, digests) in offer.items()
    }


def test_differing_buckets_are_named() -> None:
    """All of them when the counts differ: the peer's type has other buckets."""
    assert [1] == differing_buckets((1, 2, 3), (1, 9, 3))
    assert [0, 1, 2] == differing_buckets((1, 2, 3), ())
    assert [] == differing_buckets((1, 2), (1, 2))


def fresh_digest(cache: Any) -> int:
    """Return the digest of a cache made anew of its parts."""
    made = type(cache)()
    for part in cache.decompose():
        made.absorb(part)
    digest: int = made.digest()
    return digest


def test_digests_are_kept_up_from_the_first_write(world: World) -> None:
    """Of what is written and of what comes: nothing is left for the moment they are asked for."""
    a, b = world.replica("a"), world.replica("b")
    sync = MeshSyncManager(a)
    for number in range(100):
        sync.sync_tree_operation("m", TreeInsert(f"{number} of a hundred", "w"))
    b.receive(a.flush())
    for replica in (a, b):
        document: Any = replica.get("tree:m")
        cache = document.cache
        assert len(cache) == 100
        assert cache._digests is not None
        assert cache._digests.total() == fresh_digest(cache)
    assert a.content_digest() == b.content_digest()
