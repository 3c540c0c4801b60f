"""Three nodes of which one is held by thousands of clients for a minute, and goes on."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.servers import Launcher, Node, eventually

SECONDS = 60
MB = 1_000_000
HOLDERS: tuple[tuple[str, ...], ...] = (
    ("silent", "2000"),
    ("slow", "200"),
    ("bodies", "20", str(1_100_000)),
    ("bodies", "5", str(20 * MB)),
)
DESCRIPTORS_MORE = 10
"""What a node may hold more than before: its clients here, and links that were made anew."""

FIRST_SECONDS = 10
"""It is held for so long before: what so many clients take at once the allocator keeps, and uses
again for the next."""

MEMORY_MORE_KB = 32 * 1024
"""What a node may hold more than after the first time."""


def hold(node: Node, seconds: int) -> list[subprocess.Popen[str]]:
    """Start the clients of each kind in a process of their own."""
    child = str(Path(__file__).with_name("holding_child.py"))
    return [
        subprocess.Popen(
            [sys.executable, child, kind, str(node.port), count, str(seconds), *size],
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind, count, *size in HOLDERS
    ]


def counts_of(children: list[subprocess.Popen[str]]) -> list[dict[str, int]]:
    """Wait until they have ended, and return what each of them counted."""
    return [json.loads(child.communicate(timeout=90)[0]) for child in children]


def descriptors(node: Node) -> int:
    return len(list(Path(f"/proc/{node.started.pid}/fd").iterdir()))


def memory_kb(node: Node) -> int:
    status = Path(f"/proc/{node.started.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def has_been_down(nodes: list[Node]) -> bool:
    """Tell whether any node has logged that another one was Down."""
    return any(line["message"] == "MemberDown" for node in nodes for line in node.log_lines())


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_node_that_is_held_for_a_minute_goes_on(own_launcher: Launcher) -> None:
    """Nobody takes it for Down, each refusal is read, and it takes no more each time.

    How long its health took to answer meanwhile is printed: it is a figure, and no test.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    nodes = own_launcher.cluster("held", "two", "three")
    node = nodes[0]
    node.get("/mesh/health")
    descriptors_before, memory_at_start_kb = descriptors(node), memory_kb(node)
    counts_of(hold(node, FIRST_SECONDS))
    memory_before_kb = memory_kb(node)
    children = hold(node, SECONDS)
    took_ms: list[float] = []
    most = 0
    ends_at = time.monotonic() + SECONDS
    while time.monotonic() < ends_at:
        began = time.perf_counter()
        node.get("/mesh/health")
        took_ms.append(1000 * (time.perf_counter() - began))
        most = max(most, descriptors(node))
        time.sleep(0.05)
    counts = counts_of(children)

    took_ms.sort()
    p50, p99 = took_ms[len(took_ms) // 2], took_ms[int(len(took_ms) * 0.99)]
    print(f"\nhealth, of {len(took_ms)}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {took_ms[-1]:.0f} ms")
    for holder, count in zip(HOLDERS, counts, strict=True):
        print(*holder, count)
    print(f"descriptors {descriptors_before}, at most {most}, {descriptors(node)} in the end")
    print(f"memory {memory_at_start_kb:,} kB, held once {memory_before_kb:,}, {memory_kb(node):,}")
    bound = descriptors_before + DESCRIPTORS_MORE
    eventually(lambda: descriptors(node) <= bound, "descriptors return")
    eventually(lambda: memory_kb(node) <= memory_before_kb + MEMORY_MORE_KB, "memory is reused")
    assert not has_been_down(nodes)
    assert all(set(other.statuses().values()) == {"Alive"} for other in nodes)
    for refused in counts[2:]:
        assert {"answered 401"} == set(refused), refused
