"""Three nodes of which one is held by thousands of clients for a minute, and goes on."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.servers import TOKEN, Launcher, Node, eventually

SECONDS = 60
MB = 1_000_000
HOLDERS = ("silent:2000", "slow:200", f"bodies:20:{1_100_000}", f"bodies:5:{20 * MB}")
DESCRIPTORS_MORE = 10
"""What a node may hold more than before: its clients here, and links that were made anew."""

FIRST_SECONDS = 10
"""It is held for so long before: what so many clients take at once the allocator keeps, and uses
again for the next."""

MEMORY_MORE_KB = 32 * 1024
"""What a node may hold more than after the first time."""


def child(name: str, node: Node, seconds: int, *words: str) -> subprocess.Popen[str]:
    """Start one of the programs beside this file, which does something to a node for so long."""
    program = str(Path(__file__).with_name(name))
    return subprocess.Popen(
        [sys.executable, program, str(node.port), str(seconds), *words],
        stdout=subprocess.PIPE,
        text=True,
    )


def told_by(process: subprocess.Popen[str]) -> Any:
    """Wait until a program has ended, and return what it told."""
    told = process.communicate(timeout=90)[0]
    assert process.returncode == 0, told
    return json.loads(told)


def processor_s(node: Node) -> float:
    """Return how much processor time a node has taken."""
    fields = Path(f"/proc/{node.started.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loop_of(node: Node) -> dict[str, float]:
    """Return what a node has measured of its event loop."""
    lines = node.client.get("/metrics").text.splitlines()
    rows = (line.split() for line in lines if line.startswith("meshlib_event_loop_"))
    return {name.removeprefix("meshlib_event_loop_"): float(value) for name, value in rows}


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
    told_by(child("holding_child.py", node, FIRST_SECONDS, *HOLDERS))
    memory_before_kb, processor_before_s = memory_kb(node), processor_s(node)
    holding = child("holding_child.py", node, SECONDS, *HOLDERS)
    asking = child("asking_child.py", node, SECONDS - 1, TOKEN)
    most = 0
    while asking.poll() is None:
        most = max(most, descriptors(node))
        time.sleep(0.5)
    health, held = told_by(asking), told_by(holding)

    print(f"\nhealth {health}")
    for holder, count in zip(HOLDERS, held["counts"], strict=True):
        print(holder, count)
    print(f"processor: held {processor_s(node) - processor_before_s:.1f} s", end=", ")
    print(f"who holds {held['processor_s']:.1f} s; the loop {loop_of(node)}")
    print(f"descriptors {descriptors_before}, at most {most}, {descriptors(node)} in the end")
    print(f"memory {memory_at_start_kb:,} kB, held once {memory_before_kb:,}, {memory_kb(node):,}")
    bound = descriptors_before + DESCRIPTORS_MORE
    eventually(lambda: descriptors(node) <= bound, "descriptors return")
    eventually(lambda: memory_kb(node) <= memory_before_kb + MEMORY_MORE_KB, "memory is reused")
    assert not has_been_down(nodes)
    assert all(set(other.statuses().values()) == {"Alive"} for other in nodes)
    for refused in held["counts"][2:]:
        assert {"answered 401"} == set(refused), refused
