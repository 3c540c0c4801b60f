"""Five real servers, each in a network namespace, and the writes that go on meanwhile.

The network itself is in `lab.py`, beside this file.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib_server.commands.processes import Node
from support.lab import Lab

MODEL = "llama-3"
NODE_COUNT = 5
PORT = 8000
BULK = "bulk-"
"""How the keys begin whose large values are not read again and again."""

ALARMS = frozenset(
    {"StateDiverged", "EntryRejected", "MessageUnsendable", "IdentityStolen", "IdentityRenewed"}
)
"""Events that no fault of a network or a process may bring about in these scenarios."""


def is_alarm(line: dict[str, Any]) -> bool:
    """Tell whether a line of a node's log tells of a defect."""
    return line["message"] in ALARMS or line["level"] not in {"info", "warning"}


class Cluster:
    """Five nodes as five processes, each in a network namespace."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        token = secrets.token_urlsafe(24)
        for name, secret in (("tokens", token), ("peer-tokens", secrets.token_urlsafe(24))):
            path = directory / name
            path.touch(mode=0o600)
            path.write_text(secret + "\n")
        self.nodes = [
            self._make_node(index, directory, token) for index in range(len(lab.addresses))
        ]

    def _make_node(self, index: int, directory: Path, token: str) -> Node:
        name, host = f"node{index + 1}", self.lab.addresses[index]
        mesh = {
            "self_name": name,
            "self_addr": f"{host}:{PORT}",
            "init_peer": [f"{other}:{PORT}" for other in self.lab.addresses if other != host],
            "auth": {
                "tokens_file": str(directory / "tokens"),
                "peer_token_file": str(directory / "peer-tokens"),
            },
        }
        config = directory / f"{name}.yaml"
        config.write_text(yaml.safe_dump({"mesh": mesh}))
        return Node(
            name=name,
            host=host,
            port=PORT,
            token=token,
            config=config,
            log=directory / f"{name}.log",
            launcher=self.lab.launcher(index),
        )

    @staticmethod
    def wait_until(
        condition: Callable[[], bool], what: str | Callable[[], str], *, limit_s: float = 60.0
    ) -> None:
        """Poll until something is so; what is said of a failure may be made when it happens."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {limit_s} s: {what if isinstance(what, str) else what()}")
            time.sleep(0.05)

    def start(self, *nodes: Node) -> None:
        """Start nodes and wait until they answer."""
        for node in nodes:
            node.start()
        for node in nodes:
            self.wait_until(
                partial(lambda node: node.get("/mesh/status") is not None, node),
                f"{node.name} answers",
            )

    @staticmethod
    def kill(node: Node) -> None:
        """End a node without a word."""
        assert node.process is not None
        node.process.kill()
        node.process.wait()

    def kill_all(self) -> None:
        """End every process that is left, stopped ones included."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                self.kill(node)

    # What is seen

    @staticmethod
    def seen(node: Node) -> dict[str, str]:
        """Return the status of each member as a node sees it; empty when it does not answer."""
        answer = node.get("/mesh/status") or {"nodes": []}
        return {member["name"]: member["status"] for member in answer["nodes"]}

    @staticmethod
    def health(node: Node) -> tuple[str, int] | None:
        """Return a node's judgement of its cluster, and how many members it reaches."""
        answer = node.get("/mesh/health")
        return answer and (answer["status"], answer["cluster_size"])

    def await_health(
        self, nodes: Collection[Node], status: str, cluster_size: int, *, limit_s: float = 60.0
    ) -> None:
        """Wait until each node's health is so."""
        for node in nodes:
            self.wait_until(
                partial(lambda node: self.health(node) == (status, cluster_size), node),
                partial(
                    lambda node: (
                        f"{node.name} is {status}, {cluster_size} in reach; it is "
                        f"{self.health(node)} and sees {self.seen(node)}"
                    ),
                    node,
                ),
                limit_s=limit_s,
            )

    def await_all_alive(self, nodes: Collection[Node] | None = None) -> None:
        """Wait until each node sees exactly the given ones, by default all, and all Alive."""
        nodes = self.nodes if nodes is None else nodes
        expected = {node.name: "Alive" for node in nodes}
        for node in nodes:
            self.wait_until(
                partial(lambda node: self.seen(node) == expected, node),
                partial(
                    lambda node: f"{node.name} sees all Alive; it sees {self.seen(node)}", node
                ),
            )

    @staticmethod
    def logged(node: Node) -> list[dict[str, Any]]:
        """Return the lines that a node has logged, of all its starts."""
        whole_lines = node.log.read_text().split("\n")[:-1]  # the last one may be half written
        return [json.loads(line) for line in whole_lines]

    def events(self, node: Node, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind that a node has logged, of all its starts."""
        return [line for line in self.logged(node) if line["message"] == kind]

    @staticmethod
    def content(node: Node) -> dict[str, Any]:
        """Return all that a node answers to the questions that every node answers alike."""
        status = node.do("GET", "/mesh/status")
        tree = node.get(f"/mesh/trees/{MODEL}")
        keys = node.do("GET", "/mesh/config")["keys"]
        return {
            "members": status["nodes"],
            "stores": status["stores"],
            "workers": node.do("GET", "/mesh/workers"),
            "keys": keys,
            "config": {
                key: node.get(f"/mesh/config/{key}") for key in keys if not key.startswith(BULK)
            },
            "tree": tree and (tree["version"], tree["operations"]),
        }

    def await_whole(self, traffic: Traffic) -> None:
        """Wait until the cluster is whole: healthy everywhere, all equal, nothing missing."""
        self.await_all_alive()
        self.await_health(self.nodes, "healthy", len(self.nodes))

        def difference() -> str:
            first, *others = (self.content(node) for node in self.nodes)
            parts = [part for part in first for other in others if other[part] != first[part]]
            if parts:
                return f"not the same everywhere: {sorted(set(parts))}"
            missing = traffic.missing_from(first)
            return f"{len(missing)} writes missing, such as {missing[:3]}" if missing else ""

        self.wait_until(lambda: not difference(), difference)
        for node in self.nodes:
            assert node.do("GET", "/mesh/health")["stores_healthy"] is True
            assert [line for line in self.logged(node) if is_alarm(line)] == []


class Traffic:
    """Writes through all nodes at the same time, and which of them were acknowledged.

    Workers, configuration and tree operations, each of its own key, and one key that all nodes
    write. A node that may refuse or be gone has to be excused: of every other one anything but
    an acknowledgement is a failure.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._excused: set[str] = set()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.failures: list[str] = []
        self.workers: dict[str, float] = {}
        self.config: dict[str, str] = {}
        self.texts: set[tuple[str, str]] = set()

    def write(self, node: Node, number: int) -> None:
        """Make one write of each kind through a node; all of them must be acknowledged."""
        name = f"{node.name}-{number}"
        body = {"model_id": MODEL, "url": f"http://{name}:1", "health": True, "load": number / 8}
        node.do("PUT", f"/mesh/workers/{name}", body)
        self.workers[name] = number / 8
        text = f"prompt {number} by {node.name}"
        insert = {"insert": {"text": text, "tenant": name}}
        node.do("POST", f"/mesh/trees/{MODEL}/operations", {"operations": [insert]})
        self.texts.add((text, name))
        if number % 8 == 0:
            value = name.encode().hex()
            node.do("POST", "/mesh/config", {"key": name, "value": value})
            self.config[name] = value
            node.do("POST", "/mesh/config", {"key": "contended", "value": value})

    @property
    def count(self) -> int:
        """How many writes were acknowledged."""
        return len(self.workers) + len(self.texts) + len(self.config)

    def start(self, nodes: Collection[Node] | None = None, *, pause_s: float = 0.15) -> None:
        """Begin to write through every node at once, or through some."""
        for node in self._nodes if nodes is None else nodes:
            thread = threading.Thread(target=self._write_on, args=(node, pause_s))
            self._threads.append(thread)
            thread.start()

    def _write_on(self, node: Node, pause_s: float) -> None:
        number = 0
        while not self._stopped.wait(pause_s):
            try:
                self.write(node, number)
            except Exception as error:  # noqa: BLE001 - it becomes the failure of the test
                if node.name not in self._excused:
                    self.failures.append(f"{node.name}: {type(error).__name__}: {error}")
                    return
            number += 1

    def excuse(self, node: Node) -> None:
        """Let a node's writes fail from now on: it is about to be stopped."""
        self._excused.add(node.name)

    def await_more(self, count: int) -> None:
        """Wait until so many further writes were acknowledged."""
        target = self.count + count
        Cluster.wait_until(
            lambda: self.count >= target or bool(self.failures), f"{count} more writes"
        )
        assert self.failures == []

    def stop(self) -> None:
        """End the writing; idempotent."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def finish(self) -> None:
        """End the writing, and see that nothing was refused that should not have been."""
        self.stop()
        assert self.failures == []

    def missing_from(self, content: dict[str, Any]) -> list[object]:
        """Return the acknowledged writes that a node's content does not have."""
        workers = {worker["worker_id"]: worker["load"] for worker in content["workers"]}
        operations = content["tree"][1] if content["tree"] else []
        texts = {
            (insert["text"], insert["tenant"]) for op in operations if (insert := op.get("insert"))
        }
        config = content["config"]
        missing: list[object] = [n for n, load in self.workers.items() if workers.get(n) != load]
        missing += self.texts - texts
        missing += [n for n, v in self.config.items() if (config.get(n) or {}).get("value") != v]
        return missing
