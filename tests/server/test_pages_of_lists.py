"""Long lists in pages: each item once, whatever is written meanwhile."""

from __future__ import annotations

import urllib.parse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from support.servers import Node

from meshlib_server.bodies import page_of
from meshlib_server.problems import BadRequest

KINDS = ("/mesh/workers", "/mesh/policies", "/mesh/config")


def request_with(**query: str) -> Request:
    """Make a request with a query."""
    encoded = urllib.parse.urlencode(query).encode()
    return Request({"type": "http", "method": "GET", "headers": [], "query_string": encoded})


def pages(items: list[str], limit: int) -> list[list[str]]:
    """Ask for page after page."""
    found: list[list[str]] = []
    query = {"limit": str(limit)}
    while True:
        page = page_of(request_with(**query), items, key=str)
        found.append(page)
        if len(page) < limit:
            return found
        query["after"] = page[-1]


@given(items=st.lists(st.text(min_size=1), unique=True).map(sorted), limit=st.integers(1, 5))
def test_pages_together_are_the_list(items: list[str], limit: int) -> None:
    """Each item once, in order, in pages of the size that was asked for."""
    found = pages(items, limit)

    assert items == [item for page in found for item in page]
    assert all(len(page) == limit for page in found[:-1])


def test_what_is_removed_meanwhile_moves_no_other_item() -> None:
    """The last item of a page need not be there any more."""
    assert ["c", "d"] == page_of(request_with(after="b"), ["a", "c", "d"], key=str)


def test_without_a_query_a_list_is_whole() -> None:
    """As specified."""
    assert ["a", "b"] == page_of(request_with(), ["a", "b"], key=str)


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "x", "", "1.5", "٣", "9" * 5000])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    """Whatever else it is."""
    with pytest.raises(BadRequest, match="limit: expected 1 to 10,000"):
        page_of(request_with(limit=limit), ["a"], key=str)


def names_of(kind: str, answer: Any) -> list[str]:
    """Return the names in a list of one kind."""
    if kind == "/mesh/config":
        return list(answer["keys"])
    return [item.get("worker_id") or item["model_id"] for item in answer]


def test_each_list_of_a_server_comes_in_pages(node: Node, name: str) -> None:
    """By the same two parameters, in the order of its names."""
    for number in range(3):
        key = f"{name}-{number}"
        worker = {"model_id": "m", "url": "http://w", "health": True, "load": 0.0}
        node.request("PUT", f"/mesh/workers/{key}", worker)
        policy = {"policy_type": "cache_aware", "config": "{}"}
        node.request("PUT", f"/mesh/policies/{key}", policy)
        node.request("POST", "/mesh/config", {"key": key, "value": "00"})

    for kind in KINDS:
        page = names_of(kind, node.get(f"{kind}?limit=2&after={name}-0"))
        assert [f"{name}-1", f"{name}-2"] == page
