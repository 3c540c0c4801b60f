"""The table of the library's page: what each call does before the node is ready, and after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshlib import (
    GossipConfig,
    MemoryNetwork,
    MeshConfig,
    MeshError,
    MeshRuntime,
    NodeState,
    NotReadyError,
    StartupConfig,
    ThreadError,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "library.md"
LIMIT = 5


def mesh_that_waits(**startup: str) -> MeshRuntime:
    """Make a node whose peer never answers, and that waits for it as long as it takes."""
    config = MeshConfig(
        name="a",
        gossip=GossipConfig(bootstrap_after_s=0.0, leave_handover_s=0.0),
        startup=StartupConfig(**startup),
    )
    return MeshRuntime(config, transport=MemoryNetwork().transport("a:1"), seeds=["b:1"])


def mesh_that_is_ready(**startup: str) -> MeshRuntime:
    """Make a node that has nobody to wait for."""
    config = MeshConfig(name="a", startup=StartupConfig(**startup))
    return MeshRuntime(config, transport=MemoryNetwork().transport("a:1"))


def outcome(call: Callable[[], Any]) -> str:
    """Say what came of a call, in the page's words."""
    try:
        answer = call()
    except MeshError as error:
        return f"`{type(error).__name__}`"
    if answer is None:
        return "None"
    kind = type(answer).__name__
    if kind == "Decision" and answer.limit == 0:
        return "admitted" if answer.allowed else "refused"
    if kind == "RateLimitStats":
        return "unlimited" if answer.limit_per_second == 0 else "limited"
    return "taken" if kind == "WriteReceipt" else f"a `{kind}`"


def outcomes(make: Callable[..., MeshRuntime]) -> dict[str, str]:
    """Make every call of the table, of nodes that hold nothing and then what is written."""

    async def run() -> dict[str, str]:
        found: dict[str, str] = {}
        async with make() as mesh:
            found['`mesh.acquire("global")`, no limit known'] = outcome(
                lambda: mesh.acquire("global")
            )
            found["`mesh.acquire` of another key, no limit known"] = outcome(
                lambda: mesh.acquire("x")
            )
            found['`mesh.rate_limit_stats("global")`, no limit known'] = outcome(
                mesh.rate_limit_stats
            )
            found["`mesh.route`"] = outcome(lambda: mesh.route("m", "text"))
            found["reading what is not here, by `mesh.sync`"] = outcome(
                lambda: mesh.sync.get_worker_state("w")
            )
            found["writing, by `mesh.sync`"] = outcome(
                lambda: mesh.sync.set_global_rate_limit(LIMIT)
            )
            found["`mesh.acquire`, a limit is known"] = outcome(lambda: mesh.acquire("global"))
        async with make(acquire="open", route="open") as mesh:
            found['the same with `StartupConfig(acquire="open")`'] = outcome(
                lambda: mesh.acquire("x")
            )
            found['the same with `StartupConfig(route="open")`'] = outcome(
                lambda: mesh.route("m", "text")
            )
        return found

    return asyncio.run(run())


def documented(column: int) -> dict[str, str]:
    """Return a column of the page's table."""
    section = PAGE.read_text().split("What a node does not know yet it does not decide.")[1]
    table = section.split("\n\n")[1].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: row[column] for row in rows}


def test_every_cell_of_a_node_that_is_not_ready_is_so() -> None:
    """What it does not know it neither decides nor denies."""
    assert outcomes(mesh_that_waits) == documented(1)


def test_every_cell_of_a_ready_node_is_so() -> None:
    """What is not there is not there."""
    assert outcomes(mesh_that_is_ready) == documented(2)


def test_who_is_refused_is_told_what_is_not_known_why_and_when_to_come_back() -> None:
    """A caller may wait, ask somebody else, or tell its own caller."""

    async def run() -> NotReadyError:
        async with mesh_that_waits() as mesh:
            with pytest.raises(NotReadyError) as caught:
                mesh.acquire("x")
            return caught.value

    error = asyncio.run(run())

    assert ("the rate limit 'x'", 1.0, 0.0) == (error.what, error.retry_after_s, error.timeout_s)
    assert ("not ready: no peer was met yet",) == error.story
    assert str(error) == "the rate limit 'x' is not known here yet: not ready: no peer was met yet"


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_what_is_refused_before_it_is_ready_counts_for_nothing(mode: str) -> None:
    """Once the limit is there it is there whole."""

    async def run() -> int:
        async with mesh_that_waits(acquire=mode) as mesh:
            for _ in range(100):
                outcome(lambda: mesh.acquire("global"))
            mesh.sync.set_global_rate_limit(LIMIT)
            return mesh.rate_limit_stats().current_count

    assert 0 == asyncio.run(run())


def test_the_facade_that_routers_hold_keeps_the_rule_too() -> None:
    """`mesh.sync.route` is the same door."""

    async def run() -> None:
        async with mesh_that_waits() as mesh:
            mesh.sync.sync_worker_state("w", model_id="m", url="u", health=True, load=0.0)
            with pytest.raises(NotReadyError):
                mesh.sync.route("m", "text")
            assert mesh.sync.match_tree("m", "text").tenant is None

    asyncio.run(run())


def test_another_thread_is_refused_before_the_rule_is_asked() -> None:
    """It is no answer to a caller that may not ask."""

    async def run() -> str:
        async with mesh_that_waits(acquire="open") as mesh:
            return await asyncio.to_thread(lambda: outcome(lambda: mesh.acquire("x")))

    assert asyncio.run(run()) == f"`{ThreadError.__name__}`"


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    """A word that is none is a mistake of the file."""
    with pytest.raises(ValueError, match="closed, open"):
        StartupConfig(acquire="ajar")


@pytest.mark.parametrize("after_s", [0.0, 0.01])
def test_health_and_diagnosis_say_the_same(after_s: float) -> None:
    """Of a node that waits for its peer, and of one that went on alone."""

    async def run() -> None:
        config = MeshConfig(
            name="a", gossip=GossipConfig(bootstrap_after_s=after_s, leave_handover_s=0.0)
        )
        mesh = MeshRuntime(config, transport=MemoryNetwork().transport("a:1"), seeds=["b:1"])
        async with mesh:
            wanted = NodeState.ISOLATED if after_s else NodeState.JOINING
            await mesh.wait_until(lambda: mesh.state is wanted, timeout_s=30.0)
            mesh.node.note_problem("storage", "nothing is saved")
            diagnosis, health = mesh.diagnose(), mesh.health()
            own = mesh.node.state_problem()

            assert (wanted, bool(after_s)) == (diagnosis.state, diagnosis.is_ready)
            assert (own, "nothing is saved") == health.problems == diagnosis.problems
            assert (own if after_s else "no peer was met") == diagnosis.story[0]
            assert "nothing is saved" == diagnosis.story[-1]

    asyncio.run(run())


def test_who_waits_in_vain_is_told_all_that_is_wrong() -> None:
    """The error has the story of the diagnosis."""

    async def run() -> tuple[str, ...]:
        async with mesh_that_waits() as mesh:
            mesh.node.note_problem("storage", "nothing is saved")
            with pytest.raises(NotReadyError) as caught:
                await mesh.wait_ready(0.05)
            return caught.value.story

    story = asyncio.run(run())
    assert ("no peer was met", "nothing is saved") == (story[0], story[-1])
