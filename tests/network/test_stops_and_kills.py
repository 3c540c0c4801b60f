"""Processes that stand still, and processes that die while they take over the state."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from typing import Any

import pytest
from support.namespaces import Cluster, Traffic

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]

STOPPED_S = 10.0
"""As long as a debugger, a frozen virtual machine or a swapping host may take."""

BULK_COUNT, BULK_BYTES = 150, 250_000
"""More than the 32 MiB of a log, all by one writer: a newcomer gets them as a state transfer."""


def test_a_process_that_was_stopped_for_ten_seconds_comes_back(
    whole: Cluster, traffic: Traffic
) -> None:
    """It is given up meanwhile, refutes that as the same writer, and has lost nothing."""
    stopped, *others = reversed(whole.nodes)
    traffic.start()
    traffic.await_more(100)
    traffic.excuse(stopped)
    assert stopped.process is not None
    stopped.process.send_signal(signal.SIGSTOP)
    since = time.monotonic()
    for node in others:
        whole.wait_until(
            partial(lambda node: whole.seen(node)[stopped.name] == "Down", node),
            partial(
                lambda node: f"{stopped.name} is Down to {node.name}: {whole.seen(node)}", node
            ),
        )
    whole.await_health(others, "degraded", 4)
    traffic.await_more(100)
    time.sleep(max(0.0, since + STOPPED_S - time.monotonic()))
    stopped.process.send_signal(signal.SIGCONT)
    whole.await_all_alive()
    traffic.await_more(50)
    traffic.finish()

    whole.await_whole(traffic)
    assert whole.events(stopped, "LocalPause") != []
    assert whole.events(stopped, "Refuted") != []
    # Who was stopped accuses nobody: the others were there all the time.
    for node in whole.nodes:
        assert {event["member"] for event in whole.events(node, "MemberDown")} <= {stopped.name}


def bulk_keys(node: Any) -> set[str]:
    """Return which of the large values a node has."""
    answer = node.get("/mesh/config") or {"keys": []}
    return {key for key in answer["keys"] if key.startswith("bulk-")}


def test_a_newcomer_killed_while_it_takes_over_the_state_starts_again_and_has_all(
    cluster: Cluster, traffic: Traffic, rng: random.Random
) -> None:
    """Four nodes hold more than the log does; the fifth dies between two pages, and returns."""
    *others, newcomer = cluster.nodes
    cluster.start(*others)
    cluster.await_all_alive(others)
    bulk = {f"bulk-{index}": rng.randbytes(BULK_BYTES).hex() for index in range(BULK_COUNT)}
    for key, value in bulk.items():
        others[0].do("POST", "/mesh/config", {"key": key, "value": value})
    for node in others:
        cluster.wait_until(
            partial(lambda node: bulk_keys(node) == set(bulk), node), f"{node.name} has all"
        )
    traffic.start(others)

    cluster.lab.slow(4, kbytes_per_s=2000)
    cluster.start(newcomer)
    cluster.wait_until(
        lambda: cluster.lab.received_bytes(4) > 20 * BULK_BYTES, "the first pages have come"
    )
    # What has come is seen, and nothing is claimed before all of it is there.
    assert newcomer.get("/mesh/health")["state"] == "syncing"
    assert bulk_keys(newcomer) < set(bulk)
    cluster.kill(newcomer)
    assert cluster.events(newcomer, "StateRestored") == []

    cluster.lab.heal()
    cluster.start(newcomer)
    cluster.await_all_alive()
    traffic.await_more(50)
    traffic.finish()

    cluster.await_whole(traffic)
    assert {key: newcomer.get(f"/mesh/config/{key}")["value"] for key in bulk} == bulk
    assert any(int(event["page_count"]) > 1 for event in cluster.events(newcomer, "StateRestored"))
    for node in others:
        assert node.process is not None
        assert node.process.poll() is None
        assert {event["member"] for event in cluster.events(node, "MemberDown")} <= {newcomer.name}
