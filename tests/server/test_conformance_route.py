"""`/mesh/route/{model_id}`: the routing decision, and the placement it records everywhere."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.servers import Agree, Eventually, Node


@pytest.fixture
def model(cluster: list[Node], agree: Agree, name: str) -> str:
    """Return a model with two healthy workers that every node knows."""
    for number in (1, 2):
        worker = {"model_id": name, "url": f"http://w{number}:8000", "health": True, "load": 0.5}
        path = f"/mesh/workers/{name}-w{number}"
        cluster[0].request("PUT", path, worker)
        agree(cluster, path, {"worker_id": f"{name}-w{number}", **worker, "version": 1})
    return name


def route(node: Node, model: str, text: str) -> Any:
    """Ask where a text goes."""
    return node.request("POST", f"/mesh/route/{model}", {"text": text})


def test_a_decision_has_exactly_its_fields(node: Node, model: str) -> None:
    """The worker, where it is, how much of the text it has, and why this one."""
    answer = route(node, model, "Hello world")

    assert ["worker_id", "url", "matched", "reason"] == list(answer)
    assert answer["worker_id"] in (f"{model}-w1", f"{model}-w2")
    assert f"http://{answer['worker_id'].removeprefix(model + '-')}:8000" == answer["url"]
    assert (0, "no_match") == (answer["matched"], answer["reason"])


def test_the_same_text_goes_to_the_same_worker_again(node: Node, model: str) -> None:
    """The first decision was recorded."""
    first = route(node, model, "Hello world")

    assert {**first, "matched": 11, "reason": "prefix_match"} == route(node, model, "Hello world")


def test_a_placement_is_recorded_everywhere(
    cluster: list[Node], eventually: Eventually, model: str
) -> None:
    """Every other node sends the text to the same worker, for its prefix."""
    first = route(cluster[0], model, "The quick brown fox")
    body = {"text": "The quick brown fox"}

    for node in cluster[1:]:
        eventually(
            partial(
                lambda n: (
                    n.request("POST", f"/mesh/trees/{model}/match", body)["tenant"]
                    == first["worker_id"]
                ),
                node,
            ),
            "the placement is known",
        )
        assert {**first, "matched": 19, "reason": "prefix_match"} == route(
            node, model, "The quick brown fox"
        )


def test_an_unhealthy_worker_is_never_chosen(cluster: list[Node], node: Node, model: str) -> None:
    """Not even for a prefix that it has."""
    first = route(node, model, "Hello world")
    worker = node.get(f"/mesh/workers/{first['worker_id']}")
    sick = {key: worker[key] for key in ("model_id", "url", "load")} | {"health": False}
    node.request("PUT", f"/mesh/workers/{first['worker_id']}", sick)

    assert first["worker_id"] != route(node, model, "Hello world")["worker_id"]


def test_without_a_healthy_worker_it_is_503(node: Node, name: str) -> None:
    """With an error that names the model."""
    answer = node.request("POST", f"/mesh/route/{name}", {"text": "Hello"}, status=503)

    assert name in answer["error"]


def test_a_model_id_may_hold_slashes(node: Node, name: str) -> None:
    """As the ids of published models do."""
    worker = {"model_id": f"{name}/llama", "url": "http://w", "health": True, "load": 0}
    node.request("PUT", f"/mesh/workers/{name}", worker)

    assert name == route(node, f"{name}%2Fllama", "Hello")["worker_id"]
    assert name == route(node, f"{name}/llama", "Hello")["worker_id"]


@pytest.mark.parametrize("body", [{}, {"text": 1}, {"text": None}, {"text": "a", "x": 1}, "a"])
def test_a_body_without_a_text_is_400(node: Node, model: str, body: Any) -> None:
    """Missing and unknown fields, and wrong types."""
    node.request("POST", f"/mesh/route/{model}", body, status=400)
