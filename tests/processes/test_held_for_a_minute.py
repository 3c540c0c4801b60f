"""Three nodes of which one is held by thousands of clients for a minute, and goes on."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.servers import Eventually, Launcher, Node

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

MEMORY_MORE_KB = 64 * 1024
"""What the allocator may keep for the next time, for each of two nodes."""


def held(node: Node, kind: str, count: str, *size: str) -> subprocess.Popen[str]:
    """Start the clients of one kind in a process of their own."""
    child = Path(__file__).with_name("holding_child.py")
    arguments = [kind, str(node.port), count, str(SECONDS), *size]
    return subprocess.Popen(
        [sys.executable, str(child), *arguments], stdout=subprocess.PIPE, text=True
    )


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
def test_a_node_that_is_held_for_a_minute_goes_on(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """Nobody takes it for Down, each refusal is read, and what it took it gives back.

    How long its health took to answer meanwhile is printed: it is a figure, and no test.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    nodes = own_launcher.cluster("held", "two", "three")
    node = nodes[0]
    node.get("/mesh/health")
    before = descriptors(node), memory_kb(node)
    children = [held(node, *holder) for holder in HOLDERS]
    took_ms: list[float] = []
    most = 0
    ends_at = time.monotonic() + SECONDS
    while time.monotonic() < ends_at:
        began = time.perf_counter()
        node.get("/mesh/health")
        took_ms.append(1000 * (time.perf_counter() - began))
        most = max(most, descriptors(node))
        time.sleep(0.05)
    counts = [json.loads(child.communicate(timeout=90)[0]) for child in children]

    took_ms.sort()
    p50, p99 = took_ms[len(took_ms) // 2], took_ms[int(len(took_ms) * 0.99)]
    print(f"\nhealth, of {len(took_ms)}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {took_ms[-1]:.0f} ms")
    for holder, count in zip(HOLDERS, counts, strict=True):
        print(*holder, count)
    eventually(lambda: descriptors(node) <= before[0] + DESCRIPTORS_MORE, "descriptors return")
    eventually(lambda: memory_kb(node) <= before[1] + MEMORY_MORE_KB, "memory returns")
    print(f"descriptors {before[0]}, at most {most}, {descriptors(node)} in the end")
    print(f"memory {before[1]:,} kB, {memory_kb(node):,} kB in the end")
    assert not has_been_down(nodes)
    assert all(set(other.statuses().values()) == {"Alive"} for other in nodes)
    for refused in counts[2:]:
        assert {"answered 401"} == set(refused), refused
