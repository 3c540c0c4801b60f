"""What every endpoint has in common: its paths, methods, tokens, limits and errors."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.servers import Launcher, Node

from meshlib_server.problems import Code

ENDPOINTS = {
    "/status": ["GET"],
    "/health": ["GET"],
    "/workers": ["GET", "PATCH"],
    "/workers/w": ["DELETE", "GET", "PUT"],
    "/policies": ["GET"],
    "/members/m": ["DELETE"],
    "/workers/w/cleared": ["POST"],
    "/workers/w/heartbeat": ["POST"],
    "/policies/m": ["DELETE", "GET", "PUT"],
    "/config": ["GET", "PATCH", "POST"],
    "/config/k": ["DELETE", "GET"],
    "/rate-limit": ["GET", "POST"],
    "/rate-limit/stats": ["GET"],
    "/rate-limit/acquire": ["POST"],
    "/rate-limit/keys": ["GET"],
    "/rate-limit/peek": ["POST"],
    "/rate-limit/refund": ["POST"],
    "/rate-limit/reset": ["POST"],
    "/rate-limit/reserve": ["POST"],
    "/rate-limit/settle": ["POST"],
    "/limits": ["GET"],
    "/limits/r": ["DELETE", "GET", "PUT"],
    "/trees/m": ["GET"],
    "/trees/m/operations": ["POST"],
    "/trees/m/match": ["POST"],
    "/route/m": ["POST"],
    "/shutdown": ["POST"],
}
CALLS = [(method, path) for path, methods in ENDPOINTS.items() for method in methods]
BODIES = {
    "/workers/w": {"model_id": "m", "url": "u", "health": True, "load": 0},
    "/policies/m": {"policy_type": "cache_aware", "config": ""},
    "/config": {"key": "k", "value": "00"},
    "/rate-limit": {"limit_per_second": 1},
    "/rate-limit/acquire": {"key": "global"},
    "/rate-limit/peek": {"key": "global"},
    "/rate-limit/refund": {"key": "global"},
    "/rate-limit/reset": {"key": "global"},
    "/rate-limit/reserve": {"key": "global", "estimate": 1},
    "/rate-limit/settle": {"reservation_id": "r", "actual": 1},
    "/limits/r": {"limits": ["5/minute"]},
    "/trees/m/operations": {"operations": []},
    "/trees/m/match": {"text": "a"},
    "/route/m": {"text": "a"},
}
WRITES = [
    ("PUT", "/mesh/workers/{name}"),
    ("PUT", "/mesh/policies/{name}"),
    ("POST", "/mesh/config"),
    ("POST", "/mesh/rate-limit"),
    ("POST", "/mesh/rate-limit/acquire"),
    ("POST", "/mesh/rate-limit/peek"),
    ("POST", "/mesh/rate-limit/refund"),
    ("POST", "/mesh/rate-limit/reset"),
    ("POST", "/mesh/rate-limit/reserve"),
    ("POST", "/mesh/rate-limit/settle"),
    ("PUT", "/mesh/limits/{name}"),
    ("POST", "/mesh/trees/{name}/operations"),
    ("POST", "/mesh/trees/{name}/match"),
    ("POST", "/mesh/route/{name}"),
]
BODY_BYTES_MAX = 1024 * 1024


def only_error(response: Any) -> str:
    """Check that a response is an error and nothing else, and return its message."""
    assert "application/json" == response.headers["content-type"]
    body = response.json()
    assert ["error", "code"] == list(body)
    assert body["code"] in list(Code)
    assert isinstance(body["error"], str)
    assert body["error"]
    return str(body["error"])


@pytest.mark.parametrize("prefix", ["/mesh", "/ha"])
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_without_a_token_every_endpoint_is_401(
    node: Node, prefix: str, method: str, path: str
) -> None:
    """And says which scheme it wants."""
    request = node.client.build_request(method, prefix + path, json=BODIES.get(path))
    del request.headers["authorization"]

    response = node.client.send(request)

    assert 401 == response.status_code
    assert "Bearer" == response.headers["www-authenticate"]
    only_error(response)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", "Basic operator-token-1", "operator-token-1",
               "Bearer peer-token-1"],
)  # fmt: skip
def test_a_wrong_token_is_401(node: Node, header: str) -> None:
    """Malformed, unknown, of another scheme, or a peer's."""
    response = node.client.get("/mesh/status", headers={"Authorization": header})

    assert 401 == response.status_code
    assert "Bearer" == response.headers["www-authenticate"]
    only_error(response)


@pytest.mark.parametrize("token", ["operator-token-1", "operator-token-2"])
def test_several_tokens_are_valid_at_once(node: Node, token: str) -> None:
    """While they are rotated."""
    response = node.client.get("/mesh/status", headers={"Authorization": f"Bearer {token}"})

    assert 200 == response.status_code


@pytest.mark.parametrize("prefix", ["/mesh", "/ha"])
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_with_the_mesh_not_enabled_every_endpoint_is_503(
    disabled: Node, prefix: str, method: str, path: str
) -> None:
    """As documented for each of them."""
    response = disabled.client.request(method, prefix + path, json=BODIES.get(path))

    assert 503 == response.status_code
    assert "the mesh is not enabled" == only_error(response)


def test_with_the_mesh_not_enabled_a_token_is_still_asked_for(disabled: Node) -> None:
    """Strangers learn nothing."""
    response = disabled.client.get("/mesh/status", headers={"Authorization": ""})

    assert 401 == response.status_code


@pytest.mark.parametrize("prefix", ["/mesh", "/ha"])
@pytest.mark.parametrize("path", list(ENDPOINTS))
def test_another_method_is_405_and_names_those_allowed(node: Node, prefix: str, path: str) -> None:
    """Complete, sorted, and HEAD wherever GET is."""
    response = node.client.request("TRACE", prefix + path)

    allowed = ENDPOINTS[path] + (["HEAD"] if "GET" in ENDPOINTS[path] else [])
    assert 405 == response.status_code
    assert ", ".join(sorted(allowed)) == response.headers["allow"]
    only_error(response)


@pytest.mark.parametrize(
    "path", ["/", "/mesh", "/mesh/", "/mesh/statuses", "/mesh/status/", "/mesh/status/more",
             "/mesh//status", "/status", "/hamesh/status", "/mesh/gossip", "/mesh/rate-limit/",
             "/mesh/trees", "/mesh/route"],
)  # fmt: skip
def test_an_unknown_path_is_404(node: Node, path: str) -> None:
    """Without a redirect to what it might have meant."""
    response = node.client.get(path)

    assert 404 == response.status_code
    only_error(response)


@pytest.mark.parametrize("path", ["/status", "/health", "/workers", "/policies", "/config"])
def test_the_other_prefix_answers_the_same(node: Node, path: str) -> None:
    """`/ha` is an alias of `/mesh`."""
    assert node.get(f"/mesh{path}") == node.get(f"/ha{path}")


def test_what_is_written_under_one_prefix_is_read_under_the_other(node: Node, name: str) -> None:
    """They are the same routes."""
    node.request("POST", "/ha/config", {"key": name, "value": "01"})

    assert "01" == node.get(f"/mesh/config/{name}")["value"]


def test_head_is_get_without_the_body(node: Node) -> None:
    """As HTTP has it."""
    response = node.client.head("/mesh/health")

    assert (200, b"") == (response.status_code, response.content)


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a": 1} trailing',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1, "a": 1}',
        b'{"\xff": 1}',
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"null",
        b"[]",
    ],
)
def test_a_body_that_is_no_json_object_is_400(
    node: Node, name: str, method: str, path: str, body: bytes
) -> None:
    """Malformed, a key twice, no JSON number, not UTF-8, nested without end, no object."""
    response = node.client.request(method, path.format(name=name), content=body)

    assert 400 == response.status_code
    only_error(response)


def test_a_key_that_is_given_twice_is_400(node: Node, name: str) -> None:
    """Which of the two was meant is not guessed."""
    body = f'{{"key": "{name}", "value": "00", "value": "01"}}'.encode()

    response = node.client.post("/mesh/config", content=body)

    assert 400 == response.status_code
    assert "twice" in only_error(response)
    node.get(f"/mesh/config/{name}", status=404)


def test_text_with_half_a_surrogate_pair_is_400(node: Node) -> None:
    """JSON can write it, and no Unicode text can hold it."""
    body = rb'{"key": "\ud800", "value": "00"}'

    response = node.client.post("/mesh/config", content=body)

    assert 400 == response.status_code
    assert "surrogate" in only_error(response)


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_an_oversized_body_is_413(node: Node, name: str, method: str, path: str) -> None:
    """Known by its declared length, before it is read."""
    body = b'{"a": "' + b"a" * BODY_BYTES_MAX + b'"}'

    response = node.client.request(method, path.format(name=name), content=body)

    assert 413 == response.status_code
    assert "1,048,576" in only_error(response)


def test_an_oversized_body_without_a_length_is_413(node: Node) -> None:
    """Counted while it comes in chunks."""

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * (BODY_BYTES_MAX // 16)

    response = node.client.post("/mesh/config", content=chunks())

    assert 413 == response.status_code
    only_error(response)


def test_a_body_in_chunks_is_put_together(node: Node, name: str) -> None:
    """However it is cut."""
    body = json.dumps({"key": name, "value": "01"}).encode()

    response = node.client.post("/mesh/config", content=(bytes([byte]) for byte in body))

    assert 200 == response.status_code


def test_a_declared_length_beyond_the_limit_is_refused_at_once(node: Node) -> None:
    """The server does not wait for what it will not read."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=5)
    connection.putrequest("POST", "/mesh/config")
    connection.putheader("Authorization", "Bearer operator-token-1")
    connection.putheader("Content-Length", "99999999999")
    connection.endheaders()

    response = connection.getresponse()

    assert 413 == response.status
    connection.close()


def test_a_client_that_breaks_off_leaves_the_server_well(node: Node, name: str) -> None:
    """Half a body is nobody's write."""
    with socket.create_connection(("127.0.0.1", node.port)) as sock:
        sock.sendall(
            b"POST /mesh/config HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"
            b"Authorization: Bearer operator-token-1\r\n\r\n" + b'{"key": "' + name.encode()
        )

    node.get("/mesh/health")
    node.get(f"/mesh/config/{name}", status=404)


def exchange(node: Node, request: bytes) -> bytes:
    """Send bytes as they are, and return what comes back until the connection ends."""
    answer = b""
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as sock:
        sock.sendall(request)
        while chunk := sock.recv(65_536):
            answer += chunk
    return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        "GET /mesh/config/é HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        b"POST /mesh/config HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ],
    ids=["no request", "a path that is not encoded", "a length that is none"],
)
def test_what_is_no_http_is_400_in_json(node: Node, request_bytes: bytes) -> None:
    """What never reaches an endpoint is answered like the rest, and the connection closed."""
    head, _, body = exchange(node, request_bytes).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\ncontent-type: application/json\r\n" in head
    expected = {"error": "Invalid HTTP request received.", "code": "invalid_request"}
    assert expected == json.loads(body)


def test_what_is_no_http_is_logged_once_a_minute(own_launcher: Launcher) -> None:
    """A stranger cannot fill the disk."""
    node = own_launcher.node("pestered")
    node.start()

    for _ in range(20):
        exchange(node, b"GARBAGE\r\n\r\n")

    lines = [line for line in node.log_of_its_life() if "Invalid HTTP" in line["message"]]
    assert ["warning"] == [line["level"] for line in lines]


def test_errors_do_not_end_a_connection(node: Node) -> None:
    """A client with a mistake goes on over the same one."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=5)
    headers = {"Authorization": "Bearer operator-token-1"}
    statuses = []
    for method, path, body in (
        ("POST", "/mesh/config", "{"),
        ("GET", "/mesh/nothing", None),
        ("GET", "/mesh/health", None),
    ):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)

    assert [400, 404, 200] == statuses
    connection.close()


def test_with_the_mesh_not_enabled_a_body_is_not_looked_at(disabled: Node) -> None:
    """A request that would be a 400 elsewhere is a 503 like every other."""
    response = disabled.client.post("/mesh/config", content=b"{")

    assert response.status_code == 503


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/mesh/health"),
        ("GET", "/mesh/status"),
        ("GET", "/ha/workers"),
        ("GET", "/mesh/rate-limit"),
        ("GET", "/mesh/rate-limit/stats"),
        ("GET", "/mesh/config"),
        ("PUT", "/mesh/policies/m"),
        ("POST", "/mesh/config"),
        ("POST", "/mesh/shutdown"),
    ],
)
def test_an_unknown_query_parameter_is_400(node: Node, method: str, path: str) -> None:
    """With its name: who asks for it would take the answer for one to it."""
    body = BODIES.get(path.removeprefix("/mesh")) if method != "GET" else None

    error = node.request(method, f"{path}?window=60&most", body, status=400)["error"]

    assert error.startswith("unknown query parameters: 'most', 'window'; known: ")
