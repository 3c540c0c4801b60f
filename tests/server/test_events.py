"""The stream of events: what comes, in what form, and that nobody is held by who does not read."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from support.servers import Launcher, Node, eventually

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.gossip import LocalPause
from meshlib_server.client import MeshClient
from meshlib_server.dashboard import EventFeed, overview, stream
from meshlib_server.metrics import Sources
from meshlib_server.problems import Unavailable

OVERVIEW = {"now": 1}


def feed(is_ending: list[bool] | None = None) -> EventFeed:
    """Make a feed with an overview of the test's."""
    ends = is_ending if is_ending is not None else []
    return EventFeed(lambda: dict(OVERVIEW), is_ending=lambda: bool(ends))


def read(text: str) -> tuple[str, Any]:
    """Return the kind and the data of one event."""
    kind, data, *rest = text.split("\n")
    assert ["", ""] == rest
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def with_node(use: Any) -> Any:
    """Run something with a node that is ready and alone."""
    config = MeshConfig(name="a")
    async with MeshRuntime(config, transport=MemoryNetwork().transport("a:1")) as mesh:
        await mesh.wait_ready(5)
        return await use(mesh)


def told(mesh: MeshRuntime, *events: Any) -> None:
    """Let events have happened."""
    mesh._streams.publish(events)


def test_an_overview_is_first_and_events_follow_in_order() -> None:
    """Each with its kind and its fields; numbers stay numbers."""

    async def use(mesh: MeshRuntime) -> list[tuple[str, Any]]:
        source: AsyncIterator[str] = feed().stream(mesh, has_overviews=False)
        first = await anext(source)
        told(mesh, LocalPause(late_s=1.5), LocalPause(late_s=2.5))
        return [read(text) for text in (first, await anext(source), await anext(source))]

    assert [
        ("overview", OVERVIEW),
        ("LocalPause", {"late_s": 1.5}),
        ("LocalPause", {"late_s": 2.5}),
    ] == anyio.run(with_node, use)


@pytest.mark.parametrize("has_overviews", [True, False])
def test_something_comes_while_nothing_happens(
    has_overviews: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overview where it is asked for, and a comment otherwise."""
    monkeypatch.setattr(stream, "_OVERVIEW_S", 0.01)

    async def use(mesh: MeshRuntime) -> str:
        source: AsyncIterator[str] = feed().stream(mesh, has_overviews=has_overviews)
        await anext(source)
        return await anext(source)

    text = anyio.run(with_node, use)

    assert text.startswith("event: overview" if has_overviews else ": ")


def test_who_reads_too_slowly_is_told_how_much_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on with the newest."""
    monkeypatch.setattr(stream, "_QUEUE_MAX", 2)

    async def use(mesh: MeshRuntime) -> list[tuple[str, Any]]:
        source: AsyncIterator[str] = feed().stream(mesh, has_overviews=False)
        await anext(source)
        told(mesh, LocalPause(late_s=0.0))
        await anext(source)
        told(mesh, *(LocalPause(late_s=float(number)) for number in range(1, 6)))
        return [read(await anext(source)) for _ in range(2)]

    (kind, data), (_, event) = anyio.run(with_node, use)

    assert ("missed", {"count": 3}) == (kind, data)
    assert event["late_s"] >= 1


def test_streams_are_as_many_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has ended makes room."""
    monkeypatch.setattr(stream, "STREAMS_MAX", 1)

    async def use(mesh: MeshRuntime) -> None:
        full = feed()
        source: Any = full.stream(mesh, has_overviews=False)
        await anext(source)
        with pytest.raises(Unavailable, match="open already"):
            full.check_room()
        await source.aclose()
        full.check_room()

    anyio.run(with_node, use)


def test_a_stream_ends_when_the_node_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds up no end."""
    monkeypatch.setattr(stream, "_OVERVIEW_S", 0.01)

    async def use(mesh: MeshRuntime) -> None:
        ends: list[bool] = []
        source = feed(ends).stream(mesh, has_overviews=False)
        await anext(source)
        ends.append(True)
        async with asyncio.timeout(10):
            assert not [text async for text in source if not text.startswith(":")]

    anyio.run(with_node, use)


def test_an_overview_tells_how_busy_workers_are() -> None:
    """What all routers have in flight there, and what was cached of the prompts that went there."""

    async def use(mesh: MeshRuntime) -> Any:
        mesh.sync.sync_worker_state("w", model_id="m", url="u", health=True, load=0.0, ttl_s=60)
        mesh.sync.sync_worker_state("v", model_id="m", url="u", health=True, load=0.0)
        mesh.begin("w", prefill_tokens=1_000_000)
        sources = Sources()
        for matched in (0, 80):
            sources.hits.add("w", matched=matched, length=100)
        return overview(mesh, sources)["workers"]

    idle, busy = anyio.run(with_node, use)

    assert (0, 0, None, None) == tuple(
        idle[name] for name in ("in_flight", "prefill_tokens", "hit_rate", "ttl_s")
    )
    assert (1, 60) == (busy["in_flight"], busy["ttl_s"])
    assert busy["prefill_tokens"] > 900_000
    assert 0.39 < busy["hit_rate"] < 0.41


def test_an_overview_is_bounded_and_holds_no_value_of_the_configuration() -> None:
    """Of much there is a part, and values may be secrets."""

    async def use(mesh: MeshRuntime) -> str:
        for number in range(300):
            mesh.sync.set_config(f"key-{number:03}", b"hush")
            mesh.limits.set(f"k-{number}", 1)
            mesh.sync.sync_worker_state(
                f"w-{number:03}", model_id="m", url="http://w", health=True, load=0.0
            )
        return json.dumps(overview(mesh, Sources()))

    tree = json.loads(text := anyio.run(with_node, use))

    assert (200, 200, 20) == tuple(len(tree[name]) for name in ("workers", "config_keys", "limits"))
    assert "hush" not in text
    assert [] == tree["busiest"]
    assert b"hush".hex() not in text
    assert {"a": 1.0} == tree["ring"]


def test_an_overview_names_the_busiest_keys_unless_there_are_too_many_to_look_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what this node has admitted and refused of each."""

    async def use(mesh: MeshRuntime) -> Any:
        mesh.limits.set("k", 2)
        for _ in range(5):
            await mesh.acquire_confirmed("k")
        found = overview(mesh, Sources())["busiest"]
        module = sys.modules["meshlib_server.dashboard.overview"]
        monkeypatch.setattr(module, "_KEYS_LOOKED_AT_MAX", 0)
        return found, overview(mesh, Sources())["busiest"]

    [used], nothing = anyio.run(with_node, use)

    assert ("k", "") == (used["key"], used["mark"])
    assert 5 == used["admitted_count"] + used["refused_count"]
    assert [] == nothing


@pytest.mark.slow
def test_a_member_that_goes_is_seen_by_who_looks_on(own_launcher: Launcher) -> None:
    """Over a real socket: the event, and then an overview that shows it."""
    nodes: list[Node] = own_launcher.cluster("one", "two")
    with MeshClient(nodes[0].address, token="operator-token-1") as client:
        seen = client.events(has_overviews=True)
        assert "overview" == next(seen).kind
        nodes[1].kill()
        for event in itertools.islice(seen, 200):
            if event.kind == "MemberDown":
                break
        assert "two" == event.data["member"]
        for event in itertools.islice(seen, 20):
            if event.kind == "overview":
                break
    statuses = {member["name"]: member["status"] for member in event.data["members"]}
    assert {"one": "Alive", "two": "Down"} == statuses


@pytest.mark.slow
def test_a_stream_that_is_open_does_not_hold_up_the_end(own_launcher: Launcher) -> None:
    """The node ends as soon as it would without."""
    node = own_launcher.node("streaming")
    node.start()
    eventually(node.is_ready, "it is ready")
    with MeshClient(node.address, token="operator-token-1") as client:
        seen = client.events()
        next(seen)
        node.started.terminate()

        assert 0 == node.started.wait(10)
