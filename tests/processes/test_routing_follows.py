"""Placements made by one node are followed by the others, also after it is gone."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

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

    assert len(set(placed)) > 1
    assert followed == [placed, placed]
    assert after == [placed, placed]
