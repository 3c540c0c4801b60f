"""What a process logs of its node: who comes and goes, and what is wrong."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import anyio
import attrs
import pytest
import structlog
from structlog.testing import capture_logs
from support.servers import eventually

from meshlib import GossipConfig, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.gossip import Event, MessageUnsendable, StateRestored
from meshlib_server import companions as module
from meshlib_server.companions import companions
from meshlib_server.metrics import Sources


def logged(
    monkeypatch: pytest.MonkeyPatch, is_it: Callable[[Any], bool]
) -> tuple[list[Any], Sources]:
    """Run two nodes, end one without a goodbye, and return what the other one's process logs.

    Args:
        monkeypatch: for the interval at which problems are looked for.
        is_it: tells the line that is waited for.
    """
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    structlog.reset_defaults()
    sources = Sources()

    async def run(lines: list[Any]) -> None:
        network = MemoryNetwork()
        nodes = [
            MeshRuntime(
                MeshConfig(
                    name=name, gossip=attrs.evolve(GossipConfig.of("local"), bootstrap_after_s=0.1)
                ),
                transport=network.transport(f"{name}:1"),
                seeds=["a:1", "b:1"],
            )
            for name in "ab"
        ]
        for node in nodes:
            await node.start()
        async with companions(nodes[0], sources=sources):
            await nodes[0].wait_ready(10)
            await nodes[1].abort()
            await anyio.to_thread.run_sync(
                lambda: eventually(lambda: any(map(is_it, lines)), "the line is logged")
            )
        await nodes[0].stop()

    with capture_logs() as lines:
        anyio.run(run, lines)
    return lines, sources


def test_a_member_that_goes_is_a_warning_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at warnings alone sees who came and who went; each is counted too."""
    lines, sources = logged(monkeypatch, lambda line: line["event"] == "MemberDown")

    [down] = [line for line in lines if line["event"] == "MemberDown"]
    assert ("warning", "b") == (down["log_level"], down["member"])
    assert 1 == sources.events["MemberDown", ""]


def test_a_problem_is_a_warning_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of the health, once and not at each look."""
    lines, _ = logged(monkeypatch, lambda line: "b is down" in line.get("problem", ""))

    problems = [line["problem"] for line in lines if line["event"] == "problem"]
    assert {"warning"} == {line["log_level"] for line in lines if line["event"] == "problem"}
    assert len(problems) == len(set(problems))
    assert "b is down" in problems


def test_all_is_collected_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not the interpreter sees a reason to."""
    collected = list[int]()
    monkeypatch.setattr(module, "COLLECTED_EACH_S", 0.01)
    monkeypatch.setattr(gc, "collect", lambda: collected.append(len(collected)))

    logged(monkeypatch, lambda _: len(collected) > 2)

    assert [0, 1, 2] == collected[:3]


@pytest.mark.parametrize(
    "event", [StateRestored(peer="b", page_count=3), MessageUnsendable(destination="b:1", size=1)]
)
def test_a_state_that_came_whole_is_frozen(monkeypatch: pytest.MonkeyPatch, event: Event) -> None:
    """From a file before the start, and from a peer; nothing else that happens is."""
    frozen = list[str]()
    monkeypatch.setattr(module, "freeze_what_came", lambda: frozen.append("once"))

    async def events() -> AsyncIterator[Event]:
        yield event

    runtime = cast(MeshRuntime, SimpleNamespace(events=events))
    anyio.run(module._log_events, runtime, Sources())

    assert ["once"] * isinstance(event, StateRestored) == frozen


def test_what_a_file_brought_is_frozen_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the collector sees it for the first time."""
    frozen = list[str]()
    monkeypatch.setattr(module, "freeze_what_came", lambda: frozen.append("once"))
    logged(monkeypatch, lambda line: line["event"] == "MemberDown")

    assert ["once"] == frozen[:1]
