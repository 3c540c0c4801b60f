"""A program joins a cluster of `meshlib-server`: it is a node like the others, without a server.

The server carries gossip over WebSockets on the port of its API. `WebSocketTransport` does the same
with a port of its own, so a router in Python shares limits, workers and trees with servers that
routers in other languages ask over HTTP. Needs the extras `server` and `websocket`.

Run: python examples/join_server_cluster.py
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import tempfile
import urllib.request
from pathlib import Path

from meshlib import GossipConfig, MeshConfig, MeshRuntime
from meshlib.aio import WebSocketTransport

TOKEN, PEER_TOKEN = secrets.token_urlsafe(), secrets.token_urlsafe()


def free_address() -> str:
    """Return an address of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"


def server(address: str, folder: Path) -> list[str]:
    """Return the command of one server; its tokens are in files, as they should be."""
    for name, token in (("tokens", TOKEN), ("peer_token", PEER_TOKEN)):
        (folder / name).write_text(token)
        (folder / name).chmod(0o600)
    return [
        *(sys.executable, "-m", "meshlib_server", "serve", "--name", "server-1"),
        *("--listen", address, "--gossip-profile", "local"),
        *("--token-file", str(folder / "tokens")),
        *("--peer-token-file", str(folder / "peer_token")),
    ]


async def listening(address: str) -> None:
    """Wait until somebody listens at an address."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def ask(address: str, path: str, body: object = None) -> dict[str, object]:
    """Ask the server, as any program could."""
    request = urllib.request.Request(
        f"http://{address}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    answer = await asyncio.to_thread(lambda: urllib.request.urlopen(request).read())  # noqa: S310
    said: dict[str, object] = json.loads(answer)
    return said


async def main() -> None:
    """Join, write here and read there, and the other way round."""
    address = free_address()
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *server(address, Path(folder)), stderr=asyncio.subprocess.DEVNULL
        )
        mesh = MeshRuntime(
            MeshConfig(name="router-1", gossip=GossipConfig.local()),
            transport=WebSocketTransport("127.0.0.1:0", token=PEER_TOKEN),
            seeds=[address],
        )
        try:
            await listening(address)
            async with mesh:
                await talk(mesh, address)
        finally:
            process.terminate()
            await process.wait()


async def talk(mesh: MeshRuntime, address: str) -> None:
    """Be one cluster."""
    await mesh.wait_ready(timeout_s=30)
    await mesh.wait_until(lambda: len(mesh.members()) == 2, timeout_s=30)
    print("members:", {member.name: str(member.status) for member in mesh.members()})

    receipt = mesh.sync.sync_worker_state(
        "worker-1", model_id="llama-3", url="http://worker-1:8000", health=True, load=0.0
    )
    await mesh.wait_converged(receipt, peer_count=1, timeout_s=10)
    chosen = await ask(address, "/mesh/route/llama-3", {"text": "Hello world", "session": "s"})
    print("the server routes to:", chosen["worker_id"])
    assert chosen["worker_id"] == "worker-1"

    await mesh.wait_until(
        lambda: mesh.sync.match_tree("llama-3", "Hello world").matched == 11, timeout_s=10
    )
    decision = mesh.route("llama-3", "Something else", session="s")
    print("and so does this program, for the session:", decision.reason)
    assert decision.reason == "session"


if __name__ == "__main__":
    asyncio.run(main())
