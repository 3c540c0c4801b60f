"""LiteLLM's calls under the limits of a cluster, as far as no LiteLLM is needed to see it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx2
import pytest

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime
from meshlib_server.adapters.litellm import (
    CallerTerms,
    DeploymentRouting,
    Metering,
    ModelTerms,
    OverLimit,
    Term,
    terms_of,
)
from meshlib_server.adapters.litellm.handler import _Hooks
from meshlib_server.app import build_app
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.client import AsyncMeshClient, UnreachableError
from meshlib_server.service import Service

OPEN = Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None)
CALLER = SimpleNamespace(
    max_parallel_requests=3,
    api_key="k1", rpm_limit=2, tpm_limit=100, user_id="u1", user_rpm_limit=None,
    user_tpm_limit=50, team_id=None, team_rpm_limit=7, team_tpm_limit=7,
)  # fmt: skip


def still() -> float:
    """Return a wall clock that stands, so that no minute ends within a test."""
    return 1_800_000_000.25


@asynccontextmanager
async def client_of_a_node() -> AsyncIterator[tuple[MeshRuntime, AsyncMeshClient]]:
    """Run a node, and yield a client of its API."""
    transport = MemoryNetwork().transport("n1:1")
    mesh = MeshRuntime(MeshConfig(name="n1"), transport=transport, wall_clock=still)
    async with mesh:
        await mesh.wait_ready(5)
        app = build_app(Service(mesh, shut_down=lambda: None), secrets=OPEN)
        client = AsyncMeshClient("http://127.0.0.1:8000")
        await client._client.aclose()
        client._client = httpx2.AsyncClient(
            base_url="http://127.0.0.1:8000", transport=httpx2.ASGITransport(app=app)
        )
        async with client:
            yield mesh, client


def run(case: Callable[[MeshRuntime, AsyncMeshClient], Awaitable[None]]) -> None:
    """Run a test against a node."""

    async def whole() -> None:
        async with client_of_a_node() as (mesh, client):
            await case(mesh, client)

    asyncio.run(whole())


def test_a_call_is_under_the_limits_of_its_key_user_team_and_model() -> None:
    """As far as each has one, and a name."""
    found = terms_of(CALLER, "m", {"m": ModelTerms(rpm=9, parallel=4), "other": ModelTerms(rpm=1)})

    assert [
        Term("2/minute:litellm:requests:key:k1", units=2),
        Term("100/minute:litellm:tokens:key:k1", units=100, is_tokens=True),
        Term("50/minute:litellm:tokens:user:u1", units=50, is_tokens=True),
        Term("litellm:parallel:key:k1", units=3, is_parallel=True),
        Term("9/minute:litellm:requests:model:m", units=9),
        Term("litellm:parallel:model:m", units=4, is_parallel=True),
    ] == found


@pytest.mark.parametrize(
    ("metadata", "of_team"), [(None, 8), ({}, 8), ({"max_parallel_requests": 5}, 5)]
)
def test_users_and_teams_have_so_many_calls_at_once(
    metadata: dict[str, int] | None, of_team: int
) -> None:
    """As the handler is told, for LiteLLM has no such limit; a team's own goes before."""
    caller = SimpleNamespace(user_id="u1", team_id="t1", team_metadata=metadata)
    callers = CallerTerms(user_parallel=2, team_parallel=8)

    assert [
        Term("litellm:parallel:user:u1", units=2, is_parallel=True),
        Term("litellm:parallel:team:t1", units=of_team, is_parallel=True),
    ] == terms_of(caller, "m", {}, callers=callers)


def used(mesh: MeshRuntime, key: str) -> int:
    """Return how much of a limit is used."""
    return mesh.rate_limit_stats(key).current_count


def test_a_call_that_is_refused_counts_nowhere() -> None:
    """Its requests are given back when its tokens have no room, and its tokens likewise."""

    async def case(mesh: MeshRuntime, client: AsyncMeshClient) -> None:
        metering = Metering(client, is_open=False)
        terms = terms_of(CALLER, "m", {})
        await metering.begin("a", terms, estimate=40)
        with pytest.raises(OverLimit) as caught:
            await metering.begin("b", terms, estimate=40)
        assert caught.value.term.policy == "50/minute"
        assert 0 < caught.value.retry_after_s <= 60
        assert 1 == used(mesh, "2/minute:litellm:requests:key:k1")
        assert 40 == used(mesh, "100/minute:litellm:tokens:key:k1")

    run(case)


def test_a_call_is_settled_once_by_what_it_used() -> None:
    """What was reserved and not used is there for the next one."""

    async def case(mesh: MeshRuntime, client: AsyncMeshClient) -> None:
        metering = Metering(client, is_open=False)
        terms = [Term("100/minute:litellm:tokens:key:k1", units=100, is_tokens=True)]
        await metering.begin("a", terms, estimate=1_000_000)
        with pytest.raises(OverLimit):
            await metering.begin("b", terms, estimate=1)
        await metering.end("a", tokens=30)
        await metering.end("a", tokens=30)
        assert 30 == used(mesh, "100/minute:litellm:tokens:key:k1")
        await metering.begin("c", terms, estimate=70)
        await metering.end("c", tokens=0)
        assert 30 == used(mesh, "100/minute:litellm:tokens:key:k1")

    run(case)


def test_no_more_calls_run_at_once_than_all_limits_allow() -> None:
    """A call that any limit refuses has no slot and counts nowhere; one that has ended has none."""

    async def case(mesh: MeshRuntime, client: AsyncMeshClient) -> None:
        metering = Metering(client, is_open=False)
        parallel = [
            Term("litellm:parallel:key:k1", units=2, is_parallel=True),
            Term("litellm:parallel:model:m", units=3, is_parallel=True),
        ]
        requests = Term("4/minute:litellm:requests:key:k1", units=4)
        tokens = Term("100/minute:litellm:tokens:key:k1", units=100, is_tokens=True)
        terms = [requests, tokens, *parallel]
        for call in ("a", "b"):
            await metering.begin(call, terms, estimate=10)
        for _ in range(3):
            with pytest.raises(OverLimit, match="2 at once"):
                await metering.begin("c", terms, estimate=10)
        assert (2, 20) == (used(mesh, requests.key), used(mesh, tokens.key))
        await metering.stop("a")
        await metering.end("a", tokens=1)
        with pytest.raises(OverLimit, match="100/minute"):
            await metering.begin("d", terms, estimate=1000)
        await metering.begin("e", terms, estimate=10)
        await metering.end("b", tokens=1)
        await metering.end("e", tokens=1)
        assert (3, 3) == (used(mesh, requests.key), used(mesh, tokens.key))
        for term in parallel:  # nobody has one any more
            free = [await client.acquire_slot(term.key, limit=term.units) for _ in range(4)]
            assert term.units == sum(slot.allowed for slot in free)

    run(case)


def test_the_oldest_of_too_many_calls_is_taken_for_over() -> None:
    """Its slot is another's then, and not held until its lease ends; its end changes nothing."""

    async def case(mesh: MeshRuntime, client: AsyncMeshClient) -> None:
        metering = Metering(client, is_open=False, calls_max=2)
        tokens = Term("100/minute:litellm:tokens:key:k1", units=100, is_tokens=True)
        parallel = Term("litellm:parallel:key:k1", units=3, is_parallel=True)
        for call in "abcdef":
            await metering.begin(call, [tokens, parallel], estimate=10)
        assert 60 == used(mesh, tokens.key)
        await metering.end("a", tokens=1)
        assert 60 == used(mesh, tokens.key)
        for call in "ef":
            await metering.end(call, tokens=1)
        assert 42 == used(mesh, tokens.key)
        free = [await client.acquire_slot(parallel.key, limit=3) for _ in range(4)]
        assert 3 == sum(slot.allowed for slot in free)

    run(case)


def test_calls_of_one_name_are_so_many_calls() -> None:
    """A caller names its calls as it likes: each has a slot until one of that name ends."""

    async def case(mesh: MeshRuntime, client: AsyncMeshClient) -> None:
        metering = Metering(client, is_open=False)
        tokens = Term("100/minute:litellm:tokens:key:k1", units=100, is_tokens=True)
        parallel = Term("litellm:parallel:key:k1", units=2, is_parallel=True)
        terms = [tokens, parallel]
        for _ in range(2):
            await metering.begin("same", terms, estimate=10)
        with pytest.raises(OverLimit, match="2 at once"):
            await metering.begin("same", terms, estimate=10)
        await metering.stop("same")
        await metering.begin("other", terms, estimate=10)
        with pytest.raises(OverLimit, match="2 at once"):
            await metering.begin("same", terms, estimate=10)
        for _ in range(3):
            await metering.end("same", tokens=4)
        assert 18 == used(mesh, tokens.key)
        free = [await client.acquire_slot(parallel.key, limit=2) for _ in range(3)]
        assert 1 == sum(slot.allowed for slot in free)

    run(case)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_node_that_is_not_there_lets_calls_pass_or_refuses_them(is_open: bool) -> None:
    """As set; a limit of nothing is refused without asking."""

    async def case() -> None:
        async with AsyncMeshClient("http://127.0.0.1:1", timeout_s=0.5) as client:
            metering = Metering(client, is_open=is_open)
            terms = [Term("k", units=2)]
            if is_open:
                await metering.begin("a", terms, estimate=1)
            else:
                with pytest.raises(UnreachableError):
                    await metering.begin("a", terms, estimate=1)
            with pytest.raises(OverLimit):
                await metering.begin("a", [Term("k", units=0)], estimate=1)
            await metering.end("a", tokens=1)
            routing = DeploymentRouting(client, rng=random.Random(1))
            deployments = [{"model_info": {"id": name}} for name in "ab"]
            assert await routing.choose("m", "text", deployments, call_id="a") in deployments

    asyncio.run(case())


def test_a_conversation_stays_with_its_deployment() -> None:
    """Each deployment is a worker, and counts as busy until the call has ended."""

    async def case(mesh: MeshRuntime, client: AsyncMeshClient) -> None:
        mesh.sync.sync_policy_state("m", policy_type="cache_aware", config="{}")
        routing = DeploymentRouting(client)
        deployments = [{"model_info": {"id": name}, "litellm_params": {}} for name in "abcd"]
        text = "a prompt that is long enough to be worth a place in a cache. " * 20
        first = await routing.choose("m", text, deployments, call_id="1")
        await routing.end("1")
        await routing.end("1")
        for number in range(3):
            again = await routing.choose("m", text + str(number), deployments, call_id="2")
            assert again is first
        # Of three attempts of one call the last is under way.
        assert {first["model_info"]["id"]: 1} == dict(mesh.sync.load.counts)
        await routing.end("2")
        assert {} == dict(mesh.sync.load.counts)

    run(case)


def test_the_oldest_of_too_many_routed_calls_is_taken_for_over() -> None:
    """Its worker is not taken for busier than it is, for as long as the proxy lives."""

    async def case(mesh: MeshRuntime, client: AsyncMeshClient) -> None:
        routing = DeploymentRouting(client, calls_max=2)
        deployments = [{"model_info": {"id": name}, "litellm_params": {}} for name in "ab"]
        # From its first end on a router's requests count: before, nobody may be there to end them.
        await routing.choose("m", "a prompt", deployments, call_id="0")
        await routing.end("0")
        for call in "1234":
            await routing.choose("m", f"prompt {call}", deployments, call_id=call)
        assert 2 == sum(mesh.sync.load.counts.values())
        for call in "34":
            await routing.end(call)
        assert {} == dict(mesh.sync.load.counts)

    run(case)


def test_a_stream_is_in_flight_until_its_end_or_until_its_caller_goes() -> None:
    """Its slot likewise; LiteLLM says nothing of one that breaks off, and its parts just pass."""
    slot = Term("litellm:parallel:key:k1", units=1, is_parallel=True)

    async def parts() -> AsyncIterator[str]:
        for part in "abc":
            yield part

    async def case(mesh: MeshRuntime, client: AsyncMeshClient) -> None:
        mesh.sync.sync_policy_state("m", policy_type="cache_aware", config="{}")
        hooks = _Hooks()
        hooks.routing = DeploymentRouting(client)
        hooks.metering = Metering(client, is_open=False)
        deployments = [{"model_info": {"id": name}, "litellm_params": {}} for name in "ab"]
        # From its first end on a router's requests count: before, nobody may be there to end them.
        await hooks.routing.choose("m", "a prompt " * 50, deployments, call_id="0")
        await hooks.routing.end("0")
        for wanted in (3, 1):
            await hooks.routing.choose("m", "a prompt " * 50, deployments, call_id="1")
            data = {"litellm_call_id": "1"}
            await hooks.metering.begin("1", [slot], estimate=1)
            stream = hooks.async_post_call_streaming_iterator_hook(None, parts(), data)
            passed = []
            async for part in stream:
                assert 1 == sum(mesh.sync.load.counts.values())
                passed.append(part)
                if len(passed) == wanted:
                    break
            await stream.aclose()  # type: ignore[attr-defined]
            assert list("abc")[:wanted] == passed
            assert {} == dict(mesh.sync.load.counts)

    run(case)
