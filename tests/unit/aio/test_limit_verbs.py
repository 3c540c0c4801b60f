"""The verbs of limits on a running node: what waits, and what becomes of who goes away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.errors import InvalidFieldError, InvalidTypeError, UnknownKeyError
from meshlib.ratelimit import Decision

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[MeshRuntime]:
    """A node that runs alone, with two rules."""
    transport = MemoryNetwork().transport("node:1")
    async with MeshRuntime(MeshConfig(name="node"), transport=transport) as runtime:
        runtime.limits.set_rule("slow", pattern="slow:*", limits="10/31d")
        runtime.limits.set_rule("fast", pattern="fast:*", limits="50/second; burst=1")
        yield runtime


async def test_those_who_wait_are_served_one_after_the_other() -> None:
    """In the order they came."""
    async with running() as mesh:
        served: list[int] = []

        async def wait(number: int) -> None:
            assert await mesh.wait("fast:a", timeout_s=30.0)
            served.append(number)

        await asyncio.gather(*(wait(number) for number in range(5)))

        assert [0, 1, 2, 3, 4] == served


async def test_who_is_cancelled_while_it_waits_takes_nothing() -> None:
    """And those behind move up."""
    async with running() as mesh:
        mesh.acquire("slow:a", cost=10)
        tasks = [asyncio.ensure_future(mesh.wait("slow:a", timeout_s=60.0)) for _ in range(2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        mesh.reset_limit("slow:a")
        late = await mesh.wait("slow:b", timeout_s=1.0)
        tasks[1].cancel()
        await asyncio.wait(tasks[1:])

        assert late.allowed
        assert [True, True] == [task.cancelled() for task in tasks]
        assert 10 == mesh.peek("slow:a").remaining


async def test_waiting_ends_at_its_deadline() -> None:
    """With a refusal."""
    async with running() as mesh:
        mesh.acquire("slow:a", cost=10)

        assert not await mesh.wait("slow:a", timeout_s=0.01)


async def test_each_of_several_is_decided_or_told_its_error() -> None:
    """In their order."""
    async with running() as mesh:
        requests = [("slow:a", 6), ("slow:a", 6), ("none", 1), ("slow:a", 11), ("slow:a", 4)]
        outcomes = await mesh.acquire_each(requests)

        assert [True, False, None, None, True] == [
            outcome.allowed if isinstance(outcome, Decision) else None for outcome in outcomes
        ]
        assert isinstance(outcomes[2], UnknownKeyError)
        assert isinstance(outcomes[3], InvalidFieldError)


async def test_too_many_at_once_are_refused() -> None:
    """Before any of them is counted; and so is what are no pairs."""
    async with running() as mesh:
        with pytest.raises(InvalidFieldError):
            await mesh.acquire_each([("slow:a", 1)] * 101)
        with pytest.raises(InvalidTypeError):
            await mesh.acquire_each(["slow:a"])  # type: ignore[list-item]

        assert 10 == mesh.peek("slow:a").remaining


async def test_an_estimate_is_reserved_and_settled() -> None:
    """By either call."""
    async with running() as mesh:
        first = await mesh.reserve_confirmed("slow:a", estimate=4)
        second = mesh.reserve("slow:a", estimate=4)
        refused = await mesh.reserve_confirmed("slow:a", estimate=4)
        mesh.settle(first, actual=1)
        mesh.settle(second.reservation_id, actual=2)

        assert (True, True, False) == (bool(first), bool(second), bool(refused))
        assert 7 == (await mesh.peek_confirmed("slow:a")).remaining


async def test_several_keys_pass_together_or_not_at_all() -> None:
    """By either call; and what was not used is given back."""
    async with running() as mesh:
        both = {"slow:a": 6, "slow:b": 6}
        decisions = [await mesh.acquire_many_confirmed(both), mesh.acquire_many(both)]
        mesh.refund("slow:a", cost=2)

        assert [True, False] == [decision.allowed for decision in decisions]
        assert (6, 4) == (mesh.peek("slow:a").remaining, mesh.peek("slow:b").remaining)
        assert [4] == [usage.used_count for usage in mesh.rate_limit_usage("slow:a")]
        assert {"slow:a", "slow:b"} == {use.key for use in mesh.busiest_keys()}
