# pyright: strict
"""What a user of the library writes, as type checkers see it: nothing here is `Any`.

`test_front.py` has pyright read this file in strict mode, and runs it.
"""

from __future__ import annotations

import asyncio
from typing import assert_type

from meshlib import (
    ConsistentHashRing,
    Decision,
    Diagnosis,
    Document,
    EventStream,
    GossipConfig,
    Health,
    MemberDown,
    MemberJoined,
    MemberRecord,
    MemoryNetwork,
    MeshConfig,
    MeshRuntime,
    NotReadyError,
    RateLimitConfig,
    RateLimitStats,
    RouteDecision,
    WorkerState,
    WriteReceipt,
    __version__,
)
from meshlib.crdt import GCounter, LWWMap, ORMap, ORSet, PNCounter, Record, lattice
from meshlib.routing import RouteReason
from meshlib.state import PolicyState


@lattice(name="user-code.profile")
class Profile(Record):
    """A record of one's own: its fields are lattices."""

    visits: GCounter = GCounter()
    tags: ORSet[str] = ORSet()


async def use(mesh: MeshRuntime) -> None:
    """Use documents, decisions, limits, stores and members."""
    tags: Document[ORSet[str]] = mesh.document("tags", ORSet)
    receipt = tags.write(lambda state, w: state.add("x", dot=w.dot()))
    assert_type(receipt, WriteReceipt)
    assert_type(tags.state, ORSet[str])
    assert_type(tags.state.value, frozenset[str])
    assert "x" in tags.state

    balance = mesh.document("balance", PNCounter)
    balance.write(lambda state, w: state.increment(3, by=w.actor))
    assert_type(balance.state.value, int)

    settings: Document[LWWMap[str, int]] = mesh.document("settings", LWWMap)
    settings.write(lambda state, w: state.set("a", 1, stamp=w.stamp(), sequence=w.sequence))
    assert_type(settings.state.get("a"), int | None)

    profile = mesh.document("profile", Profile)
    profile.write(lambda state, w: Profile(visits=state.visits.increment(by=w.actor)))
    profile.write(
        lambda state, w: (
            Profile(tags=state.tags.add("x", dot=w.dot(state.tags)))
            | Profile(visits=state.visits.increment(by=w.actor))
        )
    )
    assert_type(profile.state.visits.value, int)

    by_user: Document[ORMap[str, PNCounter]] = mesh.document("by user", ORMap.of(PNCounter))
    assert_type(by_user.state.get("ann"), PNCounter | None)

    mesh.sync.set_global_rate_limit(100)
    mesh.limits.set("user:ann", 5)
    decision = mesh.acquire("user:ann", cost=2)
    assert_type(decision, Decision)
    assert_type(decision.allowed, bool)
    assert_type(await mesh.acquire_confirmed("user:ann", timeout_s=0.2), Decision)
    assert_type(decision.confirmed, bool)
    assert_type(decision.retry_after_s, float)
    assert_type(mesh.rate_limit_stats("user:ann"), RateLimitStats)

    mesh.sync.sync_worker_state(
        "worker-1", model_id="llama-3", url="http://worker-1", health=True, load=0.0
    )
    assert_type(mesh.sync.get_worker_state("worker-1"), WorkerState | None)
    assert_type(mesh.sync.get_all_policy_states(), list[PolicyState])
    chosen = mesh.route("llama-3", "The quick brown fox")
    assert_type(chosen, RouteDecision)
    assert_type(chosen.worker_id, str | None)
    assert_type(chosen.reason, RouteReason)
    assert_type(mesh.members(), tuple[MemberRecord, ...])
    assert_type(mesh.health(), Health)
    assert_type(mesh.diagnose(), Diagnosis)
    await mesh.wait_converged(receipt)

    def in_a_thread() -> None:
        assert_type(mesh.call(mesh.acquire, "user:ann", cost=1), Decision)
        assert_type(mesh.call(lambda: tags.state.value), frozenset[str])

    await asyncio.to_thread(in_a_thread)


async def listen(events: EventStream) -> None:
    """Hear of members until the runtime ends."""
    async for event in events:
        if isinstance(event, MemberJoined | MemberDown):
            assert_type(event.member, MemberRecord)
            assert_type(event.member.name, str)


async def main() -> None:
    """Run one node in memory."""
    config = MeshConfig(
        name="router-1",
        gossip=GossipConfig.of("local"),
        rate_limit=RateLimitConfig(),
    )
    transport = MemoryNetwork().transport("router-1:1")
    async with MeshRuntime(config, transport=transport, seeds=["router-1:1"]) as mesh:
        try:
            await mesh.wait_ready(timeout_s=5)
        except NotReadyError as error:
            assert_type(error.story, tuple[str, ...])
            raise
        listening = asyncio.create_task(listen(mesh.events()))
        await use(mesh)
    await listening
    assert_type(ConsistentHashRing(["a", "b"]).owner("key"), str)
    assert_type(__version__, str)


if __name__ == "__main__":
    asyncio.run(main())
