"""Real processes on real sockets, ended by their id whatever happens."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from meshlib_server.commands.demo import Node


class Cluster:
    """Three nodes as three processes."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @staticmethod
    def wait_until(condition: Callable[[], bool], what: str, *, limit_s: float = 30.0) -> None:
        """Poll until something is so."""
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
            time.sleep(0.02)

    def start(self, node: Node) -> None:
        """Start a node and wait until it answers."""
        node.start()
        self.wait_until(lambda: node.get("/mesh/status") is not None, f"{node.name} answers")

    def await_all_alive(self) -> None:
        """Wait until each node sees all three Alive, and is ready: before, it decides nothing."""
        for node in self.nodes:
            self.wait_until(
                partial(lambda node: self.alive_count(node) == 3, node), f"{node.name} sees 3"
            )
        for node in self.nodes:
            self.wait_until(
                partial(lambda node: node.get("/readyz") is not None, node),
                f"{node.name} is ready",
            )

    @staticmethod
    def alive_count(node: Node) -> int:
        """Return how many members a node sees Alive."""
        answer = node.get("/mesh/status") or {"nodes": []}
        return sum(member["status"] == "Alive" for member in answer["nodes"])

    @staticmethod
    def kill(node: Node) -> None:
        """End a node without a word."""
        assert node.process is not None
        node.process.kill()
        node.process.wait()


class Connection:
    """One kept-alive connection to a node, as a client would hold it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=5)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make one request; raises OSError or HTTPException when the node is gone."""
        headers = {
            "Authorization": f"Bearer {self.node.token}",
            "Content-Type": "application/json",
        }
        try:
            self._connection.request(
                method, path, None if body is None else json.dumps(body), headers
            )
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
