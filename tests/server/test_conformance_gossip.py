"""What a peer may send: frames of this cluster, with the peers' token, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from support.servers import Eventually, Launcher, Node
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect


def dial(node: Node, token: str | None = "peer-token-1") -> Any:
    """Open a gossip connection."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return connect(
        f"ws://{node.address}/mesh/gossip", additional_headers=headers, proxy=None, open_timeout=5
    )


def close_code(connection: Any) -> int:
    """Wait until the other side closes, and return its code."""
    with pytest.raises(ConnectionClosed):
        connection.recv(timeout=5)
    return int(connection.protocol.close_code)


@pytest.mark.parametrize("token", [None, "wrong", "operator-token-1"])
def test_without_the_peers_token_the_handshake_is_401(node: Node, token: str | None) -> None:
    """An operator's token is no peer's."""
    with pytest.raises(InvalidStatus) as caught:
        dial(node, token)

    assert 401 == caught.value.response.status_code
    assert "Bearer" == caught.value.response.headers["WWW-Authenticate"]


def test_with_the_peers_token_the_connection_is_taken(node: Node) -> None:
    """And stays open."""
    with dial(node) as connection:
        connection.ping().wait(5)


@pytest.mark.parametrize(
    "frame", [b"\x00", b"nonsense", b"\xff" * 1000, b"\x81", b"{}", b"\xc1" * 65_536]
)
def test_a_malformed_frame_closes_the_connection_and_changes_nothing(
    node: Node, frame: bytes
) -> None:
    """Dropped, and logged; the node goes on."""
    before = node.get("/mesh/status")
    with dial(node) as connection:
        connection.send(frame)

        assert 1008 == close_code(connection)

    assert before == node.get("/mesh/status")


def test_text_closes_the_connection(node: Node) -> None:
    """Frames are binary."""
    with dial(node) as connection:
        connection.send("text")

        assert 1003 == close_code(connection)


def test_an_empty_frame_closes_the_connection(node: Node) -> None:
    """It is none."""
    with dial(node) as connection:
        connection.send(b"")

        assert 1003 == close_code(connection)


def test_an_oversized_frame_closes_the_connection(node: Node) -> None:
    """Over 1 MiB, before it is read."""
    with dial(node) as connection:
        connection.send(b"a" * (1024 * 1024 + 1))

        assert 1009 == close_code(connection)


@pytest.mark.slow
def test_a_node_of_another_cluster_is_kept_out(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """Even with the right token: neither becomes a member of the other, and it is logged once."""
    ours = own_launcher.node("ours")
    ours.start()
    theirs = own_launcher.node("theirs", peers=[ours.port], config="mesh: {cluster_name: other}")
    theirs.start()

    def is_logged() -> bool:
        return any("cluster" in str(line) and "reject" in str(line) for line in ours.log_lines())

    eventually(is_logged, "the rejection is logged")
    assert {"ours": "Alive"} == ours.statuses()
    assert {"theirs": "Alive"} == theirs.statuses()


def test_what_is_rejected_is_logged_once_a_minute(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """However often it happens."""
    node = own_launcher.node("patient")
    node.start()

    for _ in range(20):
        with dial(node) as connection:
            connection.send(b"nonsense")
            close_code(connection)

    rejected = [line for line in node.log_of_its_life() if "reject" in str(line)]
    assert 1 == len(rejected), rejected


def test_no_token_and_no_text_is_ever_logged(own_launcher: Launcher) -> None:
    """Neither those of the process nor those that were presented."""
    node = own_launcher.node("discreet")
    node.start()
    node.client.get("/mesh/status", headers={"Authorization": "Bearer wrong-token-1"})
    with pytest.raises(InvalidStatus):
        dial(node, "wrong-token-2")
    operation = {"insert": {"text": "a very secret prompt", "tenant": "w1"}}
    node.request("POST", "/mesh/trees/m/operations", {"operations": [operation]})
    node.request("POST", "/mesh/trees/m/match", {"text": 7}, status=400)
    node.request("POST", "/mesh/shutdown", status=202)
    node.started.wait(5)

    log = node.log.read_text()

    assert not [word for word in ("operator-token", "peer-token", "wrong-token", "secret prompt")
                if word in log]  # fmt: skip
    assert log.splitlines()
    assert len(node.log_lines()) == len(log.splitlines())
