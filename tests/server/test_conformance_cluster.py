"""`/mesh/status` and `/mesh/health`, as the specification writes them."""

from __future__ import annotations

import pytest
from support.servers import Eventually, Launcher, Node


def test_status_has_exactly_the_documented_fields(cluster: list[Node], node: Node) -> None:
    """Names, types and nesting are those of the specification."""
    status = node.get("/mesh/status")

    assert ["node_name", "node_count", "nodes", "stores"] == list(status)
    assert [["name", "address", "status", "version"]] * 3 == [list(n) for n in status["nodes"]]
    assert ["membership_count", "worker_count", "policy_count", "app_count"] == list(
        status["stores"]
    )


def test_status_names_the_node_that_answers(cluster: list[Node]) -> None:
    """Each node calls itself by its own name."""
    assert ["node1", "node2", "node3"] == [
        node.get("/mesh/status")["node_name"] for node in cluster
    ]


def test_status_lists_every_node_sorted_by_name(cluster: list[Node]) -> None:
    """With the address that peers dial, and the status as a word, the same on every node."""
    expected = [{"name": node.name, "address": node.address, "status": "Alive"} for node in cluster]

    for node in cluster:
        status = node.get("/mesh/status")
        assert 3 == status["node_count"]
        assert expected == [
            {key: item[key] for key in ("name", "address", "status")} for item in status["nodes"]
        ]


def test_the_version_of_a_node_begins_at_one(node: Node) -> None:
    """It is a whole number that counts from 1."""
    assert all(
        type(item["version"]) is int and item["version"] >= 1
        for item in node.get("/mesh/status")["nodes"]
    )


def test_the_store_counts_are_the_real_ones(cluster: list[Node], node: Node, name: str) -> None:
    """They count members, workers, policies and keys, and follow each change."""
    before = node.get("/mesh/status")["stores"]
    worker = {"model_id": name, "url": "http://w:1", "health": True, "load": 0.5}
    node.request("PUT", f"/mesh/workers/{name}", worker)
    node.request("PUT", f"/mesh/policies/{name}", {"policy_type": "cache_aware", "config": ""})
    node.request("POST", "/mesh/config", {"key": name, "value": "00"})
    between = node.get("/mesh/status")["stores"]
    for path in ("workers", "policies", "config"):
        node.request("DELETE", f"/mesh/{path}/{name}")

    assert 3 == before["membership_count"]
    assert [1, 1, 1] == [
        between[key] - before[key] for key in ("worker_count", "policy_count", "app_count")
    ]
    assert before == node.get("/mesh/status")["stores"]


def test_the_store_counts_agree_with_the_lists(node: Node) -> None:
    """What is counted is what is listed."""
    stores = node.get("/mesh/status")["stores"]

    assert len(node.get("/mesh/workers")) == stores["worker_count"]
    assert len(node.get("/mesh/policies")) == stores["policy_count"]
    assert len(node.get("/mesh/config")["keys"]) == stores["app_count"]


def test_health_of_a_whole_cluster(cluster: list[Node]) -> None:
    """Exactly the documented answer, on every node."""
    assert [
        {
            "status": "healthy",
            "node_name": node.name,
            "cluster_size": 3,
            "stores_healthy": True,
            "state": "ready",
            "formats": {"spoken": 3, "newest": 3},
            "problems": [],
        }
        for node in cluster
    ] == [node.get("/mesh/health") for node in cluster]


@pytest.mark.slow
def test_a_member_that_is_gone_can_be_forgotten(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """One that is there cannot, nor one that nobody knows; the survivor of two is whole then."""
    first, second = own_launcher.cluster("first", "second")
    first.request("DELETE", "/mesh/members/second", status=409)
    first.request("DELETE", "/mesh/members/first", status=409)
    first.request("DELETE", "/mesh/members/third", status=404)
    second.kill()
    eventually(lambda: "second is down" in str(first.get("/mesh/health")["problems"]), "it is Down")

    answer = first.request("DELETE", "/mesh/members/second")

    assert {"status": "forgotten", "name": "second"} == answer
    assert "healthy" == first.get("/mesh/health")["status"]
    assert ["first"] == [member["name"] for member in first.get("/mesh/status")["nodes"]]
