"""Trees of hashes: the same decisions as of text, block by block, and no text in any frame."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mini_network import MiniNetwork
from support.world import World

from meshlib.aio import SnapshotFile
from meshlib.errors import ClockAheadError, ConfigError, MeshError, NotReadyError
from meshlib.node import MeshConfig
from meshlib.replication import Replica
from meshlib.routing import PrefixSync, TreeInsert, TreeRemove
from meshlib.sync import MeshSyncManager

BLOCK = 256
SHARED = "".join(random.Random(1).choices("abcdefgh ", k=10 * BLOCK))


def manager(replica: Replica, prefix_sync: PrefixSync = PrefixSync.HASH) -> MeshSyncManager:
    sync = MeshSyncManager(replica, prefix_sync=prefix_sync)
    for name in ("w1", "w2", "w3"):
        sync.sync_worker_state(name, model_id="m", url=f"http://{name}", health=True, load=0.0)
    return sync


@pytest.fixture
def hashed(world: World) -> MeshSyncManager:
    return manager(world.replica("a"))


@pytest.fixture
def world() -> World:
    return World()


def test_a_prompt_goes_where_its_blocks_are(hashed: MeshSyncManager) -> None:
    """A match is whole blocks; what is behind them does not matter."""
    first = hashed.route("m", SHARED + "one")
    again = hashed.route("m", SHARED + "another")
    assert again.worker_id == first.worker_id
    assert (10 * BLOCK, "prefix_match") == (again.matched, again.reason)
    assert hashed.match_tree("m", SHARED[: 3 * BLOCK + 7]).matched == 3 * BLOCK


def test_a_short_prompt_is_routed_and_leaves_nothing(hashed: MeshSyncManager) -> None:
    """It fills no block."""
    assert hashed.route("m", "short").worker_id is not None
    assert hashed.trees.entry_count("m") == 0
    assert hashed.match_tree("m", "short").matched == 0


@pytest.mark.parametrize("prefix_sync", PrefixSync)
@pytest.mark.parametrize(
    "error",
    [
        NotReadyError(story=("asked",), what="the clock"),
        ClockAheadError(ahead_s=60.0, skew_max_s=1.0),
    ],
    ids=["not ready", "ahead"],
)
def test_a_node_that_may_not_write_decides_all_the_same(
    world: World, prefix_sync: PrefixSync, error: MeshError
) -> None:
    """It does not know its clock yet, or knows that it is wrong: nothing is recorded."""

    def refuse() -> None:
        raise error

    sync = manager(world.replica("a"), prefix_sync)
    sync.route("m", SHARED)
    version = sync.trees.version("m")
    sync.trees._documents.replica.check_write = refuse

    assert sync.route("m", SHARED + "more" * BLOCK).worker_id is not None
    assert sync.trees.version("m") == version


def test_a_known_prompt_is_no_write(hashed: MeshSyncManager) -> None:
    """Until its last use is recorded again."""
    hashed.route("m", SHARED)
    version = hashed.trees.version("m")
    hashed.trees._documents.replica.flush()
    hashed.route("m", SHARED)
    assert not hashed.trees._documents.replica.has_open_writes
    assert hashed.trees.version("m") == version


def test_a_session_stays_with_its_worker(hashed: MeshSyncManager) -> None:
    """Its key is a hash and shorter than a block."""
    chosen = {hashed.route("m", f"{n} unrelated", session="s").worker_id for n in range(10)}
    assert len(chosen) == 1


def test_salts_share_nothing(hashed: MeshSyncManager) -> None:
    """As with text."""
    hashed.route("m", SHARED, salt="one")
    assert hashed.select("m", SHARED, salt="two").matched == 0
    assert hashed.select("m", SHARED, salt="one").matched > 8 * BLOCK


def test_a_removed_worker_holds_nothing(hashed: MeshSyncManager) -> None:
    """Also what another node was placing meanwhile."""
    hashed.sync_tree_operation("m", TreeInsert(SHARED, "w1"))
    hashed.sync_tree_operation("m", TreeRemove("w1"))
    assert hashed.match_tree("m", SHARED).tenants == ()


def test_the_state_tells_its_version_and_no_texts(hashed: MeshSyncManager) -> None:
    """Nobody knows them."""
    hashed.sync_tree_operation("m", TreeInsert(SHARED, "w1"))
    state = hashed.get_tree_state("m")
    assert state is not None
    assert ((), 1) == (state.operations, state.version)
    assert [()] == list(hashed.trees.slices("m"))


def test_a_tree_keeps_to_its_size(hashed: MeshSyncManager) -> None:
    """The blocks used longest ago go first."""
    hashed.sync_policy_state(
        "m", policy_type="cache_aware", config=f'{{"max_tree_size": {8 * BLOCK}}}'
    )
    rng = random.Random(2)
    texts = ["".join(rng.choices("abc", k=3 * BLOCK)) for _ in range(9)]
    for text in texts:
        hashed.route("m", text)
        assert hashed.trees.characters("m") <= 8 * BLOCK
    assert hashed.match_tree("m", texts[-1]).matched == 3 * BLOCK
    assert hashed.match_tree("m", texts[0]).matched == 0


def test_a_beginning_that_many_share_is_not_written_with_each(
    world: World, hashed: MeshSyncManager
) -> None:
    """But for now and then: what was used just now would be used just now again."""
    replica = hashed.trees._documents.replica
    written = []
    for number in range(40):
        world.wall_s += 1.0
        hashed.route("m", SHARED + f"{number:04}" * BLOCK)
        hashed.trees._documents.replica.flush()
        [change] = [each for each in replica.changes() if each.document == "tree:m"]
        delta: Any = change.delta
        written.append(len(delta.cache))
    assert 14 == written[0] == max(written)
    assert 4 == min(written)
    assert written.count(14) < 20


def test_a_beginning_in_use_outlives_what_is_used_once(
    world: World, hashed: MeshSyncManager
) -> None:
    """In a tree that is full several times over, and whatever else is asked in between."""
    config = f'{{"max_tree_size": {60 * BLOCK}, "cache_threshold": 0.1}}'
    hashed.sync_policy_state("m", policy_type="cache_aware", config=config)
    rng = random.Random(4)
    hashed.route("m", SHARED)
    for number in range(120):
        world.wall_s += rng.random()
        hashed.route("m", "".join(rng.choices("xyz", k=4 * BLOCK)))
        if number % 5 == 0:
            own = "".join(rng.choices("xyz", k=BLOCK))
            assert hashed.route("m", SHARED + own).matched == 10 * BLOCK


STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 10), st.integers(0, 2), st.booleans()), max_size=20
)


@given(STEPS)
@settings(max_examples=25)
def test_policies_decide_as_with_text(steps: list[tuple[int, int, int, bool]]) -> None:
    """Where prompts are whole blocks, both modes hold and choose the same."""
    world = World()
    managers = [manager(world.replica(f"n{n}"), kind) for n, kind in enumerate(PrefixSync)]
    for beginning, blocks, end, is_removal in steps:
        world.wall_s += 1.0
        parts = chr(97 + beginning) * (blocks * BLOCK) + chr(65 + end) * BLOCK
        if is_removal:
            for each in managers:
                each.sync_tree_operation("m", TreeRemove("w1"))
            continue
        decisions = [each.route("m", parts) for each in managers]
        assert len({(one.worker_id, one.matched, one.reason) for one in decisions}) == 1
        assert len({str(each.trees.held("m", parts)) for each in managers}) == 1


def test_an_unknown_kind_is_refused() -> None:
    """With the kinds that there are."""
    with pytest.raises(ConfigError, match="text, hash"):
        MeshConfig(name="a", prefix_sync="tokens")


def test_nodes_of_both_kinds_say_so(world: World) -> None:
    """Neither reads the other's trees; it is a line among the problems."""
    a, b = world.replica("a"), world.replica("b")
    text, hashes = manager(a, PrefixSync.TEXT), manager(b)
    hashes.sync_tree_operation("m", TreeInsert(SHARED, "w1"))
    a.receive(b.flush())
    text.note_all()
    assert ["'m'"] == text.trees.unreadable()
    assert text.route("m", SHARED).worker_id is not None


# Frames


@pytest.fixture
def network() -> Iterator[MiniNetwork]:
    made = MiniNetwork()
    yield made
    for node in made.nodes.values():
        node._check()


PIECE = 12


class Said:
    """What a run has sent and kept, and what was asked in it."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.kept: list[bytes] = []
        self.asked: list[str] = []

    def pieces_in(self, said: list[bytes]) -> int:
        """Count the pieces of what was asked that can be read in what was said."""
        everything = b"|".join(said)
        pieces = {
            text[start : start + PIECE]
            for text in self.asked
            for start in range(0, len(text) - PIECE, 4 * PIECE)
        }
        return sum(piece.encode() in everything for piece in pieces)


def run(network: MiniNetwork, prefix_sync: PrefixSync, path: Path) -> Said:
    """Run a cluster that routes prompts, with one that joins late; keep a file of it."""
    said = Said()
    network.is_lost = lambda frame: bool(said.frames.append(frame))  # type: ignore[func-returns-value]
    for name in ("n0", "n1", "n2"):
        network.start(name, prefix_sync=prefix_sync)
    network.run(2.0)
    first: Any = network.nodes["n0"].sync
    for name in ("w1", "w2"):
        first.sync_worker_state(name, model_id="m", url=f"http://{name}", health=True, load=0.0)
    network.pump("n0")
    network.run(0.5)
    rng = random.Random(3)
    secrets = ["".join(rng.choices("abcdefgh ", k=700)) for _ in range(4)]
    for number in range(40):
        node = network.nodes[f"n{number % 3}"]
        prompt = secrets[number % 4] + "".join(rng.choices("abcdefgh ", k=600))
        salt, session = f"salt of a secret {number % 4}", f"session of a secret {number % 5}"
        node.sync.route("m", prompt, salt=salt, session=session)
        said.asked += [prompt, salt, session]
        network.pump(f"n{number % 3}")
        network.run(0.1)
    network.start("late", prefix_sync=prefix_sync)
    network.run(5.0)
    assert len({node.replica.get("tree:m").digest() for node in network.nodes.values()}) == 1
    assert first.trees.entry_count("m") > 0
    replica = network.nodes["n1"].replica
    said.kept = [page.state for page in replica.transfer_pages({})]
    asyncio.run(keep(replica, path))
    said.kept.append(path.read_bytes())
    return said


async def keep(replica: Replica, path: Path) -> None:
    file = SnapshotFile(path)
    try:
        await file.save(replica, cluster_name="mesh", node_name="n1", wall_s=1000.0)
    finally:
        file.close()


def test_no_prompt_text_is_in_any_frame_or_file(network: MiniNetwork, tmp_path: Path) -> None:
    """Prompts, salts and sessions stay where they were asked; transfers are read as well."""
    said = run(network, PrefixSync.HASH, tmp_path / "state.db")
    assert len(said.frames) > 100
    assert 0 == said.pieces_in(said.frames) == said.pieces_in(said.kept)


def test_with_text_it_would_be_seen(network: MiniNetwork, tmp_path: Path) -> None:
    """What the test before looks for is there where it may be: all but the names of sessions."""
    said = run(network, PrefixSync.TEXT, tmp_path / "state.db")
    assert said.pieces_in(said.frames) > 500
    assert said.pieces_in(said.kept) > 500
