"""Without tokens: whom the pages of other sites may not speak for, over real sockets."""

from __future__ import annotations

import http.client
import json

import pytest
from support.servers import Launcher, Node


@pytest.fixture(scope="module")
def insecure(launcher: Launcher) -> Node:
    """A node that asks for no token."""
    environment = {"MESH_TOKENS": "", "MESH_PEER_TOKEN": ""}
    node = launcher.node("insecure", arguments=["--insecure"], environment=environment)
    node.start()
    return node


def status_of(node: Node, method: str, path: str, headers: dict[str, str]) -> int:
    """Ask with exactly these headers beside `Host`, which may be one of them."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    assert (body.get("code") == "forbidden") == (answer.status == 403)
    return answer.status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[bad"},
        {"Host": "evil.example:8000"},
        {"Host": "localhost.evil.example"},
        {"Host": "192.0.2.1"},
        {"Host": "[bad"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/mesh/shutdown", "/mesh/gossip"])
def test_a_foreign_page_is_403(insecure: Node, headers: dict[str, str], path: str) -> None:
    """It can neither end a node nor speak as a peer, by whatever name it came here."""
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip
    if path == "/mesh/gossip":
        assert 403 == status_of(insecure, "GET", path, {**upgrade, **headers})
    else:
        assert 403 == status_of(insecure, "POST", path, {"Content-Length": "0", **headers})
    insecure.get("/mesh/health")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:8000"},
        {"Host": "LOCALHOST"},
        {"Host": "[::1]:8000"},
        {"Host": "node1.localhost", "Origin": "http://node1.localhost"},
        {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_what_comes_from_this_machine_is_answered(insecure: Node, headers: dict[str, str]) -> None:
    """By each of its own names, and from no browser at all."""
    assert 200 == status_of(insecure, "GET", "/mesh/health", headers)


def test_with_tokens_a_host_may_have_any_name(node: Node) -> None:
    """A page cannot know the token, and load balancers have names of their own."""
    headers = {"Host": "mesh.example", "Authorization": "Bearer operator-token-1"}

    assert 200 == status_of(node, "GET", "/mesh/health", headers)
