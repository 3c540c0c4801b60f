"""The file that a node's state is kept in, and the node that begins with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from attrs import evolve

from meshlib.aio import MemoryNetwork, MeshRuntime, SnapshotFile
from meshlib.clock import HybridClock
from meshlib.crdt import HashedPrefixCacheState, registry
from meshlib.errors import ConfigError
from meshlib.gossip import GossipConfig
from meshlib.identity import actor_id
from meshlib.membership import MemberRecord
from meshlib.node import MeshConfig
from meshlib.prefix import text_chain
from meshlib.ratelimit.leases.kept.messages import Ceiling
from meshlib.replication import PAGE_VERSION, Replica, ReplicaState
from meshlib.routing import TreeInsert, TreeRemove
from meshlib.routing.prompts.hashed_trees import HashedTreeDocument
from meshlib.sync import MeshSyncManager
from meshlib.testing.world.next_format import NEXT_FORMATS, NEXT_PAGE_VERSION

pytestmark = pytest.mark.anyio


def new_replica(incarnation: int = 1) -> Replica:
    """Return an empty replica of a writer of its own."""
    actor = actor_id("node", incarnation)
    return Replica(actor=actor, clock=HybridClock(actor, wall_clock=time.time))


def get(replica: Replica, key: str) -> object:
    """Read from the document "app"."""
    state: Any = replica.get("app")
    value: object = state.get(key)
    return value


def snapshots_of(runtime: MeshRuntime) -> SnapshotFile:
    """Return the file that a runtime saves to."""
    assert runtime._snapshots is not None
    return runtime._snapshots


def put(replica: Replica, key: str, value: object) -> None:
    """Write to the document "app"."""
    replica.open("app", type_tag="lww_map")
    replica.write(
        "app",
        lambda state, context: state.set(
            key, value, stamp=context.stamp(), sequence=context.sequence
        ),
    )


class NewFile(Protocol):
    """Makes an object for the file of the test, or for another one."""

    def __call__(self, path: Path | None = ..., **settings: float) -> SnapshotFile: ...


@pytest.fixture
async def new_file(tmp_path: Path, anyio_backend: str) -> AsyncIterator[NewFile]:
    """Make objects for one file; all are closed at the end."""
    made: list[SnapshotFile] = []

    def new(path: Path | None = None, **settings: float) -> SnapshotFile:
        made.append(SnapshotFile(path or tmp_path / "state.db", **settings))
        return made[-1]

    yield new
    for file in made:
        file.close()


def member(name: str) -> MemberRecord:
    """Return a member's record."""
    return MemberRecord(name=name, incarnation=7, address=f"{name}:1", actor=actor_id(name, 7))


async def save(file: SnapshotFile, replica: Replica, wall_s: float = 1000.0) -> int:
    """Save a replica as that of a node in a cluster."""
    return await file.save(replica, cluster_name="mesh", node_name="node", wall_s=wall_s)


async def test_what_was_saved_is_what_is_loaded(new_file: NewFile) -> None:
    """Content, clock, and when and whose it was."""
    file, replica = new_file(), new_replica()
    for i in range(500):
        put(replica, f"key-{i}", "x" * 2000)
    await save(file, replica)

    saved = await new_file().load()
    assert saved is not None
    restored = new_replica(2)
    restored.import_state(saved.state)

    assert (1000.0, "mesh", "node") == (saved.saved_at_s, saved.cluster_name, saved.node_name)
    assert replica.content_digest() == restored.content_digest()
    assert dict(replica.version_vector) == dict(restored.version_vector)


async def test_there_is_nothing_before_the_first_save(new_file: NewFile) -> None:
    """A node that was never saved begins empty."""
    assert await new_file().load() is None


async def test_a_save_replaces_the_one_before(new_file: NewFile) -> None:
    """And leaves one file in the folder."""
    file, replica = new_file(), new_replica()
    put(replica, "key", 1)
    await save(file, replica)
    put(replica, "key", 2)
    await save(file, replica, wall_s=2000.0)

    saved = await new_file().load()
    assert saved is not None
    restored = new_replica(2)
    restored.import_state(saved.state)

    assert (2000.0, 2) == (saved.saved_at_s, get(restored, "key"))
    assert [file.path] == list(file.path.parent.iterdir())


async def test_a_save_names_the_clock_it_is_of(new_file: NewFile) -> None:
    """Open writes are in it."""
    file, replica = new_file(), new_replica()
    put(replica, "key", 1)

    vector_hash = await save(file, replica)

    assert vector_hash == replica.vector_hash() != new_replica().vector_hash()


async def test_a_save_is_of_the_state_as_it_was_when_it_began(new_file: NewFile) -> None:
    """What is written and removed while the pages are made is in the next one."""
    file, replica = new_file(), new_replica()
    for i in range(500):
        put(replica, f"key-{i}", "x" * 2000)
    digest = replica.content_digest()
    saving = asyncio.create_task(save(file, replica))
    while not saving.done():
        await asyncio.sleep(0)
        put(replica, "key-1", "later")
        put(replica, "new", "later")

    saved = await new_file().load()
    assert saved is not None
    restored = new_replica(2)
    restored.import_state(saved.state)

    assert digest == restored.content_digest() != replica.content_digest()


async def test_pages_are_made_beside_the_event_loop(
    new_file: NewFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop turns while a large state is encoded."""
    file, replica = new_file(), new_replica()
    put(replica, "key", 1)
    threads: set[int] = set()
    encode = registry.encode

    def noting(state: Any) -> bytes:
        threads.add(threading.get_ident())
        return encode(state)

    monkeypatch.setattr(registry, "encode", noting)
    await save(file, replica)

    assert threads
    assert threading.get_ident() not in threads


async def test_only_the_owner_may_read_the_file(new_file: NewFile) -> None:
    """It may hold prompts."""
    file = new_file()
    await save(file, new_replica())

    assert 0o600 == stat.S_IMODE(file.path.stat().st_mode)


async def test_a_touch_changes_the_moment_and_nothing_else(new_file: NewFile) -> None:
    """An idle node does not write its state again and again."""
    file, replica = new_file(), new_replica()
    put(replica, "key", 1)
    await save(file, replica)

    before = await new_file().load()
    assert before is not None
    await file.touch(2000.0)
    saved = await new_file().load()

    assert evolve(before, saved_at_s=2000.0) == saved


@pytest.mark.parametrize("cut_at", [0, 100, 4096, -4097])
async def test_a_file_that_was_cut_short_is_refused(new_file: NewFile, cut_at: int) -> None:
    """The node does not start on half of a state, and the file is left as it is."""
    file, replica = new_file(), new_replica()
    for i in range(20):
        put(replica, f"key-{i}", "x" * 1000)
    await save(file, replica)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:cut_at])

    with pytest.raises(ConfigError):
        await new_file().load()

    assert whole[:cut_at] == file.path.read_bytes()


async def test_a_changed_bit_anywhere_in_the_content_is_noticed(new_file: NewFile) -> None:
    """What cannot be trusted is not taken for the cluster's state."""
    file, replica = new_file(), new_replica()
    for i in range(20):
        put(replica, f"key-{i}", "value" * 40)
    await save(file, replica)
    whole = file.path.read_bytes()
    places = [place for place in range(len(whole)) if whole[place : place + 5] == b"value"]
    rng = random.Random(5)

    for place in rng.sample(places, 10):
        file.path.write_bytes(whole[:place] + b"V" + whole[place + 1 :])
        with pytest.raises(ConfigError):
            await new_file().load()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("PRAGMA application_id = 7", "no snapshot"),
        ("PRAGMA user_version = 2", "format 2"),
        ("DELETE FROM pages WHERE number = 0", "not what was written"),
        ("DELETE FROM facts WHERE name = 'clock'", "cannot be read"),
        ("UPDATE facts SET value = x'c1' WHERE name = 'clock'", "cannot be read"),
        ("UPDATE facts SET value = 'text' WHERE name = 'clock'", "cannot be read"),
        ("UPDATE facts SET value = 'other' WHERE name = 'cluster'", "not what was written"),
        ("DROP TABLE pages", "cannot be read"),
    ],
)
async def test_a_file_that_was_tampered_with_is_refused(
    new_file: NewFile, statement: str, says: str
) -> None:
    """Each with a line that says why."""
    file, replica = new_file(), new_replica()
    put(replica, "key", 1)
    await save(file, replica)
    with sqlite3.connect(file.path) as database:
        database.execute(statement)
    database.close()

    with pytest.raises(ConfigError, match=says):
        await new_file().load()


async def test_members_that_are_not_those_that_were_written_are_refused(new_file: NewFile) -> None:
    """Their row has a digest of its own; a file of an earlier release has no such row."""
    file, replica = new_file(), new_replica()
    put(replica, "key", 1)
    others = tuple(member(f"n{number}") for number in range(3))
    await file.save(replica, cluster_name="mesh", node_name="node", wall_s=1.0, members=others)
    saved = await new_file().load()
    assert saved is not None
    assert others == saved.members
    with contextlib.closing(sqlite3.connect(file.path, isolation_level=None)) as database:
        (blob,) = database.execute("SELECT value FROM facts WHERE name = 'members'").fetchone()
        for changed in (blob[:-1] + bytes([blob[-1] ^ 1]), b"", blob[:-1], 7):
            database.execute("UPDATE facts SET value = ? WHERE name = 'members'", (changed,))
            with pytest.raises(ConfigError, match="cannot be read"):
                await new_file().load()
        database.execute("DELETE FROM facts WHERE name = 'members'")
    saved = await new_file().load()
    assert saved is not None
    assert () == saved.members


async def test_a_file_that_is_no_database_is_refused_and_kept(
    new_file: NewFile, tmp_path: Path
) -> None:
    """A mistaken path does not cost what is there."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes, " * 100)

    with pytest.raises(ConfigError):
        await new_file(path).load()

    assert path.read_text().startswith("my notes")


async def test_a_folder_that_is_not_there_is_refused_at_once(
    new_file: NewFile, tmp_path: Path
) -> None:
    """A node that could never save does not start as if it could."""
    with pytest.raises(ConfigError):
        await new_file(tmp_path / "nowhere" / "state.db").load()


async def test_a_save_that_fails_leaves_the_file_as_it_was(
    new_file: NewFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the save and not the state of before."""
    file, replica = new_file(), new_replica()
    put(replica, "key", 1)
    await save(file, replica)
    before = file.path.read_bytes()
    put(replica, "key", 2)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        await save(file, replica)
    file.close()
    file._thread.shutdown(wait=True)

    assert before == file.path.read_bytes()
    assert [file.path] == list(file.path.parent.iterdir())
    assert 1 == file.counters.saves_failed


async def test_what_a_killed_save_left_behind_does_not_matter(
    new_file: NewFile, tmp_path: Path
) -> None:
    """The next start and the next save go over it."""
    file, replica = new_file(), new_replica()
    put(replica, "key", 1)
    await save(file, replica)
    (tmp_path / "state.db.new").write_bytes(b"half of a save")

    await save(file, replica)

    assert await new_file().load() is not None
    assert [file.path] == list(file.path.parent.iterdir())


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("nan")])
def test_an_interval_that_is_none_is_refused(tmp_path: Path, interval_s: float) -> None:
    """It must be over 0."""
    with pytest.raises(ConfigError):
        SnapshotFile(tmp_path / "state.db", interval_s=interval_s)


# Nodes


class Keeping:
    """Runtimes that keep their state, by name, on one network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = MemoryNetwork()
        self.made: list[MeshRuntime] = []
        self.wall_ahead_s = 0.0

    def new(
        self, name: str, *seeds: str, file_name: str | None = None, **settings: Any
    ) -> MeshRuntime:
        file = SnapshotFile(self.folder / f"{file_name or name}.db", interval_s=0.02)
        gossip = evolve(GossipConfig.local(), forget_after_s=1000.0)
        config = MeshConfig(name=name, address=f"{name}:1", gossip=gossip)
        runtime = MeshRuntime(
            evolve(config, **settings),
            transport=self.network.transport(f"{name}:1"),
            seeds=[f"{seed}:1" for seed in seeds],
            wall_clock=lambda: time.time() + self.wall_ahead_s,
            snapshots=file,
        )
        self.made.append(runtime)
        return runtime


@pytest.fixture
async def keeping(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Keeping]:
    keeping = Keeping(tmp_path)
    yield keeping
    for runtime in keeping.made:
        await runtime.abort()


async def test_a_node_that_was_stopped_has_its_state_when_it_starts_again(keeping: Keeping) -> None:
    """A stop saves."""
    one = keeping.new("one")
    async with one:
        one.node.sync.app.set("key", b"value")

    async with keeping.new("one") as again:
        assert b"value" == again.node.sync.app.get("key")


async def test_a_node_that_was_cut_off_has_what_was_saved_last(keeping: Keeping) -> None:
    """A save at intervals is enough for a kill."""
    one = keeping.new("one")
    await one.start()
    one.node.sync.app.set("key", b"value")
    file = snapshots_of(one)
    await one.wait_until(lambda: file.counters.saved_bytes > 0, timeout_s=10)
    await one.abort()

    async with keeping.new("one") as again:
        assert b"value" == again.node.sync.app.get("key")


async def test_what_is_kept_of_long_limits_is_there_again(keeping: Keeping) -> None:
    """A stop saves it, and the next start has it before it decides on anything."""
    ceiling = Ceiling("ann", 0, 1 << 40, 7, 0)
    one = keeping.new("one")
    async with one:
        assert one.node.limiter.keeper.keep(ceiling, second=10)

    async with keeping.new("one") as again:
        assert ceiling == again.node.limiter.keeper.get("ann")
        assert "" == "".join(again.health().problems)


async def test_counts_that_cannot_be_read_keep_no_node_from_starting(keeping: Keeping) -> None:
    """It says so in its health until new ones are saved."""
    async with keeping.new("one"):
        pass
    (keeping.folder / "one.db.counts").write_bytes(b"?")

    async with keeping.new("one") as again:
        assert any("counts of limits" in problem for problem in again.health().problems)
        assert again.node.limiter.keeper.keep(Ceiling("ann", 0, 1 << 40, 7, 0), second=10)
        await again.wait_until(
            lambda: not any("counts" in problem for problem in again.health().problems),
            timeout_s=10,
        )


async def test_a_whole_cluster_that_was_cut_off_loses_nothing_that_was_saved(
    keeping: Keeping,
) -> None:
    """Each begins with its own file; together they agree."""
    one, two = keeping.new("one"), keeping.new("two", "one")
    await one.start()
    await two.start()
    await two.wait_ready()
    one.node.sync.app.set("from one", b"1")
    two.node.sync.app.set("from two", b"2")
    await one.wait_until(lambda: len(one.node.sync.app) == 2, timeout_s=10)
    await two.wait_until(lambda: len(two.node.sync.app) == 2, timeout_s=10)
    await one.stop()
    await two.stop()

    again = [keeping.new("one"), keeping.new("two", "one")]
    for runtime in again:
        await runtime.start()
    await again[1].wait_ready()

    for runtime in again:
        assert ["from one", "from two"] == runtime.node.sync.app.keys()
    again[0].node.sync.app.set("after", b"3")
    await again[1].wait_until(lambda: len(again[1].node.sync.app) == 3, timeout_s=10)


async def test_a_node_that_kept_an_old_state_gets_what_was_written_since(keeping: Keeping) -> None:
    """And gives what only it has; what was removed meanwhile stays removed."""
    one, two = keeping.new("one"), keeping.new("two", "one")
    await one.start()
    await two.start()
    await two.wait_ready()
    two.node.sync.app.set("gone", b"x")
    two.node.sync.app.set("kept", b"x")
    await one.wait_until(lambda: len(one.node.sync.app) == 2, timeout_s=10)
    await two.stop()
    one.node.sync.app.delete("gone")
    one.node.sync.app.set("new", b"y")

    two = keeping.new("two", "one")
    await two.start()
    await two.wait_ready()

    assert ["kept", "new"] == two.node.sync.app.keys()


async def test_a_node_that_was_away_for_too_long_comes_back_as_a_new_writer(
    keeping: Keeping,
) -> None:
    """It adopts its peer's state, and writes again what only it has."""
    one = keeping.new("one")
    async with one:
        one.node.sync.app.set("only here", b"x")
    keeping.wall_ahead_s = 600.0  # over half of the time after which it is forgotten
    two = keeping.new("two")
    await two.start()
    two.node.sync.app.set("there", b"y")

    again = keeping.new("one", "two")
    await again.start()
    is_rejoining_at_first = again.node.replica.is_rejoining
    await again.wait_ready()
    await two.wait_until(lambda: len(two.node.sync.app) == 2, timeout_s=10)

    assert is_rejoining_at_first
    assert ["only here", "there"] == again.node.sync.app.keys() == two.node.sync.app.keys()


async def test_a_state_that_is_not_whole_does_not_replace_the_one_that_is(keeping: Keeping) -> None:
    """While a node waits for a peer to adopt from, its file stays."""
    one = keeping.new("one")
    async with one:
        one.node.sync.app.set("only here", b"x")
    before = (keeping.folder / "one.db").read_bytes()
    keeping.wall_ahead_s = 600.0

    async with keeping.new("one", "two") as again:
        assert again.node.replica.is_rejoining

    assert before == (keeping.folder / "one.db").read_bytes()


async def test_a_node_that_meets_nobody_does_not_become_younger(keeping: Keeping) -> None:
    """The file tells the last contact, not the last save."""
    one, two = keeping.new("one"), keeping.new("two", "one")
    await one.start()
    await two.start()
    await two.wait_ready()
    two.node.sync.app.set("key", b"x")
    await two.stop()
    await one.stop()  # or it would find the other again
    keeping.wall_ahead_s = 400.0
    alone = keeping.new("two", "nobody")
    await alone.start()
    alone.node.sync.app.set("key", b"y")
    await alone.stop()

    saved = await SnapshotFile(keeping.folder / "two.db").load()

    assert saved is not None
    assert saved.saved_at_s < time.time() + 100.0


async def test_the_last_one_of_a_cluster_does_not_become_older(keeping: Keeping) -> None:
    """Who has said goodbye is awaited by nobody: the one that stays is the whole cluster."""
    one, two = keeping.new("one"), keeping.new("two", "one")
    await one.start()
    await two.start()
    await two.wait_ready()
    await two.stop()
    await one.wait_until(lambda: not one.node.counted_members(), timeout_s=10)
    keeping.wall_ahead_s = 400.0
    one.node.sync.app.set("key", b"x")
    await one.stop()

    saved = await SnapshotFile(keeping.folder / "one.db").load()

    assert saved is not None
    assert saved.saved_at_s > time.time() + 300.0


async def test_a_state_of_another_cluster_is_set_aside(keeping: Keeping) -> None:
    """Two clusters never merge by a file either, and neither loses its own."""
    async with keeping.new("one") as one:
        one.node.sync.app.set("key", b"value")
    written = (keeping.folder / "one.db").read_bytes()

    async with keeping.new("one", cluster_name="other") as other:
        assert [] == other.node.sync.app.keys()
        assert "is of cluster 'mesh', not 'other'" in other.health().problems[0]

    assert written == (keeping.folder / "one.db.aside-1").read_bytes()


async def test_a_state_from_the_future_keeps_a_node_from_starting(keeping: Keeping) -> None:
    """The clock is what is wrong, so the file stays where it is."""
    keeping.wall_ahead_s = 600.0
    async with keeping.new("one") as one:
        one.node.sync.app.set("key", b"value")
    keeping.wall_ahead_s = 0.0

    with pytest.raises(ConfigError, match="clock is behind"):
        await keeping.new("one").start()

    assert (keeping.folder / "one.db").exists()


async def test_two_runtimes_do_not_share_a_file(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second would overwrite what the first one saves."""
    monkeypatch.setattr("meshlib.aio.storage.places.LOCK_WAIT_S", 0.1)
    async with keeping.new("one"):
        second = keeping.new("two", file_name="one")
        with pytest.raises(ConfigError, match="in use"):
            await second.start()


async def test_a_save_that_fails_is_told_and_tried_again(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The node goes on."""
    one = keeping.new("one")
    await one.start()
    file = snapshots_of(one)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        one.node.sync.app.set("key", b"value")
        await one.wait_until(lambda: file.counters.saves_failed > 0, timeout_s=10)
    saves = file.counters.saves
    await one.wait_until(lambda: file.counters.saves > saves, timeout_s=10)

    assert "disk full" in caplog.text


async def test_who_counts_is_kept_and_remembered_by_the_next_start(keeping: Keeping) -> None:
    """A member that comes has the file written, though nothing else has changed."""
    one, two = keeping.new("one"), keeping.new("two", "one")
    await one.start()
    file = snapshots_of(one)
    await one.wait_until(lambda: file.counters.saves > 0, timeout_s=10)
    await two.start()
    await two.wait_ready(10)
    saves = file.counters.saves
    await one.wait_until(lambda: file.counters.saves > saves, timeout_s=10)
    await one.abort()
    await two.abort()

    again = keeping.new("one")
    await again.start()
    partition = again.health().partition
    assert (("two",), 2, False) == (
        partition.unreachable,
        partition.quorum_of,
        partition.has_quorum,
    )


async def test_an_idle_node_does_not_write_its_state_again(keeping: Keeping) -> None:
    """Only what has changed is saved."""
    one = keeping.new("one")
    await one.start()
    one.node.sync.app.set("key", b"value")
    file = snapshots_of(one)
    await one.wait_until(lambda: file.counters.saved_bytes > 0, timeout_s=10)
    saves = file.counters.saves
    steps = one.counters.steps

    await one.wait_until(lambda: one.counters.steps > steps + 3, timeout_s=10)

    assert saves == file.counters.saves


async def test_an_idle_node_in_contact_stays_young(keeping: Keeping) -> None:
    """The file tells it once a minute, without writing the state again."""
    one = keeping.new("one")
    await one.start()
    file = snapshots_of(one)
    await one.wait_until(lambda: file.counters.saved_at_s > 0.0, timeout_s=10)
    saves = file.counters.saves

    keeping.wall_ahead_s = 100.0
    await one.wait_until(lambda: file.counters.saved_at_s > time.time() + 50.0, timeout_s=10)

    assert saves == file.counters.saves
    saved = await SnapshotFile(file.path).load()
    assert saved is not None
    assert saved.saved_at_s > time.time() + 50.0


async def test_a_tree_is_kept_as_it_was_when_the_save_began() -> None:
    """Texts that are evicted or added while its pages are made do not matter."""
    replica = new_replica()
    sync = MeshSyncManager(replica, members=lambda: ())
    for i in range(600):
        sync.sync_tree_operation(
            "m", TreeInsert(text=f"{i % 7} " + "y" * i * 3, tenant=f"w{i % 3}")
        )
    sync.sync_tree_operation("m", TreeRemove(tenant="w2"))
    digest = replica.content_digest()
    pages = replica.export_pages(page_bytes_max=4096)
    state = ReplicaState(replica.actor, pages.vector, (next(pages),))
    sync.sync_tree_operation("m", TreeRemove(tenant="w1"))
    sync.sync_tree_operation("m", TreeInsert(text="later", tenant="w0"))

    restored = new_replica(2)
    restored.import_state(evolve(state, pages=(*state.pages, *pages)))

    assert digest == restored.content_digest() != replica.content_digest()


async def test_a_tree_of_hashes_is_kept_as_it_was_when_the_save_began() -> None:
    """Likewise of blocks."""
    replica = new_replica()
    replica.open("blocks", type_tag=registry.type_tag(HashedTreeDocument()))

    def write(make: Callable[[HashedPrefixCacheState], HashedPrefixCacheState]) -> None:
        replica.write("blocks", lambda state, _: HashedTreeDocument(cache=make(state.cache)))

    for i in range(200):
        chain = text_chain(f"{i % 7} " * 90, block_characters=1)
        write(
            partial(
                HashedPrefixCacheState.insert_blocks, chain=chain, tenant=f"w{i % 3}", access=i + 1
            )
        )
    digest = replica.content_digest()
    pages = replica.export_pages(page_bytes_max=4096)
    state = ReplicaState(replica.actor, pages.vector, (next(pages),))
    write(lambda cache: cache.remove_tenant("w1"))
    write(lambda cache: cache.insert_blocks((1, 2), tenant="w0", access=999))

    restored = new_replica(2)
    restored.import_state(evolve(state, pages=(*state.pages, *pages)))

    assert digest == restored.content_digest() != replica.content_digest()


# Releases


def version_of(path: Path) -> int:
    """Return the version that a file says it is of."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        version: int = database.execute("PRAGMA user_version").fetchone()[0]
    database.close()
    return version


async def write_and_stop(runtime: MeshRuntime, key: str, value: object) -> None:
    """Write a key and end, which saves it."""
    put(runtime.node.replica, key, value)
    await runtime.stop()


async def test_a_file_of_the_release_before_is_begun_with_and_becomes_one_of_the_next(
    keeping: Keeping,
) -> None:
    """Nothing has to be written for that: it is saved anew once all speak the newer format."""
    old = keeping.new("a")
    await old.start()
    await write_and_stop(old, "k", "v")
    before = version_of(keeping.folder / "a.db")
    upgraded = keeping.new("a", formats=NEXT_FORMATS)
    await upgraded.start()
    await upgraded.stop()
    after = version_of(keeping.folder / "a.db")
    again = keeping.new("a", formats=NEXT_FORMATS)
    await again.start()

    assert [PAGE_VERSION, NEXT_PAGE_VERSION] == [before, after]
    assert "v" == get(again.node.replica, "k")


async def test_a_file_stays_one_of_the_release_before_as_long_as_a_member_is_of_it(
    keeping: Keeping,
) -> None:
    """So a roll that is taken back halfway loses nothing that was kept."""
    other = keeping.new("b")
    await other.start()
    first = keeping.new("a", "b", formats=NEXT_FORMATS)
    await first.start()
    await first.wait_ready(10)
    await write_and_stop(first, "k", "v")
    await other.abort()
    rolled_back = keeping.new("a")
    await rolled_back.start()

    assert PAGE_VERSION == version_of(keeping.folder / "a.db")
    assert "v" == get(rolled_back.node.replica, "k")
    assert not any("aside" in problem for problem in rolled_back.node.health().problems)


async def roll_back(keeping: Keeping) -> None:
    """Go back to the release before with a file of the next one; look what has become of it."""
    newer = keeping.new("a", formats=NEXT_FORMATS)
    await newer.start()
    await write_and_stop(newer, "k", "v")
    path, aside = keeping.folder / "a.db", keeping.folder / "a.db.aside-1"
    content = path.read_bytes()
    rolled_back = keeping.new("a")
    await rolled_back.start()
    problems = rolled_back.node.health().problems
    await write_and_stop(rolled_back, "other", "w")

    assert NEXT_PAGE_VERSION == int.from_bytes(content[60:64], "big")
    assert aside.exists(), "the file of the later release is gone"
    assert content == aside.read_bytes()
    [problem] = problems
    assert f"it has format {NEXT_PAGE_VERSION}, and the newest known here is" in problem
    assert "a later release wrote it" in problem
    assert "set aside as a.db.aside-1" in problem
    again = keeping.new("a", formats=NEXT_FORMATS)
    aside.replace(path)
    await again.start()
    assert "v" == get(again.node.replica, "k")


async def test_a_file_of_the_next_release_is_set_aside_and_never_overwritten(
    keeping: Keeping,
) -> None:
    """The node says why, goes on without it, and the next release begins with it again."""
    await roll_back(keeping)


async def test_to_overwrite_a_file_of_the_next_release_would_be_noticed(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that takes what it cannot read for nothing saves over it: the check sees that."""
    load = SnapshotFile.load

    async def broken(self: SnapshotFile, *, newest: int = PAGE_VERSION) -> Any:
        try:
            return await load(self, newest=newest)
        except ConfigError:
            return None

    monkeypatch.setattr(SnapshotFile, "load", broken)

    with pytest.raises(AssertionError, match="the file of the later release is gone"):
        await roll_back(keeping)
