"""One node in a process of its own, told what to do by JSON lines on its standard input.

Not a test: the tests beside it start this file. Each line of input gets one line of answer. With
`NEXT_RELEASE` in its environment it speaks what the next release speaks.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from meshlib.aio import MeshRuntime, SnapshotFile, TcpTransport
from meshlib.crdt import LWWMap
from meshlib.gossip import GossipConfig
from meshlib.limits import FORMATS
from meshlib.node import MeshConfig
from meshlib.testing.world.next_format import NEXT_FORMATS


def put(runtime: MeshRuntime, key: str, value: Any) -> None:
    """Write one key of the document "app"."""
    replica = runtime.node.replica
    replica.open("app", type_tag="lww_map")
    replica.write(
        "app",
        lambda state, context: state.set(
            key, value, stamp=context.stamp(), sequence=context.sequence
        ),
    )
    runtime.wake()


def content(runtime: MeshRuntime) -> dict[str, Any]:
    """Return the document "app"."""
    replica = runtime.node.replica
    state = replica.get("app") if "app" in replica.documents() else LWWMap()
    assert isinstance(state, LWWMap)
    return {str(key): state.get(key) for key in state.keys()}  # noqa: SIM118 - no dict


def answer(runtime: MeshRuntime, order: dict[str, Any]) -> Any:
    """Do what one line asks for."""
    if "put" in order:
        for key, value in order["put"].items():
            put(runtime, key, value)
        return True
    if "fill" in order:
        count, size = order["fill"]
        for number in range(count):
            put(runtime, f"key-{number}", "x" * size)
        return True
    if "count" in order:
        return len(content(runtime))
    if "formats" in order:
        return runtime.node.format_spoken
    if "problems" in order:
        return runtime.node.health().problems
    if "members" in order:
        return {member.name: str(member.status) for member in runtime.node.members()}
    return content(runtime)


async def take_slots(runtime: MeshRuntime, key: str, limit: int, count: int, wait_s: float) -> int:
    """Take slots of a key, which are never given back; return how many an owner granted."""
    tickets = [await runtime.acquire_slot(key, limit=limit, timeout_s=wait_s) for _ in range(count)]
    decisions = [ticket.decision for ticket in tickets]
    return sum(
        decision is not None and decision.allowed and decision.confirmed for decision in decisions
    )


async def main(name: str, listen: str, file: str, *seeds: str) -> None:
    """Run a node until the input ends or says `leave`; `file` may be empty."""
    runtime = MeshRuntime(
        MeshConfig(
            name=name,
            address="127.0.0.1:0",
            gossip=GossipConfig.local(),
            formats=NEXT_FORMATS if os.environ.get("NEXT_RELEASE") else FORMATS,
        ),
        transport=TcpTransport(listen, token="a token"),
        seeds=seeds,
        snapshots=SnapshotFile(file, interval_s=0.1) if file else None,
    )
    async with runtime:
        await runtime.wait_ready(20)
        print(json.dumps(runtime.transport.address), flush=True)
        lines = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(lines)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await lines.readline():
            order = json.loads(line)
            if "leave" in order:
                break
            if "slots" in order:
                told = await take_slots(runtime, *order["slots"])
            else:
                told = answer(runtime, order)
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
