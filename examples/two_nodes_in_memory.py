"""Two nodes in one process share state: no server, no socket, no store.

Run: python examples/two_nodes_in_memory.py
"""

from __future__ import annotations

import asyncio

from meshlib import Document, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.crdt import ORSet


async def main() -> None:
    """Write on either side of a network, cut it, write on, and heal it."""
    network = MemoryNetwork()
    one, two = (
        MeshRuntime(
            MeshConfig(name=name), transport=network.transport(f"{name}:1"), seeds=["one:1"]
        )
        for name in ("one", "two")
    )
    async with one, two:
        await two.wait_ready()
        print("members:", ", ".join(member.name for member in two.members()))

        mine: Document[ORSet[str]] = one.document("tags", ORSet)
        yours: Document[ORSet[str]] = two.document("tags", ORSet)
        mine.write(lambda state, w: state.add("hello", dot=w.dot()))
        await two.wait_until(lambda: "hello" in yours.state)
        print("two reads what one wrote:", *yours.state)

        network.partition({"one:1"}, {"two:1"})
        mine.write(lambda state, w: state.add("written by one", dot=w.dot()))
        yours.write(lambda state, w: state.add("written by two", dot=w.dot()))
        yours.write(lambda state, _: state.remove("hello"))
        await two.wait_until(lambda: network.frames_lost >= 2)
        assert "written by one" not in yours.state
        network.heal()

        both = {"written by one", "written by two"}
        await one.wait_until(lambda: mine.state.value == both)
        await two.wait_until(lambda: yours.state.value == both)
        print("both, after the cut:", ", ".join(yours.state))

        receipt = two.sync.set_config("greeting", b"bye")
        await two.wait_converged(receipt)
        assert one.sync.get_config("greeting") == b"bye"
        print("two knows that one has its last write")


if __name__ == "__main__":
    asyncio.run(main())
