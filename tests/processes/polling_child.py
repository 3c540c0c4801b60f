"""One router with a poller in a process of its own, told what to do by lines on standard input.

Not a test: the tests beside it start this file. Each line of input gets one line of answer: what it
knows of the worker.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx2

from meshlib.aio import MeshRuntime, TcpTransport
from meshlib.gossip import GossipConfig
from meshlib.node import MeshConfig
from meshlib_server.adapters.engines import EnginePoller


async def main(name: str, url: str, *seeds: str) -> None:
    """Run a router until the input ends."""
    runtime = MeshRuntime(
        MeshConfig(name=name, address="127.0.0.1:0", gossip=GossipConfig.lan()),
        transport=TcpTransport("127.0.0.1:0", token="a token"),
        seeds=seeds,
    )
    async with runtime, httpx2.AsyncClient(headers={"X-Router": name}) as client:
        await runtime.wait_ready(20)
        poller = EnginePoller(runtime, client, {"w1": url}, model_id="m")
        polling = asyncio.create_task(poller.run())
        print(json.dumps(runtime.transport.address), flush=True)
        lines = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(lines)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while await lines.readline():
            worker = runtime.sync.get_worker_state("w1")
            known = None if worker is None else [worker.health, worker.load]
            print(json.dumps([len(runtime.members()), known]), flush=True)
        polling.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
