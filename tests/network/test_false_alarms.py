"""Nobody who lives is Down: not on a bad network, and not with hardly any processor.

By hand, an hour of node time each: MESHLIB_ALARMS_S=720 and `-m long`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from support.namespaces import Cluster

DURATION_S = float(os.environ.get("MESHLIB_ALARMS_S", "60"))
SLICE_S = 0.01
SLICES = 10
"""One slice in so many: a tenth of a processor, given as quotas of a container are."""

pytestmark = [
    pytest.mark.network,
    pytest.mark.long,
    pytest.mark.timeout(DURATION_S + 300),
]


@contextlib.contextmanager
def throttled(cluster: Cluster) -> Iterator[None]:
    """Let each process run in one slice of ten, each in another one."""
    over = threading.Event()
    processes = [node.process for node in cluster.nodes if node.process is not None]

    def turn() -> None:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        number = 0
        while not over.is_set():
            number += 1
            running = [p for i, p in enumerate(processes) if (i + number) % SLICES == 0]
            for process in running:
                process.send_signal(signal.SIGCONT)
            over.wait(SLICE_S)
            for process in running:
                process.send_signal(signal.SIGSTOP)
        for process in processes:
            process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def starved() -> Iterator[None]:
    """Have four other programs want each processor all the time."""
    busy = [sys.executable, "-c", "while True: pass"]
    # In sessions of their own, as the nodes are: schedulers share among sessions first.
    hogs = [
        subprocess.Popen(busy, start_new_session=True) for _ in range(4 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


@contextlib.contextmanager
def written_to(cluster: Cluster, *, pause_s: float, value_bytes: int) -> Iterator[list[int]]:
    """Have each node write the same few keys again and again; count those that were taken."""
    over = threading.Event()
    counts = [0] * len(cluster.nodes)

    def write(index: int) -> None:
        node, number = cluster.nodes[index], 0
        while not over.wait(pause_s):
            number += 1
            body = {"key": f"{node.name}-{number % 20}", "value": os.urandom(value_bytes).hex()}
            with contextlib.suppress(OSError):  # a request that waits for too long is no alarm
                counts[index] += node.call("POST", "/mesh/config", body)[0] == 200

    threads = [threading.Thread(target=write, args=(i,)) for i in range(len(cluster.nodes))]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("case", ["a quarter lost", "a tenth of a processor", "starved, behind"])
def test_nobody_who_lives_is_down(whole: Cluster, case: str) -> None:
    """Five nodes, writes all the time: some may be suspected, and refute it."""
    pause_s, value_bytes = (0.02, 2_000) if case.startswith("starved") else (0.5, 500)
    with contextlib.ExitStack() as stack:
        if case.startswith("a quarter"):
            whole.lab.lose(25)
        elif case.startswith("a tenth"):
            stack.enter_context(throttled(whole))
        else:
            stack.enter_context(starved())
        counts = stack.enter_context(written_to(whole, pause_s=pause_s, value_bytes=value_bytes))
        time.sleep(DURATION_S)
    if case.startswith("a quarter"):
        whole.lab.heal()
    seen = {
        kind: sum(len(whole.events(node, kind)) for node in whole.nodes)
        for kind in ("MemberSuspected", "Refuted", "MemberDown")
    }
    hours = len(whole.nodes) * DURATION_S / 3600
    print(f"\n{case}: {hours:.2f} hours of nodes, {sum(counts):,} writes, {seen}")
    whole.await_all_alive()
    assert sum(counts) > 0
    assert seen["MemberDown"] == 0
