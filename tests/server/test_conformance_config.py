"""`/mesh/config`, as the specification writes it, and the writers beside it."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from support.servers import Agree, Eventually, Node


def test_a_key_is_answered_with_exactly_the_documented_fields(node: Node, name: str) -> None:
    """The value in hex, and the word that says so."""
    node.request("POST", "/mesh/config", {"key": name, "value": "68656c6c6f"})

    answer = node.get(f"/mesh/config/{name}")

    assert {"key": name, "value": "68656c6c6f", "format": "hex"} == answer
    assert ["key", "value", "format"] == list(answer)


def test_updating_answers_with_exactly_the_documented_fields(node: Node, name: str) -> None:
    """A status and the key."""
    answer = node.request("POST", "/mesh/config", {"key": name, "value": "74727565"})

    assert {"status": "updated", "key": name} == answer


def test_a_key_reaches_every_node(cluster: list[Node], agree: Agree, name: str) -> None:
    """What one node is told, all know; the last write wins."""
    for writer, value in zip(cluster, ("01", "02", "03"), strict=True):
        writer.request("POST", "/mesh/config", {"key": name, "value": value})
        agree(cluster, f"/mesh/config/{name}", {"key": name, "value": value, "format": "hex"})


@pytest.mark.parametrize(("given", "kept"), [("", ""), ("ABCDEF", "abcdef"), ("00ff", "00ff")])
def test_hex_of_either_case_is_taken(node: Node, name: str, given: str, kept: str) -> None:
    """And answered in lower case; an empty value is a value."""
    node.request("POST", "/mesh/config", {"key": name, "value": given})

    assert kept == node.get(f"/mesh/config/{name}")["value"]


@pytest.mark.parametrize("value", ["abc", "6", "zz", "0x12", "68 65", "６８", "68\n"])
def test_odd_or_invalid_hex_is_400_and_changes_nothing(node: Node, name: str, value: str) -> None:
    """As the specification has it."""
    error = node.request("POST", "/mesh/config", {"key": name, "value": value}, status=400)

    assert "hex" in error["error"]
    node.get(f"/mesh/config/{name}", status=404)


def test_a_key_that_nobody_set_is_404(node: Node, name: str) -> None:
    """With an error that names it."""
    assert name in node.get(f"/mesh/config/{name}", status=404)["error"]


def test_the_keys_are_listed_sorted(node: Node, name: str) -> None:
    """Without their values."""
    for suffix in ("b", "c", "a"):
        node.request("POST", "/mesh/config", {"key": f"{name}-{suffix}", "value": "00"})

    keys = node.get("/mesh/config")["keys"]

    assert sorted(keys) == keys
    assert [f"{name}-a", f"{name}-b", f"{name}-c"] == [k for k in keys if k.startswith(name)]


def test_a_deleted_key_is_gone_from_every_node(
    cluster: list[Node], eventually: Eventually, agree: Agree, name: str
) -> None:
    """And deleting it again is a 404."""
    path = f"/mesh/config/{name}"
    cluster[0].request("POST", "/mesh/config", {"key": name, "value": "00"})
    agree(cluster, path, {"key": name, "value": "00", "format": "hex"})

    assert {"status": "deleted", "key": name} == cluster[2].request("DELETE", path)

    for node in cluster:
        eventually(partial(lambda n: n.client.get(path).status_code == 404, node), "it is gone")
        assert name not in node.get("/mesh/config")["keys"]
    cluster[2].request("DELETE", path, status=404)


@pytest.mark.parametrize("suffix", ["a/b", "a b", "ü", "日本", "100%", "a?b#c", "..", "a//", "\n"])
def test_a_key_may_hold_any_text(node: Node, name: str, suffix: str) -> None:
    """Slashes and any Unicode, percent-encoded in the path."""
    key = f"{name}/{suffix}"
    node.request("POST", "/mesh/config", {"key": key, "value": "01"})

    assert key == node.get("/mesh/config/" + quote(key, safe=""))["key"]


def test_a_slash_of_a_key_need_not_be_encoded(node: Node, name: str) -> None:
    """`a/b` and `a%2Fb` are one key."""
    node.request("POST", "/mesh/config", {"key": f"{name}/b", "value": "01"})

    assert node.get(f"/mesh/config/{name}/b") == node.get(f"/mesh/config/{name}%2Fb")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "missing"),
        ({"key": "k"}, "value: missing"),
        ({"value": "00"}, "key: missing"),
        ({"key": 1, "value": "00"}, "key"),
        ({"key": "k", "value": 0}, "value"),
        ({"key": "k", "value": None}, "value"),
        ({"key": "k", "value": "00", "format": "hex"}, "format"),
        ({"key": "", "value": "00"}, "key"),
        ({"key": "k" * 1025, "value": "00"}, "key"),
        ({"key": "k", "value": "00" * 262_145}, "value"),
        ([], "object"),
        ("text", "object"),
    ],
)
def test_a_body_that_is_no_update_is_400(node: Node, body: Any, named: str) -> None:
    """Missing and unknown fields, wrong types, empty and oversized keys, oversized values."""
    response = node.client.post("/mesh/config", json=body)

    assert 400 == response.status_code
    assert named in response.json()["error"]


@pytest.mark.parametrize("key", ["", "k" * 1025])
def test_reading_a_key_that_cannot_be_one_is_an_error(node: Node, key: str) -> None:
    """Empty is 400; one that is too long was never set."""
    assert node.client.get(f"/mesh/config/{key}").status_code in (400, 404)


def test_a_value_of_the_full_size_is_kept(cluster: list[Node], agree: Agree, name: str) -> None:
    """256 KiB, less what its encoding takes."""
    value = "5a" * (262_144 - 8)
    cluster[0].request("POST", "/mesh/config", {"key": name, "value": value})

    agree(cluster, f"/mesh/config/{name}", {"key": name, "value": value, "format": "hex"})
