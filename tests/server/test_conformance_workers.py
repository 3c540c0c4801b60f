"""`/mesh/workers`, as the specification writes it, and the writers beside it."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from support.servers import Agree, Eventually, Launcher, Node

WORKER = {"model_id": "model-1", "url": "http://worker1:8000", "health": True, "load": 0.75}


def test_a_worker_has_exactly_the_documented_fields(node: Node, name: str) -> None:
    """Names, order and types are those of the specification."""
    node.request("PUT", f"/mesh/workers/{name}", WORKER)

    worker = node.get(f"/mesh/workers/{name}")

    assert {"worker_id": name, **WORKER, "version": 1} == worker
    assert ["worker_id", "model_id", "url", "health", "load", "version"] == list(worker)


def test_putting_a_worker_answers_with_its_state(node: Node, name: str) -> None:
    """A router need not ask again."""
    answer = node.request("PUT", f"/mesh/workers/{name}", WORKER)

    assert {"status": "updated", "worker_id": name, **WORKER, "version": 1} == answer


def test_a_worker_reaches_every_node(cluster: list[Node], agree: Agree, name: str) -> None:
    """What one node is told, all know."""
    cluster[0].request("PUT", f"/mesh/workers/{name}", WORKER)

    agree(cluster, f"/mesh/workers/{name}", {"worker_id": name, **WORKER, "version": 1})


def test_the_version_grows_by_one_for_each_change(
    cluster: list[Node], agree: Agree, name: str
) -> None:
    """Whichever node is told, and the same on every node."""
    path = f"/mesh/workers/{name}"
    for number, writer in enumerate(cluster, 1):
        writer.request("PUT", path, {**WORKER, "load": number / 10})
        expected = {"worker_id": name, **WORKER, "load": number / 10, "version": number}
        agree(cluster, path, expected)


def test_the_list_holds_the_workers_sorted_by_id(node: Node, name: str) -> None:
    """Whatever the order they came in."""
    for suffix in ("b", "c", "a"):
        node.request("PUT", f"/mesh/workers/{name}-{suffix}", WORKER)

    workers = node.get("/mesh/workers")

    ids = [worker["worker_id"] for worker in workers]
    assert sorted(ids) == ids
    assert [{"worker_id": f"{name}-{suffix}", **WORKER, "version": 1} for suffix in "abc"] == [
        worker for worker in workers if worker["worker_id"].startswith(name)
    ]


def test_a_worker_that_nobody_knows_is_404(node: Node, name: str) -> None:
    """With an error that names it."""
    assert name in node.get(f"/mesh/workers/{name}", status=404)["error"]


def test_a_removed_worker_is_gone_from_every_node(
    cluster: list[Node], eventually: Eventually, agree: Agree, name: str
) -> None:
    """From the list too, and removing it again is a 404."""
    path = f"/mesh/workers/{name}"
    cluster[0].request("PUT", path, WORKER)
    agree(cluster, path, {"worker_id": name, **WORKER, "version": 1})

    assert {"status": "deleted", "worker_id": name} == cluster[1].request("DELETE", path)

    for node in cluster:
        eventually(partial(lambda n: n.client.get(path).status_code == 404, node), "it is gone")
        assert name not in [worker["worker_id"] for worker in node.get("/mesh/workers")]
    cluster[1].request("DELETE", path, status=404)


def test_the_version_of_a_worker_that_came_back_goes_on(node: Node, name: str) -> None:
    """It never goes back: a removal is a change too."""
    path = f"/mesh/workers/{name}"
    node.request("PUT", path, WORKER)
    node.request("DELETE", path)
    node.request("PUT", path, WORKER)

    assert 3 == node.get(path)["version"]


@pytest.mark.parametrize("suffix", ["a/b", "a b", "ü", "日本", "100%", "a?b#c", "..", "a//", "🦊"])
def test_an_id_may_hold_any_text(node: Node, name: str, suffix: str) -> None:
    """Slashes and any Unicode, percent-encoded."""
    worker_id = f"{name}/{suffix}"
    path = "/mesh/workers/" + quote(worker_id, safe="")

    node.request("PUT", path, WORKER)

    assert worker_id == node.get(path)["worker_id"]
    node.request("DELETE", path)


def test_a_slash_of_an_id_need_not_be_encoded(node: Node, name: str) -> None:
    """`a/b` and `a%2Fb` are one id."""
    node.request("PUT", f"/mesh/workers/{name}%2Fb", WORKER)

    assert f"{name}/b" == node.get(f"/mesh/workers/{name}/b")["worker_id"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_id": 1}, "model_id"),
        ({"model_id": ""}, "model_id"),
        ({"url": None}, "url"),
        ({"health": 1}, "health"),
        ({"health": "true"}, "health"),
        ({"load": "0.5"}, "load"),
        ({"load": True}, "load"),
        ({"load": -0.1}, "load"),
        ({"surprise": 1}, "surprise"),
        ({"version": 7}, "version"),
    ],
)
def test_a_body_that_is_no_worker_is_400_and_changes_nothing(
    node: Node, name: str, change: dict[str, Any], named: str
) -> None:
    """Wrong types, impossible values and unknown fields are named."""
    node.request("PUT", f"/mesh/workers/{name}", WORKER)

    error = node.request("PUT", f"/mesh/workers/{name}", {**WORKER, **change}, status=400)

    assert named in error["error"]
    assert {"worker_id": name, **WORKER, "version": 1} == node.get(f"/mesh/workers/{name}")


@pytest.mark.parametrize("field", list(WORKER))
def test_a_missing_field_is_400(node: Node, name: str, field: str) -> None:
    """Each of the four is needed."""
    body = {key: value for key, value in WORKER.items() if key != field}

    error = node.request("PUT", f"/mesh/workers/{name}", body, status=400)

    assert {"error": f"{field}: missing", "code": "invalid_request"} == error
    node.get(f"/mesh/workers/{name}", status=404)


@pytest.mark.parametrize("worker_id", ["", "a" * 1025, "%FF", "%ED%A0%80"])
def test_an_id_that_cannot_be_one_is_400(node: Node, worker_id: str) -> None:
    """Empty, over 1 KiB, or not UTF-8."""
    node.request("PUT", f"/mesh/workers/{worker_id}", WORKER, status=400)


def test_a_worker_that_has_restarted_has_nothing_cached(
    cluster: list[Node], eventually: Eventually, name: str
) -> None:
    """Whoever knows says so, on any node; the worker's version stays."""
    worker = {**WORKER, "model_id": name}
    cluster[0].request("PUT", f"/mesh/workers/{name}", worker)
    first = cluster[0].request("POST", f"/mesh/route/{name}", {"text": "Hello"})
    again = cluster[0].request("POST", f"/mesh/route/{name}", {"text": "Hello"})
    assert ("no_match", "prefix_match") == (first["reason"], again["reason"])
    path = f"/mesh/workers/{name}"
    eventually(lambda: cluster[1].client.get(path).is_success, "the other node knows it")

    cleared = cluster[1].request("POST", f"{path}/cleared")

    def matched() -> int:
        match = cluster[0].request("POST", f"/mesh/trees/{name}/match", {"text": "Hello"})
        return int(match["matched"])

    assert {"status": "cleared", "worker_id": name} == cleared
    eventually(lambda: matched() == 0, "its cache is forgotten")
    assert 1 == cluster[0].get(path)["version"]
    cluster[1].request("POST", f"{path}-unknown/cleared", status=404)


def test_a_lease_shows_where_there_is_one(node: Node, name: str) -> None:
    """And the answer without one is exactly the specification's."""
    path = f"/mesh/workers/{name}"
    leased = node.request("PUT", path, {**WORKER, "ttl_s": 60})
    assert {"status": "updated", "worker_id": name, **WORKER, "ttl_s": 60, "version": 1} == leased
    assert {"status": "renewed", "worker_id": name} == node.request("POST", f"{path}/heartbeat")
    assert 1 == node.get(path)["version"]

    node.request("PUT", path, WORKER)

    assert {"worker_id": name, **WORKER, "version": 2} == node.get(path)
    node.request("POST", f"{path}/heartbeat", status=400)
    node.request("POST", f"{path}-unknown/heartbeat", status=404)


@pytest.mark.parametrize("ttl_s", [0, 0.5, 86_401, "60", True])
def test_a_lease_that_cannot_be_is_400(node: Node, name: str, ttl_s: object) -> None:
    """It is 1 second to a day."""
    body = {**WORKER, "ttl_s": ttl_s}
    assert "ttl_s" in node.request("PUT", f"/mesh/workers/{name}", body, status=400)["error"]


@pytest.mark.slow
def test_workers_of_a_node_that_was_killed_are_no_longer_chosen(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """Nobody renews them; those that another node renews stay."""
    first, second = own_launcher.cluster("first", "second")
    for owner, worker_id in ((first, "kept"), (second, "orphan")):
        worker = {**WORKER, "model_id": "m", "ttl_s": 1}
        owner.request("PUT", f"/mesh/workers/{worker_id}", worker)
    eventually(lambda: len(first.get("/mesh/workers")) == 2, "both are known")
    second.kill()

    def healths() -> dict[str, bool]:
        first.request("POST", "/mesh/workers/kept/heartbeat")
        return {one["worker_id"]: one["health"] for one in first.get("/mesh/workers")}

    eventually(lambda: healths() == {"kept": True, "orphan": False}, "the orphan's lease is over")
