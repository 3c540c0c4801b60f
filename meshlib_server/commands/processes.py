"""Nodes of this very program as processes of this machine: for the demonstration and tests.

Rule: a process is ended by its own id, and tokens are only in files that nobody else may read.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from attrs import define

__all__ = ["MODEL", "STOP_TIMEOUT_S", "Node", "StepFailed", "free_ports", "make_nodes"]

MODEL: Final = "llama-3"
"""The model whose policy the first node's configuration brings along."""

STOP_TIMEOUT_S: Final = 5.0


class StepFailed(Exception):  # noqa: N818 - reads as what happened
    """A step did not see what it should have."""


@define
class Node:
    """One node of the demonstration, and the process that runs it.

    Args:
        name: the node's name.
        port: where it listens.
        token: what its endpoints ask for.
        config: its configuration file.
        log: where its process writes.
        host: the address that it listens on.
        launcher: the command, with its arguments, that the process is started by; it has to
            become the process. Empty: none.
    """

    name: str
    port: int
    token: str
    config: Path
    log: Path
    host: str = "127.0.0.1"
    launcher: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where its endpoints are."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start the process, in a session of its own so that it can outlive this one."""
        serve = [sys.executable, "-m", "meshlib_server", "serve", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - this very program
                [*self.launcher, *serve],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={key: value for key, value in os.environ.items() if key[:5] != "MESH_"},
            )

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make one request and return the status and the decoded answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def get(self, path: str) -> Any:
        """Get a path; None when the node does not answer it with 200."""
        try:
            status, answer = self.call("GET", path)
        except (OSError, http.client.HTTPException):
            return None
        return answer if status == 200 else None

    def do(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        """Make a request that must be answered with one status."""
        status, answer = self.call(method, path, body)
        if status != expect:
            raise StepFailed(f"{self.name} answered {method} {path} with {status}: {answer}")
        return answer

    def wait(self, timeout_s: float) -> int:
        """Wait for the process to end and return its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"{self.name} did not end within {timeout_s} s") from None

    def stop(self) -> None:
        """End the process for certain, gracefully when it can be."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, on loopback."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def make_nodes(
    directory: Path, count: int = 3, *, settings: Mapping[str, object] | None = None
) -> list[Node]:
    """Make up the tokens, write the configuration files, and return the nodes, not started.

    Args:
        directory: where the files are put.
        count: how many nodes, each of which is told of all others.
        settings: further settings of the `mesh` section, the same for all.
    """
    token = secrets.token_urlsafe(24)
    for name, secret in (("tokens", token), ("peer-tokens", secrets.token_urlsafe(24))):
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(secret + "\n")
    ports = free_ports(count)
    nodes = []
    for index, port in enumerate(ports):
        name = f"node{index + 1}"
        tree: dict[str, Any] = {
            "mesh": {
                "enabled": True,
                "self_name": name,
                "self_addr": f"127.0.0.1:{port}",
                "init_peer": [f"127.0.0.1:{other}" for other in ports if other != port],
                # They start together, and on one machine nobody else is to be waited for.
                "gossip": {"bootstrap_after_s": 1.0},
                "auth": {
                    "tokens_file": str(directory / "tokens"),
                    "peer_token_file": str(directory / "peer-tokens"),
                },
                **(settings or {}),
            }
        }
        if index == 0:
            policy = {"type": "cache_aware", "config": {"cache_threshold": 0.7}}
            tree["models"] = [{"model_id": MODEL, "policy": policy}]
        config = directory / f"{name}.yaml"
        config.write_text(yaml.safe_dump(tree, sort_keys=False))
        nodes.append(
            Node(name=name, port=port, token=token, config=config, log=directory / f"{name}.log")
        )
    return nodes
