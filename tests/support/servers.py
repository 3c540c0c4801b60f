"""Real processes over real sockets: nodes that the conformance tests talk to."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import httpx2
from attrs import define, field

TOKEN = "operator-token-1"
OTHER_TOKEN = "operator-token-2"
PEER_TOKEN = "peer-token-1"
DEADLINE_S = 30.0


@define
class Node:
    """One `meshlib-server serve` process and a client that talks to it."""

    name: str
    port: int
    log: Path
    arguments: list[str]
    environment: dict[str, str]
    client: httpx2.Client
    process: subprocess.Popen[bytes] | None = None
    launcher: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where the node listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def started(self) -> subprocess.Popen[bytes]:
        """The process, once there is one."""
        assert self.process is not None
        return self.process

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.spawn()
        self.await_answer()

    def spawn(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, sys.executable, "-m", "meshlib_server", "serve", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    def await_answer(self) -> None:
        """Wait until the process answers."""
        process = self.process
        assert process is not None

        def answers() -> bool:
            assert process.poll() is None, f"{self.name} ended: {self.log.read_text()}"
            with contextlib.suppress(httpx2.TransportError):
                self.client.get("/mesh/health")
                return True
            return False

        eventually(answers, f"{self.name} answers")

    def get(self, path: str, *, status: int = 200) -> Any:
        """Get a path that must be answered with one status, and return what came."""
        return self.request("GET", path, status=status)

    def request(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """Make a request that must be answered with one status, and return what came."""
        response = self.client.request(method, path, json=body) if body is not None else (
            self.client.request(method, path)
        )  # fmt: skip
        assert status == response.status_code, response.text
        assert "application/json" == response.headers["content-type"]
        return response.json()

    def statuses(self) -> dict[str, str]:
        """Return the status of each member as this node sees it."""
        return {item["name"]: item["status"] for item in self.get("/mesh/status")["nodes"]}

    def is_ready(self) -> bool:
        """Tell whether the node says that it is ready."""
        return bool(self.client.get("/readyz").status_code == 200)

    def kill(self) -> None:
        """End the process at once, without a word to anyone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the process for certain."""
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log_of_its_life(self) -> list[dict[str, Any]]:
        """End the process, and return all that it logged.

        It logs from a thread of its own: what a living one has said may still be on its way.
        """
        self.stop()
        return self.log_lines()

    def log_lines(self) -> list[dict[str, Any]]:
        """Return what the process has logged by now, decoded."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def eventually(is_so: Callable[[], bool], what: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Wait until something is so; fail when it is not by the deadline."""
    ends_at = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < ends_at, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)


@define
class Launcher:
    """Makes nodes, and stops them all in the end."""

    directory: Path
    nodes: list[Node] = field(factory=list)

    def free_ports(self, count: int) -> list[int]:
        """Return ports of loopback that were free a moment ago."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for sock in sockets:
                sock.bind(("127.0.0.1", 0))
            return [sock.getsockname()[1] for sock in sockets]

    def node(
        self,
        name: str,
        *,
        port: int | None = None,
        peers: list[int] | None = None,
        config: str | None = None,
        arguments: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> Node:
        """Make a node, not started."""
        port = port or self.free_ports(1)[0]
        given = ["--name", name, "--listen", f"127.0.0.1:{port}"]
        for peer in peers or []:
            given += ["--peer", f"127.0.0.1:{peer}"]
        if config is not None:
            path = self.directory / f"{name}-{port}.yaml"
            path.write_text(config)
            given += ["--config", str(path)]
        variables = {
            "MESH_TOKENS": f"{TOKEN},{OTHER_TOKEN}",
            "MESH_PEER_TOKEN": PEER_TOKEN,
            "MESH_GOSSIP_BOOTSTRAP_AFTER_S": "1",  # nodes start together here
            "MESH_GOSSIP_BOOTSTRAP_LISTEN_S": "0",  # nobody knows a node from before
            "MESH_HTTP_GRACE_S": "0",  # nobody balances load here
            **(environment or {}),
        }
        inherited = {key: text for key, text in os.environ.items() if key[:5] != "MESH_"}
        node = Node(
            name=name,
            port=port,
            log=self.directory / f"{name}-{port}.log",
            arguments=given + (arguments or []),
            environment={**inherited, **variables},
            client=httpx2.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=10.0,
                trust_env=False,
                verify=False,  # no TLS here, and no certificates to load
            ),
        )
        self.nodes.append(node)
        return node

    def cluster(
        self,
        *names: str,
        config: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> list[Node]:
        """Start nodes that know each other, and wait until all see all Alive."""
        ports = self.free_ports(len(names))
        nodes = [
            self.node(
                name,
                port=port,
                peers=[other for other in ports if other != port],
                config=config,
                environment=environment,
            )
            for name, port in zip(names, ports, strict=True)
        ]
        for node in nodes:
            node.spawn()
        for node in nodes:
            node.await_answer()
        for node in nodes:
            eventually(
                partial(lambda n: n.statuses() == dict.fromkeys(names, "Alive"), node), "they join"
            )
            eventually(node.is_ready, "they are ready")
        return nodes

    def stop(self) -> None:
        """Stop every node made."""
        for node in self.nodes:
            node.stop()


def agree(nodes: list[Node], path: str, expected: Any) -> None:
    """Wait until every node answers a path with 200 and the same, expected body."""
    for node in nodes:

        def answers(node: Node = node) -> bool:
            response = node.client.get(path)
            return bool(response.status_code == 200 and response.json() == expected)

        eventually(answers, f"{node.name} answers {path} with {expected}")


class Eventually(Protocol):
    """Waits until something is so, as `eventually` does."""

    def __call__(
        self, is_so: Callable[[], bool], what: str, *, deadline_s: float = DEADLINE_S
    ) -> None: ...


class Agree(Protocol):
    """Waits until nodes answer a path alike, as `agree` does."""

    def __call__(self, nodes: list[Node], path: str, expected: Any) -> None: ...
