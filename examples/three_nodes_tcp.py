"""Three nodes over TCP with a shared token; one is cut off, found out, and comes back.

Here they share a process to make one file of it; over a network nothing would change but the
addresses.

Run: python examples/three_nodes_tcp.py
"""

from __future__ import annotations

import asyncio
import secrets

from meshlib import GossipConfig, MeshConfig, MeshRuntime, TcpTransport

TOKEN = secrets.token_urlsafe()


def node(name: str, *seeds: str, listen: str = "127.0.0.1:0") -> MeshRuntime:
    """Make a node; port 0 takes a free one, and what peers are told is the port it took."""
    return MeshRuntime(
        MeshConfig(name=name, gossip=GossipConfig.local()),
        transport=TcpTransport(listen, token=TOKEN),
        seeds=seeds,
    )


async def see_all(runtime: MeshRuntime) -> None:
    """Wait until a node knows all three."""
    await runtime.wait_until(lambda: len(statuses(runtime)) == 3, timeout_s=10)


def statuses(runtime: MeshRuntime) -> dict[str, str]:
    """Return how a node sees the others and itself."""
    return {member.name: str(member.status) for member in runtime.members()}


async def main() -> None:
    """Join, write, lose a node without a goodbye, and get it back with everything."""
    one = node("one")
    await one.start()
    two, three = node("two", one.transport.address), node("three", one.transport.address)
    for runtime in (two, three):
        await runtime.start()
        await runtime.wait_ready()
    for runtime in (one, two, three):
        await see_all(runtime)
    print("joined:      ", statuses(one))

    three.sync.sync_worker_state(
        "worker-1", model_id="llama-3", url="http://worker-1:8000", health=True, load=0.5
    )
    workers = one.sync
    await one.wait_until(lambda: workers.get_worker_state("worker-1") is not None, timeout_s=10)
    print("one knows:   ", workers.get_worker_state("worker-1"))

    address = three.transport.address
    await three.abort()
    await one.wait_until(lambda: statuses(one)["three"] == "Down", timeout_s=20)
    print("three is cut:", statuses(one))
    workers.sync_worker_state(
        "worker-2", model_id="llama-3", url="http://worker-2:8000", health=True, load=0.1
    )

    back = node("three", one.transport.address, listen=address)
    await back.start()
    await back.wait_ready()
    known = [worker.worker_id for worker in back.sync.get_all_worker_states()]
    print("three again: ", known)
    assert known == ["worker-1", "worker-2"]
    await two.wait_until(lambda: statuses(two)["three"] == "Alive", timeout_s=10)

    await back.stop()
    await one.wait_until(lambda: statuses(one)["three"] == "Leaving", timeout_s=10)
    print("three leaves:", statuses(one))
    await two.stop()
    await one.stop()


if __name__ == "__main__":
    asyncio.run(main())
