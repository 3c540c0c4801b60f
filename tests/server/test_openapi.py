"""The API's document: it is what the routes do, and what they do is in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Annotated, Any, Literal

import anyio
import attrs
import httpx2
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route
from support.servers import Launcher, Node

from meshlib_server.app import build_app, http_routes
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.describing import Scope, Shape, described, operation_of, schema_of
from meshlib_server.problems import Code
from meshlib_server.resources import operations_of, resource
from meshlib_server.service import Service
from meshlib_server.structure import AtMost, StructureError, structure

OPEN = Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None)


def answered(path: str) -> httpx2.Response:
    """Ask an application without a node."""

    async def run() -> httpx2.Response:
        app = build_app(Service(None, shut_down=lambda: None), secrets=OPEN)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return anyio.run(run)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Return the document as it is served."""
    answer = answered("/openapi.json")
    assert 200 == answer.status_code
    return dict(answer.json())


def test_the_document_has_the_operations_of_the_routes_and_no_others(
    document: dict[str, Any],
) -> None:
    """Method by method; `/ha` is `/mesh` once more."""
    described_ = {
        (path, method)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    served = {
        (path, method)
        for path, methods in operations_of(http_routes()).items()
        for method in methods
        if not path.startswith("/ha/")
    }

    assert served == described_
    assert len(served) > 25


def test_every_route_of_http_was_made_by_resource() -> None:
    """So that none is served that the document could not have."""
    assert len(operations_of(http_routes())) == len(http_routes())
    assert all(isinstance(route, Route) for route in http_routes())


def test_both_prefixes_serve_the_same() -> None:
    """Whatever is under one, but the page of the document, is under the other."""
    paths = operations_of(http_routes())
    mesh = {path[5:]: each for path, each in paths.items() if path.startswith("/mesh/")}
    upstream = {path[3:]: each for path, each in paths.items() if path.startswith("/ha/")}

    assert set(mesh) - set(upstream) <= {"/docs", "/ui", "/events"}
    assert {path: mesh[path] for path in upstream} == upstream


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    """Each schema is one of JSON Schema 2020-12, and each operation has a name of its own."""
    names = []
    for item in document["paths"].values():
        for method, operation in item.items():
            if method == "parameters":
                continue
            names.append(operation["operationId"])
            for response in operation["responses"].values():
                for content in response["content"].values():
                    jsonschema_rs.meta.validate(content.get("schema", {}))

    assert document["openapi"].startswith("3.1")
    assert len(names) == len(set(names))


def test_every_code_of_an_error_is_documented(document: dict[str, Any]) -> None:
    """A program that reads the document knows them all."""
    error = document["components"]["schemas"]["Error"]

    assert [str(code) for code in Code] == error["properties"]["code"]["enum"]


def test_the_page_is_whole_without_anything_from_elsewhere(document: dict[str, Any]) -> None:
    """No script, no link but to the document, and every operation on it."""
    answer = answered("/mesh/docs")
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            found.append((tag, dict(attrs)))

    Reader().feed(answer.text)

    assert "text/html; charset=utf-8" == answer.headers["content-type"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert [] == [tag for tag, _ in found if tag in ("script", "link", "img", "iframe")]
    assert ["/openapi.json"] == [given["href"] for tag, given in found if tag == "a"]
    ids = {given["id"] for tag, given in found if tag == "details"}
    assert ids == {
        operation["operationId"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_a_handler_that_is_not_described_is_refused() -> None:
    """An endpoint that the document does not know cannot be made."""

    async def handler(_request: Any) -> Any: ...

    with pytest.raises(TypeError, match="is not described"):
        resource("/x", get=handler)


def test_a_description_is_had_back() -> None:
    """What a handler was described as."""

    @described("Says so.", scope=Scope.READ, answers={200: None})
    async def handler(_request: Any) -> Any: ...

    assert ("Says so.", Scope.READ) == (
        operation_of(handler).summary,
        operation_of(handler).scope,
    )


@attrs.frozen(kw_only=True)
class Inner:
    """A part of a record."""

    number: float


@attrs.frozen(kw_only=True)
class Record:
    """A record with a field of each kind."""

    text: str
    count: int
    inner: Inner
    items: Annotated[tuple[Inner, ...], AtMost(2)] = ()
    flag: bool | None = None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "count", "inner", "items", "flag", "number", "x"]), inner
        )
    ),
    max_leaves=8,
)
NEAR_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(max_size=3) | JSON_VALUES,
        "count": st.integers() | JSON_VALUES,
        "inner": st.fixed_dictionaries({"number": st.integers() | st.floats(-9, 9)}) | JSON_VALUES,
        "items": st.lists(st.fixed_dictionaries({"number": st.integers()}), max_size=3),
        "flag": st.booleans() | st.none() | JSON_VALUES,
        "x": JSON_VALUES,
    },
)


@given(tree=NEAR_RECORDS)
@settings(max_examples=50)
def test_the_schema_of_a_record_takes_what_reading_it_takes(tree: Any) -> None:
    """Neither is stricter, but that a whole number written as 1.0 is an integer to JSON Schema."""
    tree = json.loads(json.dumps(tree))
    validator = jsonschema_rs.Draft202012Validator(schema_of(Record))
    try:
        structure(tree, Record)
        is_taken = True
    except StructureError:
        is_taken = False

    is_whole_float = isinstance(tree.get("count"), float) and tree["count"].is_integer()
    assert is_taken == (validator.is_valid(tree) and not is_whole_float)


def test_a_kind_without_a_schema_is_refused() -> None:
    """Rather than described as anything."""
    with pytest.raises(TypeError, match="there is no schema"):
        schema_of(bytes)


def test_a_shape_has_the_fields_that_are_always_there_and_those_that_may_be() -> None:
    """And no others."""
    shape = Shape({"status": Literal["done"]}, optional={"count": int})

    assert {
        "type": "object",
        "properties": {"status": {"enum": ["done"]}, "count": {"type": "integer"}},
        "required": ["status"],
        "additionalProperties": False,
    } == schema_of(shape)


# Every answer of a real server is a documented one

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SKIPPED = {("post", "/mesh/shutdown"), ("get", "/mesh/events")}
"""One would end the server that is asked, the other does not end itself; each has its own test."""


@pytest.fixture(scope="module")
def fuzzed(launcher: Launcher) -> Node:
    """A node of its own, since whatever can be written to it is."""
    tokens = {"MESH_TOKENS": "operator-token-1:admin,reader:read,router:operate"}
    node = launcher.node("fuzzed", environment=tokens)
    node.start()
    return node


def is_no_defect(response: Any) -> bool:
    """Tell whether an answer of 5xx is one that says so: nobody serves the model."""
    return bool(response.status_code == 503 and response.json()["code"] == "no_worker")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for path, methods in operations_of(http_routes()).items()
        for method in methods
        if not path.startswith("/ha/") and (method, path) not in SKIPPED
    ],
)
@pytest.mark.parametrize("token", ["operator-token-1", "router", "reader", None])
def test_schemathesis_finds_no_undocumented_answer(
    fuzzed: Node, method: str, path: str, token: str | None
) -> None:
    """And no 5xx, with a token of each scope and without one, for bodies right and wrong."""
    base = f"http://{fuzzed.address}"
    schema = schemathesis.openapi.from_dict(fuzzed.get("/openapi.json"))
    operation = schema[path][method.upper()]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    for mode in modes if operation.body else modes[:1]:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=15 if token == "operator-token-1" else 4,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        def ask(case: Any) -> None:
            response = case.call(base_url=base, headers=headers)
            checks = CHECKS if is_no_defect(response) else [*CHECKS, not_a_server_error]
            case.validate_response(response, checks=checks)
            if token is None and path not in ("/livez", "/readyz", "/mesh/docs", "/mesh/ui"):
                assert 401 == response.status_code

        ask()


def test_the_answer_to_shutdown_is_the_documented_one(
    document: dict[str, Any], own_launcher: Launcher
) -> None:
    """Asked once, since there is nobody to ask again."""
    node = own_launcher.node("ending")
    node.start()

    body = node.request("POST", "/mesh/shutdown", status=202)

    [content] = document["paths"]["/mesh/shutdown"]["post"]["responses"]["202"]["content"].values()
    jsonschema_rs.validate(content["schema"], body)


def test_the_text_of_the_document_names_each_scope(document: dict[str, Any]) -> None:
    """Of those that open endpoints."""
    text = document["components"]["securitySchemes"]["token"]["description"]

    assert ["read", "operate", "admin"] == re.findall(r"`(\w+)`", text)
