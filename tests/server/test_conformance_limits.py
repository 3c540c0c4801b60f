"""`/mesh/limits`, and what routers ask of limits for each request."""

from __future__ import annotations

from typing import Any

import pytest
from support.servers import Agree, Eventually, Node

DECISION = {
    "allowed", "limit", "remaining", "retry_after_s", "reset_after_s", "policy", "confirmed",
}  # fmt: skip


def put(node: Node, name: str, *limits: str) -> Any:
    body = {"pattern": f"{name}:{{key}}", "limits": list(limits)}
    return node.request("PUT", f"/mesh/limits/{name}", body)


def post(node: Node, verb: str, body: Any) -> Any:
    return node.client.post(f"/mesh/rate-limit/{verb}", json=body)


def test_a_rule_that_is_set_on_one_node_is_in_force_on_all(
    cluster: list[Node], agree: Agree, eventually: Eventually, name: str
) -> None:
    """And is gone from all when it is removed on another."""
    rule = {"name": name, "pattern": f"{name}:{{key}}", "limits": ["5/day", "2/hour; burst=2"]}
    answer = put(cluster[0], name, "5/day", "2/1h; burst=2")
    agree(cluster, f"/mesh/limits/{name}", rule)
    listed = cluster[1].get("/mesh/limits")
    cluster[2].request("DELETE", f"/mesh/limits/{name}")

    assert {"status": "updated", **rule} == answer
    assert rule in listed
    eventually(lambda: not any(rule in node.get("/mesh/limits") for node in cluster), "it is gone")


def test_each_key_of_a_pattern_has_its_limit_in_the_whole_cluster(
    cluster: list[Node], agree: Agree, name: str
) -> None:
    """Whichever node is asked; the last decision says how long to wait, in its headers too."""
    put(cluster[0], name, "4/31d")
    agree(cluster, f"/mesh/limits/{name}", cluster[0].get(f"/mesh/limits/{name}"))
    answers = [post(node, "acquire", {"key": f"{name}:a"}) for node in [*cluster, *cluster]]
    other = post(cluster[0], "acquire", {"key": f"{name}:b"})
    refused = answers[-1]

    assert 4 == sum(answer.status_code == 200 for answer in answers)
    assert 200 == other.status_code
    assert 429 == refused.status_code
    assert refused.json().keys() == DECISION
    assert 0 < refused.json()["retry_after_s"] <= 31 * 86_400
    assert '"4/31d";q=4;w=2678400' == refused.headers["ratelimit-policy"]
    assert refused.headers["ratelimit"].startswith('"4/31d";r=0;t=')
    assert ("4", "0") == (
        refused.headers["x-ratelimit-limit"],
        refused.headers["x-ratelimit-remaining"],
    )
    assert int(refused.headers["retry-after"]) >= refused.json()["retry_after_s"]


def test_the_global_limit_has_headers_too_and_no_limit_has_none(node: Node, name: str) -> None:
    """An unlimited key tells of nothing."""
    value = b'{"limit_per_second": 0}'.hex()
    node.request("POST", "/mesh/config", {"key": f"rate_limit:{name}", "value": value})
    answer = post(node, "acquire", {"key": name})

    assert 200 == answer.status_code
    assert [] == [header for header in answer.headers if "ratelimit" in header]


def test_several_keys_pass_together_or_not_at_all(node: Node, name: str) -> None:
    """What is refused is not counted of the key that would have passed."""
    put(node, name, "5/31d")
    keys = [{"key": f"{name}:a", "cost": 2}, {"key": f"{name}:b", "cost": 4}]
    answers = [post(node, "acquire", {"keys": keys}) for _ in range(2)]
    left = [post(node, "peek", {"key": f"{name}:{key}"}).json()["remaining"] for key in "ab"]

    assert [200, 429] == [answer.status_code for answer in answers]
    assert [3, 1] == left


def test_the_decisions_of_a_batch_are_independent(node: Node, name: str) -> None:
    """Each its own, an error among them too, in the order they were asked for."""
    put(node, name, "2/31d")
    costs = [1, 3, 1, 1]
    batch = [{"key": f"{name}:a", "cost": cost} for cost in costs] + [{"key": f"{name}-none"}]
    answer = post(node, "acquire", {"batch": batch})
    decisions = answer.json()["decisions"]

    assert 200 == answer.status_code
    assert [True, None, True, False, None] == [each.get("allowed") for each in decisions]
    assert ["invalid_request", "not_found"] == [
        each["code"] for each in decisions if "code" in each
    ]
    assert 0 == post(node, "peek", {"key": f"{name}:a"}).json()["remaining"]


def test_what_was_reserved_is_settled(node: Node, name: str) -> None:
    """By what was used in truth; once."""
    put(node, name, "1000/31d")
    reserved = post(node, "reserve", {"key": f"{name}:a", "estimate": 600})
    before = post(node, "peek", {"key": f"{name}:a"}).json()["remaining"]
    body = {"reservation_id": reserved.json()["reservation_id"], "actual": 150}
    settled = [post(node, "settle", body).status_code for _ in range(2)]

    assert (200, 400) == (reserved.status_code, before)
    assert [200, 404] == settled
    assert 850 == post(node, "peek", {"key": f"{name}:a"}).json()["remaining"]


def test_what_was_not_used_is_given_back_at_any_node(
    cluster: list[Node], agree: Agree, eventually: Eventually, name: str
) -> None:
    """And a reset gives back all of it."""
    put(cluster[0], name, "10/31d")
    agree(cluster, f"/mesh/limits/{name}", cluster[0].get(f"/mesh/limits/{name}"))
    key = f"{name}:a"

    def left(node: Node) -> int:
        return int(post(node, "peek", {"key": key}).json()["remaining"])

    assert 200 == post(cluster[0], "acquire", {"key": key, "cost": 10}).status_code
    assert 200 == post(cluster[1], "refund", {"key": key, "cost": 4}).status_code
    eventually(lambda: left(cluster[2]) == 4, "four are left")
    assert 200 == post(cluster[2], "reset", {"key": key}).status_code
    eventually(lambda: left(cluster[1]) == 10, "all are left")


def test_who_waits_is_served_when_there_is_room(node: Node, name: str) -> None:
    """In time, or refused at the end of the wait."""
    put(node, name, "10/second; burst=1")
    key = f"{name}:a"
    answers = [post(node, "acquire", {"key": key, "wait_s": 30}).status_code for _ in range(3)]
    put(node, name, "1/31d")
    post(node, "acquire", {"key": key})
    late = post(node, "acquire", {"key": key, "wait_s": 0.05})

    assert [200] * 3 == answers
    assert 429 == late.status_code


def test_the_statistics_of_a_rule_tell_of_each_of_its_limits(node: Node, name: str) -> None:
    """With its period; and the busiest keys are told."""
    put(node, name, "5/31d", "3/hour; burst=3")
    for _ in range(5):
        post(node, "acquire", {"key": f"{name}:a"})
    stats = node.get(f"/mesh/rate-limit/stats?key={name}:a")
    keys = node.get("/mesh/rate-limit/keys?limit=10000")["keys"]

    assert {"limit_per_second": 3, "current_count": 3, "remaining": 0} == {
        name: stats[name] for name in ("limit_per_second", "current_count", "remaining")
    }
    assert [("5/31d", 3, 2), ("3/hour; burst=3", 3, 0)] == [
        (usage["policy"], usage["used_count"], usage["remaining"]) for usage in stats["limits"]
    ]
    assert {"key": f"{name}:a", "mark": "3600g", "admitted_count": 3, "refused_count": 2} in keys


def slots(node: Node, verb: str, body: Any) -> Any:
    return node.client.post(f"/mesh/slots/{verb}", json=body)


def test_a_key_has_so_many_slots_in_the_whole_cluster(cluster: list[Node], name: str) -> None:
    """Whichever node is asked; one that is given back is had by who waits elsewhere."""
    body = {"key": name, "limit": 2, "lease_s": 600}
    first, second = (slots(node, "acquire", {**body, "wait_s": 30}) for node in cluster[:2])
    refused = slots(cluster[2], "acquire", body)
    given = {"slot_id": first.json()["slot_id"]}
    renewed = slots(cluster[0], "renew", given)
    elsewhere = slots(cluster[1], "release", given)
    released = [slots(cluster[0], "release", given).status_code for _ in range(2)]
    third = slots(cluster[2], "acquire", {**body, "wait_s": 30})

    assert [200, 200, 429] == [each.status_code for each in (first, second, refused)]
    assert DECISION | {"slot_id", "lease_s"} == refused.json().keys() == first.json().keys()
    assert '"2 at once";q=2;qu="concurrent-requests"' == refused.headers["ratelimit-policy"]
    assert {"status": "renewed", "lease_s": 600.0, **given} == renewed.json()
    assert (404, [200, 404]) == (elsewhere.status_code, released)
    assert (200, 600.0) == (third.status_code, third.json()["lease_s"])


def test_a_slot_is_free_when_its_holder_says_nothing(node: Node, name: str) -> None:
    """After its lease; who held it is told so when it speaks again."""
    body = {"key": name, "limit": 1, "lease_s": 0.2}
    first = slots(node, "acquire", {**body, "wait_s": 30})
    second = slots(node, "acquire", {**body, "wait_s": 30, "lease_s": 600})

    assert (200, 200) == (first.status_code, second.status_code)
    assert 404 == slots(node, "renew", {"slot_id": first.json()["slot_id"]}).status_code


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"limits": []}, "limits"),
        ({"limits": ["-1/second"]}, "rate"),
        ({"limits": ["5/eon"]}, "per"),
        ({"limits": ["5/second; burst=0"]}, "burst"),
        ({"limits": ["nan/second"]}, "rate"),
        ({"limits": ["5/second", "6/second"]}, "limits"),
        ({"limits": ["5/second"], "pattern": "a*"}, "pattern"),
        ({"limits": ["5/second"] * 9}, "limits"),
        ({"limits": "5/second"}, "limits"),
    ],
)
def test_a_rule_that_cannot_be_names_its_field(
    node: Node, name: str, body: Any, field: str
) -> None:
    """400, and there is no such rule."""
    answer = node.request("PUT", f"/mesh/limits/{name}", body, status=400)

    assert answer["error"].startswith(field)
    node.get(f"/mesh/limits/{name}", status=404)


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("acquire", {}),
        ("acquire", {"key": "a", "batch": []}),
        ("acquire", {"keys": [{"key": "a"}, {"key": "a"}]}),
        ("acquire", {"keys": []}),
        ("acquire", {"key": "global", "cost": 0}),
        ("acquire", {"key": "global", "cost": 1.5}),
        ("acquire", {"key": "global", "wait_s": 0}),
        ("acquire", {"key": ""}),
        ("acquire", {"batch": [{"key": "a"}] * 101}),
        ("../slots/acquire", {"key": "a"}),
        ("../slots/acquire", {"key": "", "limit": 1}),
        ("../slots/acquire", {"key": "a", "limit": 0}),
        ("../slots/acquire", {"key": "a", "limit": 1.5}),
        ("../slots/acquire", {"key": "a", "limit": 1, "wait_s": -1}),
        ("../slots/acquire", {"key": "a", "limit": 1, "lease_s": 0}),
        ("../slots/renew", {"slot_id": 3}),
        ("../slots/release", {}),
        ("reserve", {"key": "global", "estimate": 0}),
        ("reserve", {"key": "global", "estimate": 1, "lease_s": 0}),
        ("settle", {"reservation_id": "x", "actual": -1}),
        ("refund", {"key": "global", "cost": -1}),
        ("peek", {"key": "global", "cost": 0}),
        ("reset", {"key": ""}),
    ],
)
def test_what_cannot_be_asked_is_400(node: Node, verb: str, body: Any) -> None:
    """And nothing is counted."""
    assert 400 == post(node, verb, body).status_code
