"""So many requests at once, on a running node."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from meshlib import (
    InvalidTypeError,
    InvalidValueError,
    MemoryNetwork,
    MeshConfig,
    MeshRuntime,
    NotReadyError,
)
from meshlib.aio import ConcurrencyLimit, LeasedSlots
from meshlib.errors import InvalidFieldError, LimitError, UnknownKeyError

pytestmark = pytest.mark.anyio


def make_mesh(**settings: Any) -> MeshRuntime:
    """Return a node that is not started yet."""
    transport = MemoryNetwork().transport("node:1")
    return MeshRuntime(MeshConfig(name="node"), transport=transport, **settings)


async def test_one_more_than_there_are_is_refused_until_one_is_over() -> None:
    """Each key has slots of its own."""
    async with make_mesh() as mesh:
        parallel = ConcurrencyLimit(mesh, slots=2, name="chat")
        async with await parallel.acquire("ann") as first:
            second = await parallel.acquire("ann")
            assert first
            assert second
            assert second.decision.confirmed
            assert not await parallel.acquire("ann")
            assert await parallel.acquire("bob")
        assert await parallel.acquire("ann")


async def test_who_waits_has_the_slot_that_is_given_back() -> None:
    """In the order in which they came."""
    async with make_mesh() as mesh:
        parallel = ConcurrencyLimit(mesh, slots=1)
        slot = await parallel.acquire("ann")
        waiting = [asyncio.create_task(parallel.acquire("ann", timeout_s=30)) for _ in range(2)]
        await asyncio.sleep(0)
        slot.release()
        slot.release()
        slot = await waiting[0]

        assert slot
        assert not waiting[1].done()
        slot.release()
        assert await waiting[1]


async def test_who_goes_away_while_it_waits_leaves_no_slot_behind() -> None:
    """Neither one that it had not got yet, nor one that it was given at that moment."""
    async with make_mesh() as mesh:
        parallel = ConcurrencyLimit(mesh, slots=1)
        slot = await parallel.acquire("ann")
        waiting = asyncio.create_task(parallel.acquire("ann", timeout_s=30))
        await asyncio.sleep(0)
        slot.release()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        assert await parallel.acquire("ann", timeout_s=5)


async def test_an_error_in_the_block_gives_the_slot_back() -> None:
    """As any other end of it; and the end of the node is no error."""
    async with make_mesh() as mesh:
        parallel = ConcurrencyLimit(mesh, slots=1)
        with pytest.raises(RuntimeError, match="broken"):
            async with await parallel.acquire("ann"):
                raise RuntimeError("broken")
        slot = await parallel.acquire("ann")
        assert slot
    slot.release()


async def test_before_the_node_is_ready_nothing_is_given() -> None:
    """How many are used is not known then."""
    async with make_mesh(seeds=["nobody:1"]) as mesh:
        with pytest.raises(NotReadyError):
            await ConcurrencyLimit(mesh, slots=1).acquire("ann")


async def test_what_cannot_be_a_limit_is_refused() -> None:
    """At once, where it is made."""
    mesh = make_mesh()
    with pytest.raises(InvalidValueError):
        ConcurrencyLimit(mesh, slots=0)
    with pytest.raises(InvalidTypeError):
        ConcurrencyLimit(mesh, slots=1.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        ConcurrencyLimit("mesh", slots=1)  # type: ignore[arg-type]


@pytest.mark.slow
async def test_the_slots_of_a_node_that_crashes_are_free_again() -> None:
    """Three nodes: all slots are held by one, which ends without a word."""
    network = MemoryNetwork()
    names = ["n1", "n2", "n3"]
    meshes = [
        MeshRuntime(
            MeshConfig(name=name),
            transport=network.transport(f"{name}:1"),
            seeds=[] if name == "n1" else ["n1:1"],
        )
        for name in names
    ]
    for mesh in meshes:
        await mesh.start()
    for mesh in meshes:
        await mesh.wait_ready()
    first, second, third = (ConcurrencyLimit(mesh, slots=3) for mesh in meshes)
    assert await third.acquire("ann", timeout_s=30)  # the owner has begun then
    for _ in range(2):
        assert (await third.acquire("ann", timeout_s=30)).decision.confirmed
    refused = await first.acquire("ann")
    assert (False, True) == (refused.decision.allowed, refused.decision.confirmed)

    waiting = [asyncio.create_task(each.acquire("ann", timeout_s=30)) for each in (first, second)]
    await meshes[2].abort()
    slots = await asyncio.gather(*waiting)

    assert all(slot.decision.confirmed for slot in slots)
    for mesh in meshes[:2]:
        await mesh.stop()


async def test_a_leased_slot_is_held_until_it_is_released() -> None:
    """Once; then nobody knows its name any more."""
    async with make_mesh() as mesh:
        slots = LeasedSlots(mesh)
        first = await slots.acquire("ann", limit=1)
        refused = await slots.acquire("ann", limit=1)
        slots.release(first.slot_id)

        assert (True, 30.0) == (bool(first), first.lease_s)
        assert (False, "", 0.0) == (bool(refused), refused.slot_id, refused.lease_s)
        for gone in (first.slot_id, "", "nobody's"):
            with pytest.raises(UnknownKeyError):
                slots.release(gone)
            with pytest.raises(UnknownKeyError):
                slots.renew(gone)
        assert await slots.acquire("ann", limit=1)
        assert 1 == len(slots)


async def test_a_slot_whose_holder_says_nothing_is_free_after_its_lease() -> None:
    """Whoever waits for it has it then, and its name is worth nothing."""
    async with make_mesh() as mesh:
        slots = LeasedSlots(mesh)
        first = await slots.acquire("ann", limit=1, lease_s=0.1)
        second = await slots.acquire("ann", limit=1, timeout_s=60)

        assert second
        assert first.slot_id != second.slot_id
        with pytest.raises(UnknownKeyError):
            slots.renew(first.slot_id)


async def test_a_renewed_slot_is_held_for_its_new_lease() -> None:
    """However long the old one was: longer, and shorter."""
    async with make_mesh() as mesh:
        slots = LeasedSlots(mesh)
        longer = await slots.acquire("ann", limit=2, lease_s=0.1)
        assert 3_600 == slots.renew(longer.slot_id, lease_s=3_600)
        shorter = await slots.acquire("ann", limit=2, lease_s=3_600)
        slots.renew(shorter.slot_id, lease_s=0.15)
        assert await slots.acquire("ann", limit=2, timeout_s=60)

        assert 3_600 == slots.renew(longer.slot_id)


@pytest.mark.parametrize("lease_s", [0, 0.05, 86_401, float("nan"), "30", None, True])
async def test_a_lease_that_cannot_be_is_refused(lease_s: Any) -> None:
    """And no slot is taken, or ends at another time."""
    async with make_mesh() as mesh:
        slots = LeasedSlots(mesh)
        held = await slots.acquire("ann", limit=2)
        with pytest.raises((InvalidTypeError, InvalidFieldError)):
            await slots.acquire("ann", limit=2, lease_s=lease_s)
        if lease_s is not None:
            with pytest.raises((InvalidTypeError, InvalidFieldError)):
                slots.renew(held.slot_id, lease_s=lease_s)
        assert 1 == len(slots)
        assert await slots.acquire("ann", limit=2)


async def test_more_leased_slots_than_a_node_keeps_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those who have waited too; and the slots of the cluster are free for others."""
    monkeypatch.setattr("meshlib.aio.concurrency.leased.SLOT_LEASES_MAX", 2)
    async with make_mesh() as mesh:
        slots = LeasedSlots(mesh)
        first = await slots.acquire("ann", limit=1)
        waiting = asyncio.create_task(slots.acquire("ann", limit=1, timeout_s=60))
        await asyncio.sleep(0)
        for key in ("bob", "cem"):
            with pytest.raises(LimitError) if key == "cem" else contextlib.nullcontext():
                await slots.acquire(key, limit=1)
        mesh.release_slot(slots._leases[first.slot_id].held._ticket)
        with pytest.raises(LimitError):
            await waiting
        ticket = await mesh.acquire_slot("ann", limit=1)
        assert ticket.slot is not None
