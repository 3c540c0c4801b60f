"""Placements made by one node are followed by the others, also after it is gone."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from support.processes import Cluster

MODEL = "llama-3"
WORKERS = 4
PROMPTS = 40


def test_forty_prompts_go_to_the_same_workers_through_every_node(cluster: Cluster) -> None:
    """Routed through one node, then through both others, then after kill -9 of the first."""
    rng = random.Random(40)
    prompts = [
        "".join(rng.choice("abcdefghij klmnop") for _ in range(rng.randint(60, 400)))
        for _ in range(PROMPTS)
    ]
    first, *others = cluster.nodes
    for index in range(WORKERS):
        body = {"model_id": MODEL, "url": f"http://w{index}:1", "health": True, "load": 0.0}
        first.do("PUT", f"/mesh/workers/w{index}", body)

    def route(node: Any, text: str) -> str:
        answer = node.do("POST", f"/mesh/route/{MODEL}", {"text": text})
        return str(answer["worker_id"])

    placed = [route(first, prompt) for prompt in prompts]
    for node in others:
        cluster.wait_until(
            partial(
                lambda node: all(
                    node.do("POST", f"/mesh/trees/{MODEL}/match", {"text": prompt})["matched"]
                    == len(prompt)
                    for prompt in prompts
                ),
                node,
            ),
            "the placements have arrived",
            limit_s=10.0,
        )
    followed = [[route(node, prompt + " and more") for prompt in prompts] for node in others]
    cluster.kill(first)
    cluster.wait_until(
        lambda: all(cluster.alive_count(node) == 2 for node in others), "the others noticed"
    )
    after = [[route(node, prompt + " and more") for prompt in prompts] for node in others]

    first.start()
    cluster.wait_until(lambda: first.get("/readyz") is not None, "the first is ready again")
    at_once = [route(first, prompt + " and more") for prompt in prompts]

    assert len(set(placed)) > 1
    assert followed == [placed, placed]
    assert after == [placed, placed]
    assert at_once == placed


@pytest.mark.slow
def test_a_shed_request_and_a_removed_worker_leave_no_trace(cluster: Cluster) -> None:
    """Neither in a tree nor in a list, on any node; a session of the worker's goes elsewhere."""
    first = cluster.nodes[0]
    for name in ("w0", "w1"):
        body = {"model_id": MODEL, "url": f"http://{name}:1", "health": True, "load": 0.0}
        first.do("PUT", f"/mesh/workers/{name}", body)
    shed = {"text": "a request that is shed", "session": "shed", "record": False}
    first.do("POST", f"/mesh/route/{MODEL}", shed)
    asked = {"text": "a request that is served", "session": "kept", "candidates": ["w0"]}
    first.do("POST", f"/mesh/route/{MODEL}", asked)
    tree = first.do("GET", f"/mesh/trees/{MODEL}")["operations"]
    first.do("DELETE", "/mesh/workers/w0")

    def is_nowhere(node: Any) -> bool:
        workers = [each["worker_id"] for each in node.do("GET", "/mesh/workers")]
        held = node.do("GET", f"/mesh/trees/{MODEL}")["operations"]
        return workers == ["w1"] and held == []

    for node in cluster.nodes:
        cluster.wait_until(partial(is_nowhere, node), "the worker is nowhere", limit_s=10.0)
    for node in cluster.nodes:
        again = node.do("POST", f"/mesh/route/{MODEL}", {**asked, "candidates": ["w0", "w1"]})
        assert again["worker_id"] == "w1"

    assert {"w0"} == {each["insert"]["tenant"] for each in tree}
    assert not any("shed" in each["insert"]["text"] for each in tree)
    assert 2 == len(tree)
