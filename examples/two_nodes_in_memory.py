"""Two nodes in one process share state: no server, no socket, no store.

Run: python examples/two_nodes_in_memory.py
"""

from __future__ import annotations

import asyncio

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import MemoryNetwork


async def main() -> None:
    """Write on either side of a network, cut it, write on, and heal it."""
    network = MemoryNetwork()
    one, two = (
        MeshRuntime(
            MeshConfig(name=name, address=f"{name}:1"),
            transport=network.transport(f"{name}:1"),
            seeds=["one:1"],
        )
        for name in ("one", "two")
    )
    async with one, two:
        await two.wait_ready()
        print("members:", ", ".join(member.name for member in two.node.members()))

        one.node.sync.app.set("greeting", b"hello")
        await two.wait_until(lambda: two.node.sync.app.get("greeting") == b"hello")
        print("two reads what one wrote:", two.node.sync.app.get("greeting"))

        network.partition({"one:1"}, {"two:1"})
        one.node.sync.app.set("written by one", b"1")
        two.node.sync.app.set("written by two", b"2")
        await two.wait_until(lambda: network.frames_lost >= 2)
        assert two.node.sync.app.get("written by one") is None
        network.heal()

        everything = ["greeting", "written by one", "written by two"]
        await one.wait_until(lambda: one.node.sync.app.keys() == everything)
        await two.wait_until(lambda: two.node.sync.app.keys() == everything)
        print("both, after the cut: ", two.node.sync.app.keys())

        receipt = two.node.sync.app.set("greeting", b"bye")
        await two.wait_converged(receipt)
        assert one.node.sync.app.get("greeting") == b"bye"
        print("two knows that one has its last write")


if __name__ == "__main__":
    asyncio.run(main())
