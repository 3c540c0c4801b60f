"""What is set of NATS, and servers whose frames it carries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.real_nats import RealNats, real_nats
from support.servers import Eventually, Launcher

from meshlib.errors import ConfigError
from meshlib_server.auth import Keyring, Secrets, TokenSet
from meshlib_server.config import load_settings
from meshlib_server.transports import NatsSettings, make_nats_transport

SERVERS = {"servers": ["nats://127.0.0.1:4222"]}


@pytest.mark.parametrize(
    ("mesh", "named"),
    [
        ({"transport": "nats"}, r"mesh\.nats\.servers"),
        ({"nats": SERVERS}, r"mesh\.transport: nats, or bridged"),
        ({"transport": "pigeon"}, "transport must be"),
        ({"transport": "nats", "nats": {**SERVERS, "user": "u"}}, "password_file"),
        ({"transport": "nats", "nats": {**SERVERS, "key_file": "k"}}, "certificate_file"),
        ({"transport": "nats", "nats": {"servers": ["nats://u:secret@a:1"]}}, "no secret"),
    ],
)
def test_settings_that_do_not_go_together_are_named(
    tmp_path: Path, mesh: dict[str, Any], named: str
) -> None:
    """Before anything is started, and without what they hold."""
    path = tmp_path / "mesh.yaml"
    path.write_text(yaml.safe_dump({"mesh": mesh}))

    with pytest.raises(ConfigError, match=named) as caught:
        load_settings(str(path), environment={}, flags={})

    assert "u:secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["password_file", "token_file", "ca_file"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """At the start, and not when NATS is dialled."""
    user = "u" if name == "password_file" else None
    settings = NatsSettings(
        servers=("nats://127.0.0.1:1",), user=user, **{name: str(tmp_path / "absent")}
    )
    keyring = Keyring(Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None))

    with pytest.raises(ConfigError, match=r"mesh\.nats"):
        make_nats_transport(settings, address="a:1", token=None, judge=keyring)


def test_the_tokens_of_peers_are_those_in_force() -> None:
    """Also after they were read again; without any only a peer without one is let in."""
    operators = TokenSet(["operator"])
    keyring = Keyring(Secrets(operators=operators, peers=TokenSet(["a"]), peer_token="a"))
    before = [keyring.accepts(token) for token in (b"a", b"b", b"", b"operator")]
    keyring.replace(Secrets(operators=operators, peers=TokenSet(["b"]), peer_token="b"))
    after = [keyring.accepts(token) for token in (b"a", b"b", b"", b"operator")]
    none = Keyring(Secrets(operators=operators, peers=TokenSet([]), peer_token=None))

    assert ([True, False, False, False], [False, True, False, False]) == (before, after)
    assert [False, True] == [none.accepts(token) for token in (b"a", b"")]


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[RealNats]:
    """A server of NATS that asks for a token."""
    with real_nats(tmp_path / "nats", config=['authorization { token: "of-nats" }']) as server:
        yield server


def config_of(server: RealNats, token_file: Path) -> str:
    """Return the configuration of a node."""
    return (
        f'mesh: {{transport: nats, nats: {{servers: ["{server.url}"], '
        f'token_file: "{token_file}"}}}}'
    )


@pytest.mark.slow
def test_servers_meet_over_nats(
    nats: RealNats, own_launcher: Launcher, tmp_path: Path, eventually: Eventually
) -> None:
    """They share what is written, take no gossip on their own port, and outlive NATS's end."""
    token_file = tmp_path / "token"
    token_file.write_text("of-nats\n")
    config = config_of(nats, token_file)
    one, two = own_launcher.cluster("one", "two", config=config)

    nats.kill()
    nats.start()
    one.request("POST", "/mesh/config", {"key": "k", "value": "00ff"})

    eventually(lambda: two.client.get("/mesh/config/k").status_code == 200, "it has the key")
    assert 404 == one.client.get("/mesh/gossip").status_code


@pytest.mark.slow
def test_a_server_that_nats_does_not_let_in_does_not_start(
    nats: RealNats, own_launcher: Launcher, tmp_path: Path
) -> None:
    """It says why in one line, without the secret, and ends with exit code 3."""
    token_file = tmp_path / "token"
    token_file.write_text("another-secret\n")
    node = own_launcher.node("one", config=config_of(nats, token_file))

    node.spawn()
    exit_code, said = node.started.wait(20), node.log.read_text()

    assert 3 == exit_code
    assert "cannot reach NATS" in said
    assert "another-secret" not in said


@pytest.mark.slow
def test_the_demonstration_walks_over_nats() -> None:
    """Each of its steps holds, and it leaves no process behind."""
    command = [sys.executable, "-m", "meshlib_server", "demo", "--transport", "nats"]

    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    assert (0, "") == (result.returncode, result.stderr), result.stdout
    assert "NATS carries the frames" in result.stdout
    assert "all 13 steps held" in result.stdout
