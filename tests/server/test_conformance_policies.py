"""`/mesh/policies`, as the specification writes it, and the writers beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.servers import Agree, Eventually, Launcher, Node

POLICY = {"policy_type": "cache_aware", "config": '{"cache_threshold":0.7}'}


def test_a_policy_has_exactly_the_documented_fields(node: Node, name: str) -> None:
    """Its `config` is a string."""
    node.request("PUT", f"/mesh/policies/{name}", POLICY)

    policy = node.get(f"/mesh/policies/{name}")

    assert {"model_id": name, **POLICY, "version": 1} == policy
    assert ["model_id", "policy_type", "config", "version"] == list(policy)


def test_putting_a_policy_answers_with_its_state(node: Node, name: str) -> None:
    """A router need not ask again."""
    answer = node.request("PUT", f"/mesh/policies/{name}", POLICY)

    assert {"status": "updated", "model_id": name, **POLICY, "version": 1} == answer


def test_the_version_grows_by_one_for_each_change(
    cluster: list[Node], agree: Agree, name: str
) -> None:
    """Whichever node is told, and the same on every node."""
    path = f"/mesh/policies/{name}"
    for number, writer in enumerate(cluster, 1):
        body = {"policy_type": "cache_aware", "config": f'{{"max_tree_size": {number}}}'}
        writer.request("PUT", path, body)
        agree(cluster, path, {"model_id": name, **body, "version": number})


def test_the_list_holds_the_policies_sorted_by_model(node: Node, name: str) -> None:
    """Whatever the order they came in."""
    for suffix in ("b", "c", "a"):
        node.request("PUT", f"/mesh/policies/{name}-{suffix}", POLICY)

    policies = node.get("/mesh/policies")

    ids = [policy["model_id"] for policy in policies]
    assert sorted(ids) == ids
    assert [{"model_id": f"{name}-{suffix}", **POLICY, "version": 1} for suffix in "abc"] == [
        policy for policy in policies if policy["model_id"].startswith(name)
    ]


def test_a_policy_that_nobody_knows_is_404(node: Node, name: str) -> None:
    """With an error that names it."""
    assert name in node.get(f"/mesh/policies/{name}", status=404)["error"]


def test_a_removed_policy_is_gone(node: Node, name: str) -> None:
    """And removing it again is a 404."""
    path = f"/mesh/policies/{name}"
    node.request("PUT", path, POLICY)

    assert {"status": "deleted", "model_id": name} == node.request("DELETE", path)

    node.get(path, status=404)
    node.request("DELETE", path, status=404)


def test_a_model_id_may_hold_slashes(node: Node, name: str) -> None:
    """As the ids of published models do."""
    node.request("PUT", f"/mesh/policies/{name}%2Fllama-3", POLICY)

    assert f"{name}/llama-3" == node.get(f"/mesh/policies/{name}%2Fllama-3")["model_id"]
    assert f"{name}/llama-3" == node.get(f"/mesh/policies/{name}/llama-3")["model_id"]


def test_a_tree_is_no_policy(node: Node, name: str) -> None:
    """Trees are kept under `tree:` in the store, and do not show among the policies."""
    operation = {"insert": {"text": "Hello", "tenant": "w"}}
    node.request("POST", f"/mesh/trees/{name}/operations", {"operations": [operation]})

    assert [] == [p for p in node.get("/mesh/policies") if name in p["model_id"]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"policy_type": "a"},
        {"config": "a"},
        {"policy_type": 1, "config": ""},
        {"policy_type": "", "config": ""},
        {"policy_type": "cache_aware", "config": {}},
        {"policy_type": "cache_aware", "config": "", "model_id": "m"},
    ],
)
def test_a_body_that_is_no_policy_is_400(node: Node, name: str, body: dict[str, Any]) -> None:
    """Missing and unknown fields, and wrong types."""
    node.request("PUT", f"/mesh/policies/{name}", body, status=400)

    node.get(f"/mesh/policies/{name}", status=404)


@pytest.mark.parametrize(
    ("policy_type", "config", "path"),
    [
        ("weighted", "", "policy_type: 'weighted' is not known; known: cache_aware"),
        ("cache_aware", "not JSON", "config: not valid JSON"),
        ("cache_aware", "[]", "config: expected a JSON object"),
        ("cache_aware", '{"cache_treshold": 0.9}', "config.cache_treshold: unknown"),
        ("cache_aware", '{"cache_threshold": 9}', "config.cache_threshold: expected a number from"),
        ("cache_aware", '{"cache_threshold": "0.9"}', "config.cache_threshold: expected a number"),
        ("cache_aware", '{"max_tree_size": -5}', "config.max_tree_size: expected an integer from"),
        ("cache_aware", '{"max_tree_size": 1, "max_tree_size": 2}', "config: not valid JSON"),
        ("cache_aware", '{"balance_abs_threshold": NaN}', "config.balance_abs_threshold"),
    ],
)
def test_a_policy_that_would_be_passed_over_is_400(
    node: Node, name: str, policy_type: str, config: str, path: str
) -> None:
    """With the path of what is wrong; nothing is written."""
    body = {"policy_type": policy_type, "config": config}

    error = node.request("PUT", f"/mesh/policies/{name}", body, status=400)["error"]

    assert error.startswith(path)
    node.get(f"/mesh/policies/{name}", status=404)


@pytest.mark.parametrize("config", ["", "{}", "...", " {} "])
def test_no_settings_are_the_defaults(node: Node, name: str, config: str) -> None:
    """Also the specification's ellipsis; the text is kept as it came."""
    body = {"policy_type": "cache_aware", "config": config}

    assert config == node.request("PUT", f"/mesh/policies/{name}", body)["config"]


MODEL = "models: [{{model_id: m, policy: {{type: cache_aware, config: {{max_tree_size: {}}}}}}}]"


def test_configured_models_have_their_policy_from_the_start(launcher: Launcher) -> None:
    """The `models` section of the specification: a default, which nobody has written."""
    config = """
models:
  - model_id: "llama-3"
    policy:
      type: "cache_aware"
      config:
        cache_threshold: 0.7
        balance_abs_threshold: 10
        balance_rel_threshold: 1.5
        eviction_interval_secs: 300
        max_tree_size: 10000
"""
    node = launcher.node("models", config=config)
    node.start()

    policy = node.get("/mesh/policies/llama-3")

    assert ["model_id", "policy_type", "config", "version", "default_of"] == list(policy)
    assert ("cache_aware", 0, "models") == (
        policy["policy_type"], policy["version"], policy["default_of"],
    )  # fmt: skip
    assert [policy] == node.get("/mesh/policies")
    assert {
        "cache_threshold": 0.7,
        "balance_abs_threshold": 10,
        "balance_rel_threshold": 1.5,
        "eviction_interval_secs": 300,
        "max_tree_size": 10000,
    } == json.loads(policy["config"])


@pytest.mark.slow
def test_a_configured_model_does_not_replace_a_policy_that_was_written(
    own_launcher: Launcher, eventually: Eventually, agree: Agree
) -> None:
    """Deleting it brings the file's back, on every node; and that cannot be deleted."""
    first = own_launcher.node("first")
    first.start()
    body = {"policy_type": "cache_aware", "config": "{}"}
    first.request("PUT", "/mesh/policies/m", body)
    second = own_launcher.node("second", peers=[first.port], config=MODEL.format(2))
    second.start()
    eventually(second.is_ready, "it is ready")
    written = [node.get("/mesh/policies/m") for node in (first, second)]
    second.request("DELETE", "/mesh/policies/m")
    brought = {
        "model_id": "m", "policy_type": "cache_aware", "config": '{"max_tree_size":2}',
        "version": 0, "default_of": "second",
    }  # fmt: skip
    agree([first, second], "/mesh/policies/m", brought)

    assert [{"model_id": "m", "version": 1, **body}] * 2 == written
    second.request("DELETE", "/mesh/policies/m", status=404)


@pytest.mark.slow
def test_of_two_files_that_differ_the_later_started_nodes_is_in_force(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """And both nodes say that they differ."""
    first = own_launcher.node("first", config=MODEL.format(1))
    first.start()
    eventually(first.is_ready, "it is ready")
    second = own_launcher.node("second", peers=[first.port], config=MODEL.format(2))
    second.start()
    line = (
        "the files of first, second differ about the policy of 'm'; "
        "that of second, which started last, is in force"
    )

    def tells(node: Node) -> bool:
        return any(told.startswith(line) for told in node.get("/mesh/health")["problems"])

    eventually(lambda: tells(second), "it is told there")
    eventually(lambda: tells(first), "it is told here")

    assert ["second"] * 2 == [
        node.get("/mesh/policies/m")["default_of"] for node in (first, second)
    ]


def test_a_limit_of_the_file_is_in_force_and_shows_as_a_default(own_launcher: Launcher) -> None:
    """Until one is written."""
    config = "limits: [{limit_per_second: 5}, {key: alice, limit_per_second: 2}]"
    node = own_launcher.node("limits", config=config)
    node.start()
    asked = [node.client.post("/mesh/rate-limit/acquire", json={"key": key}).json()["limit"]
             for key in ("global", "alice")]  # fmt: skip
    default = node.get("/mesh/rate-limit")
    node.request("POST", "/mesh/rate-limit", {"limit_per_second": 7})

    assert [5, 2] == asked
    assert {"limit_per_second": 5, "default_of": "limits"} == default
    assert {"limit_per_second": 7} == node.get("/mesh/rate-limit")
