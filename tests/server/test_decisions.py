"""Decisions as bytes, and the way to the routes that make them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match, Route

from meshlib.ratelimit import Decision
from meshlib_server.app import http_routes
from meshlib_server.middleware.headers import rate_limit_headers, raw_headers
from meshlib_server.resources import DirectRoutes
from meshlib_server.routes.decisions import as_json, as_text

ROUTES = http_routes()
DIRECT = DirectRoutes(ROUTES)

durations = st.floats(min_value=0.0, max_value=1e9)
decisions = st.builds(
    Decision,
    st.booleans(),
    st.integers(0, 1 << 62),
    st.integers(-1, 1 << 62),
    durations,
    durations,
    st.sampled_from(["", "5/second", "100/minute; burst=20", "4 at once"]),
    st.booleans(),
    st.integers(-1, 1 << 40),
)


def scope(path: str, **fields: str) -> dict[str, Any]:
    """Return what a server hands over of a request."""
    return {"type": "http", "method": "POST", "path": path, **fields}


@given(decisions, st.text(), durations)
def test_the_text_of_a_decision_is_its_json(decision: Decision, value: str, lease_s: float) -> None:
    """It is put together by hand, and says what `json` would."""
    expected = {**as_json(decision), "reservation_id": value, "lease_s": lease_s}

    assert expected == json.loads(as_text(decision, reservation_id=value, lease_s=lease_s))
    assert as_json(decision) == json.loads(as_text(decision))


@given(decisions)
def test_raw_headers_are_the_headers(decision: Decision) -> None:
    """An admission's and a refusal's, with and without a limit."""
    expected = {
        name.lower().encode(): value.encode()
        for name, value in rate_limit_headers(decision).items()
    }

    assert expected == dict(raw_headers(decision))


@pytest.mark.parametrize("route", [route for route in ROUTES if isinstance(route, Route)])
def test_the_direct_way_leads_where_the_other_does(route: Route) -> None:
    """No path is found that a router would give to another route, and none is passed over."""
    asked = scope(route.path.replace("{", "").replace("}", ""))
    first = next(other for other in ROUTES if other.matches(asked)[0] is not Match.NONE)

    match, found = DIRECT.matches(asked)

    if "{" in route.path or not hasattr(route.endpoint, "operations"):
        assert Match.NONE is match
    else:
        assert (Match.FULL, route.endpoint) == (match, found["endpoint"])
        assert first is route


def test_the_direct_way_is_for_paths_as_they_stand() -> None:
    """Behind a prefix of the server's, or a slash, the router looks itself."""
    path = "/mesh/rate-limit/acquire"

    assert Match.FULL is DIRECT.matches(scope(path))[0]
    assert Match.NONE is DIRECT.matches(scope(path + "/"))[0]
    assert Match.NONE is DIRECT.matches(scope("/x" + path, root_path="/x"))[0]
    assert Match.NONE is DIRECT.matches({"type": "websocket", "path": path})[0]
