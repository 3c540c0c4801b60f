"""Several workers, or keys of the configuration, in one request: all of them or none."""

from __future__ import annotations

from typing import Any

import pytest
from support.servers import Agree, Node

from meshlib.limits import CHANGES_MAX


def worker(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "worker_id": name, "model_id": name, "url": "http://w", "health": True, "load": 0.5,
        **fields,
    }  # fmt: skip


def ids(node: Node, name: str) -> list[str]:
    listed = node.get("/mesh/workers")
    return [each["worker_id"] for each in listed if each["worker_id"].startswith(name)]


def keys(node: Node, name: str) -> list[str]:
    return [key for key in node.get("/mesh/config")["keys"] if key.startswith(name)]


def test_several_workers_are_written_and_removed_at_once(
    cluster: list[Node], agree: Agree, name: str
) -> None:
    """On every node, each as if it had been written by itself."""
    node = cluster[0]
    both = [worker(f"{name}-1"), worker(f"{name}-2", ttl_s=60)]
    answer = node.request("PATCH", "/mesh/workers", {"put": both})
    more = {"put": [worker(f"{name}-1", load=0.75)], "delete": [f"{name}-2"]}
    second = node.request("PATCH", "/mesh/workers", more)

    assert {"status": "updated", "put": 2, "deleted": 0} == answer
    assert {"status": "updated", "put": 1, "deleted": 1} == second
    assert [f"{name}-1"] == ids(node, name)
    agree(cluster, f"/mesh/workers/{name}-1", {**worker(f"{name}-1", load=0.75), "version": 2})


def test_several_keys_are_written_and_removed_at_once(
    cluster: list[Node], agree: Agree, name: str
) -> None:
    """On every node."""
    node = cluster[1]
    both = [{"key": f"{name}/a", "value": "31"}, {"key": f"{name}/b", "value": "32"}]
    assert 2 == node.request("PATCH", "/mesh/config", {"put": both})["put"]
    more = {"put": [{"key": f"{name}/c", "value": "33"}], "delete": [f"{name}/a"]}
    node.request("PATCH", "/mesh/config", more)

    assert [f"{name}/b", f"{name}/c"] == keys(node, name)
    expected = {"key": f"{name}/c", "value": "33", "format": "hex"}
    agree(cluster, f"/mesh/config/{name}%2Fc", expected)


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"put": [{"worker_id": "NAME-x"}]}, 400, "put[1].model_id: missing"),
        ({"put": [worker("")]}, 400, "put[1]: worker_id"),
        ({"put": [worker("NAME-x", load=-1)]}, 400, "put[1]: load"),
        ({"put": [worker("NAME-x", url="u" * 300_000)]}, 400, "put[1]: "),
        ({"put": [worker("NAME-1")]}, 400, "put[1]: it is changed twice"),
        ({"delete": ["NAME-1"]}, 400, "delete[0]: it is changed twice"),
        ({"delete": ["NAME-gone"]}, 404, "NAME-gone"),
        ({"put": [worker(f"NAME-{n}") for n in range(2, CHANGES_MAX + 2)]}, 400, "at most 256"),
        ({"remove": []}, 400, "remove: unknown key"),
    ],
    ids=["missing", "empty", "load", "large", "twice", "both", "gone", "many", "unknown"],
)
def test_one_wrong_worker_lets_none_through(
    node: Node, name: str, changes: dict[str, Any], status: int, told: str
) -> None:
    """It is named by where it stands; what stood before it was not written either."""
    wrong = named(changes, name)
    body = {**wrong, "put": [worker(f"{name}-1"), *wrong.get("put", [])]}
    answer = node.request("PATCH", "/mesh/workers", body, status=status)

    assert told.replace("NAME", name) in answer["error"]
    assert [] == ids(node, name)


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"put": [{"key": "", "value": "00"}]}, 400, "put[1]: key"),
        ({"put": [{"key": "NAME/x", "value": "0"}]}, 400, "put[1]: value"),
        ({"put": [{"key": "NAME/x", "value": "00" * 262_145}]}, 400, "put[1]: "),
        ({"put": [{"key": "rate_limit:NAME", "value": "00"}]}, 400, "put[1]: "),
        ({"delete": ["NAME/gone"]}, 404, "NAME/gone"),
        ({"delete": ["NAME/1"]}, 400, "delete[0]: it is changed twice"),
    ],
    ids=["empty", "odd", "large", "limit", "gone", "both"],
)
def test_one_wrong_key_lets_none_through(
    node: Node, name: str, changes: dict[str, Any], status: int, told: str
) -> None:
    """Likewise; a limit is judged as ever."""
    wrong = named(changes, name)
    body = {**wrong, "put": [{"key": f"{name}/1", "value": "00"}, *wrong.get("put", [])]}
    answer = node.request("PATCH", "/mesh/config", body, status=status)

    assert told.replace("NAME", name) in answer["error"]
    assert [] == keys(node, name)


def named(tree: Any, name: str) -> Any:
    """Put the test's own name in the place of NAME."""
    if isinstance(tree, str):
        return tree.replace("NAME", name)
    if isinstance(tree, list):
        return [named(each, name) for each in tree]
    if isinstance(tree, dict):
        return {key: named(each, name) for key, each in tree.items()}
    return tree
