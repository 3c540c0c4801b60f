"""Nodes are killed and restarted while clients write: nothing acknowledged is lost."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from support.processes import Cluster

MODEL = "model"


@define
class Writer:
    """Writes configuration, workers and tree operations to one node, and keeps what it said.

    Args:
        name: makes its keys its own.
        connection: to the node.
        acknowledged: path and what it must answer, in the order of the acknowledgements.
    """

    name: str
    connection: Any
    acknowledged: list[tuple[str, dict[str, Any]]] = field(factory=list)
    texts: list[tuple[str, str]] = field(factory=list)
    count: int = 0

    def write(self) -> None:
        """Make the next write; remember it once it is acknowledged."""
        self.count += 1
        number = self.count
        kind = number % 3
        if kind == 0:
            key = f"{self.name}-{number}"
            value = f"{number:08x}"
            status, _ = self.connection.call("POST", "/mesh/config", {"key": key, "value": value})
            assert status == 200
            self.acknowledged.append((f"/mesh/config/{key}", {"key": key, "value": value}))
        elif kind == 1:
            worker = f"{self.name}-w{number % 50}"
            body = {"model_id": MODEL, "url": "http://w", "health": True, "load": number / 100}
            status, _ = self.connection.call("PUT", f"/mesh/workers/{worker}", body)
            assert status == 200
            self.acknowledged.append((f"/mesh/workers/{worker}", {"load": number / 100}))
        else:
            text = f"{number} prompt of {self.name}"
            operation = {"insert": {"text": text, "tenant": self.name}}
            status, _ = self.connection.call(
                "POST", f"/mesh/trees/{MODEL}/operations", {"operations": [operation]}
            )
            assert status == 200
            self.texts.append((text, self.name))


def write_until(stopped: threading.Event, writer: Writer, pause_s: float) -> None:
    """Write until told to stop; a node that is gone is tried again."""
    while not stopped.is_set():
        try:
            writer.write()
        except (OSError, http.client.HTTPException):
            stopped.wait(0.1)
        stopped.wait(pause_s)


def everything(node: Any) -> tuple[Any, ...]:
    """Return all that a node answers, to be compared with the others."""
    keys = node.get("/mesh/config")["keys"]
    tree = node.get(f"/mesh/trees/{MODEL}")
    return (
        {key: node.get(f"/mesh/config/{key}")["value"] for key in keys},
        node.get("/mesh/workers"),
        node.get("/mesh/policies"),
        tree and (tree["version"], tree["operations"]),
    )


@pytest.mark.parametrize(
    "duration_s",
    [
        pytest.param(4.0, marks=pytest.mark.slow),
        pytest.param(10.0, marks=pytest.mark.slow),
        pytest.param(120.0, marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
def test_no_write_acknowledged_by_a_survivor_is_lost(
    cluster: Cluster, connect: Callable[[Any], Any], duration_s: float
) -> None:
    """Two nodes die and return in turn; the third one's writes are all there on all three."""
    rng = random.Random(20)
    survivor, *victims = cluster.nodes
    stopped = threading.Event()
    writers = [Writer(node.name, connect(node)) for node in cluster.nodes]
    threads = [
        threading.Thread(target=write_until, args=(stopped, writer, 0.004)) for writer in writers
    ]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + duration_s
        kill_count = 0
        while time.monotonic() < end:
            victim = victims[kill_count % 2]
            time.sleep(rng.uniform(0.2, 1.5))
            cluster.kill(victim)
            kill_count += 1
            time.sleep(rng.uniform(0.0, 3.0))
            cluster.start(victim)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    cluster.await_all_alive()

    def agree() -> bool:
        views = [everything(node) for node in cluster.nodes]
        return views[0] == views[1] == views[2]

    cluster.wait_until(agree, "all three nodes agree on every key", limit_s=60.0)
    kept = writers[0]
    latest = dict(kept.acknowledged)
    missing = [
        path
        for path, answer in latest.items()
        if not answer.items() <= (cluster.nodes[1].get(path) or {}).items()
    ]
    tree = cluster.nodes[1].get(f"/mesh/trees/{MODEL}")
    inserted = {
        (operation["insert"]["text"], operation["insert"]["tenant"])
        for operation in tree["operations"]
        if "insert" in operation
    }
    print(
        f"\n{kill_count} kills, {len(kept.acknowledged) + len(kept.texts)} writes acknowledged by"
        f" the survivor, {sum(writer.count for writer in writers)} writes in all"
    )

    assert missing == []
    assert set(kept.texts) - inserted == set()
    assert survivor.process is not None
    assert survivor.process.poll() is None
