"""A prompt placed by one router is followed by another, and by one that joins later.

Run: python examples/tree_follows.py
"""

from __future__ import annotations

import asyncio

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime

MODEL = "llama-3"
PROMPT = "You are a helpful assistant. Summarise the following report in three sentences: "


def router(network: MemoryNetwork, name: str) -> MeshRuntime:
    """Make a node that joins through the first router."""
    return MeshRuntime(
        MeshConfig(name=name),
        transport=network.transport(f"{name}:1"),
        seeds=["router-1:1"],
    )


async def main() -> None:
    """Place on one node, follow on a second, restore on a third, forget with the worker."""
    network = MemoryNetwork()
    first, second, third = (router(network, f"router-{number}") for number in (1, 2, 3))
    async with first, second:
        await second.wait_ready()
        for index in range(4):
            first.sync.sync_worker_state(
                f"worker-{index}",
                model_id=MODEL,
                url=f"http://worker-{index}:8000",
                health=True,
                load=0.0,
            )
        placed = first.route(MODEL, PROMPT + "sales")
        print(f"router-1 places it: {placed.worker_id} ({placed.reason})")

        tree = second.sync
        await second.wait_until(lambda: tree.match_tree(MODEL, PROMPT).matched == len(PROMPT))
        followed = second.route(MODEL, PROMPT + "costs")
        print(f"router-2 follows:   {followed.worker_id} ({followed.reason})")
        assert followed.worker_id == placed.worker_id

        async with third:
            await third.wait_ready()
            restored = third.route(MODEL, PROMPT + "staff")
            print(f"router-3 joins:     {restored.worker_id} ({restored.reason})")
            assert restored.worker_id == placed.worker_id

            assert placed.worker_id is not None
            first.sync.remove_worker_state(placed.worker_id)
            workers = third.sync
            await third.wait_until(lambda: len(workers.get_all_worker_states()) == 3)
            moved = third.route(MODEL, PROMPT + "plans")
            print(f"the worker is gone: {moved.worker_id} ({moved.reason})")
            assert moved.worker_id != placed.worker_id


if __name__ == "__main__":
    asyncio.run(main())
