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


def ask(node: Node, model: str, text: str, **more: Any) -> Any:
    """Ask where a text goes."""
    return node.request("POST", f"/mesh/route/{model}", {"text": text, **more})


def route(node: Node, model: str, text: str, **more: Any) -> Any:
    """Ask where a text goes, and leave out the request's name, which is another each time."""
    answer = ask(node, model, text, **more)
    assert answer.pop("request_id")
    return answer


def test_a_decision_has_exactly_its_fields(node: Node, model: str) -> None:
    """The worker, where it is, how much of the text it has, why this one, and its name."""
    answer = ask(node, model, "Hello world")

    assert ["worker_id", "url", "matched", "reason", "request_id"] == list(answer)
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


def test_a_request_is_prefilled_renewed_and_completed(node: Node, model: str) -> None:
    """By its name; once it has ended nobody knows it."""
    body = {"request_id": ask(node, model, "Hello world", tokens=3)["request_id"]}
    told = [
        node.request("POST", f"/mesh/route/{model}/{verb}", body)
        for verb in ("first_token", "renew", "complete")
    ]

    assert [{"status": word, **body} for word in ("prefilled", "renewed", "completed")] == told
    for verb in ("first_token", "renew", "complete"):
        node.request("POST", f"/mesh/route/{model}/{verb}", body, status=404)


def test_a_renewal_says_what_is_decoded(node: Node, model: str) -> None:
    """In whole tokens of which there may be none; anything else is a 400, and renews nothing."""
    body = {"request_id": ask(node, model, "Hello world", tokens=3)["request_id"]}
    path = f"/mesh/route/{model}/renew"
    for tokens in (0, 512, None):
        told = node.request("POST", path, body | {"decoded_tokens": tokens})
        assert {"status": "renewed", **body} == told

    for wrong in (-1, 1.5, "5", True, 1 << 32):
        node.request("POST", path, body | {"decoded_tokens": wrong}, status=400)


def test_what_is_in_flight_at_one_node_decides_at_another(
    cluster: list[Node], eventually: Eventually, model: str
) -> None:
    """A hundred thousand tokens are to be prefilled at one worker: the other gets the prompts."""
    node, other = cluster[:2]
    policy = {"policy_type": "expected_time", "config": ""}
    for each in cluster:
        each.request("PUT", f"/mesh/policies/{model}", policy)
    first = ask(node, model, "one")
    node.request("POST", f"/mesh/route/{model}/complete", {"request_id": first["request_id"]})
    busy = ask(node, model, "a long prompt", tokens=2_000_000)["worker_id"]

    eventually(
        lambda: all(ask(other, model, f"{n} new")["worker_id"] != busy for n in range(5)),
        "the other worker is chosen",
    )


def test_a_request_may_be_completed_at_another_node(
    cluster: list[Node], eventually: Eventually, model: str
) -> None:
    """As behind a load balancer; the node that routed it then knows that it is over."""
    node, other = cluster[:2]
    body = {"request_id": ask(node, model, "Hello world")["request_id"]}
    for verb in ("first_token", "renew", "complete"):
        other.request("POST", f"/mesh/route/{model}/{verb}", body)

    def is_over() -> bool:
        path = f"/mesh/route/{model}/complete"
        return bool(node.client.post(path, json=body).status_code == 404)

    eventually(is_over, "it is over where it was routed")


def test_workers_can_be_left_out_and_picked(node: Node, model: str) -> None:
    """By name, for this prompt."""
    w1, w2 = f"{model}-w1", f"{model}-w2"
    chosen = [
        route(node, model, f"prompt {n}", exclude=[w1], candidates=[w1, w2])["worker_id"]
        for n in range(5)
    ]

    assert {w2} == set(chosen)
    node.request(
        "POST", f"/mesh/route/{model}", {"text": "a", "candidates": ["nobody"]}, status=503
    )


def test_what_is_not_recorded_leaves_no_trace(node: Node, model: str) -> None:
    """A shed request, for example."""
    route(node, model, "Hello world", record=False)

    node.get(f"/mesh/trees/{model}", status=404)


def test_a_salt_parts_prompts(node: Node, model: str) -> None:
    """What one adapter has cached is of no use to another."""
    route(node, model, "Hello world", salt="adapter-1")

    assert 11 == route(node, model, "Hello world", salt="adapter-1")["matched"]
    assert 0 == route(node, model, "Hello world", salt="adapter-2")["matched"]


def test_a_session_stays_at_its_worker(node: Node, model: str) -> None:
    """Whatever the next prompt is."""
    first = route(node, model, "Hello world", session="s", session_ttl_s=60)
    second = route(node, model, "Something else", session="s", session_ttl_s=60)

    assert (first["worker_id"], "session") == (second["worker_id"], second["reason"])


def test_a_better_word_than_the_trees_is_believed(node: Node, model: str) -> None:
    """Of the workers that it names: who has evicted the prompt, and who has stored it."""
    w1, w2 = f"{model}-w1", f"{model}-w2"
    route(node, model, "Hello world", candidates=[w1])

    assert 11 == route(node, model, "Hello world", record=False)["matched"]
    known = route(node, model, "Hello world", held={w1: 0, w2: 9}, record=False)
    assert (w2, 9) == (known["worker_id"], known["matched"])


@pytest.mark.parametrize(
    "more",
    [
        {"held": ["w1"]}, {"held": {"w1": 1.5}}, {"held": {"w1": -1}}, {"held": {"w1": 12}},
        {"session": 3}, {"session": "s", "session_ttl_s": 0},
        {"tokens": -1}, {"tokens": "3"}, {"exclude": "w1"}, {"exclude": [1]}, {"candidates": {}},
        {"salt": 3}, {"record": "no"}, {"wait": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_a_decision_cannot_take_is_400(node: Node, model: str, more: dict[str, Any]) -> None:
    """Nothing is placed."""
    node.request("POST", f"/mesh/route/{model}", {"text": "Hello world", **more}, status=400)

    node.get(f"/mesh/trees/{model}", status=404)


def test_a_request_without_a_name_is_400(node: Node, model: str) -> None:
    """And so is one of another type."""
    for body in ({}, {"request_id": 3}, {"request_id": "a", "more": 1}):
        node.request("POST", f"/mesh/route/{model}/complete", body, status=400)
