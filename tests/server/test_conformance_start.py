"""How a process starts, and how it says in one line that it cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.servers import Eventually, Launcher

PROGRAM = [sys.executable, "-m", "meshlib_server"]
INSECURE = ["--insecure", "--listen", "127.0.0.1:0"]


def first_of(*cases: Any) -> list[Any]:
    """Return cases of which the first alone is quick: each of them starts a process."""
    return [
        cases[0],
        *(pytest.param(*each, marks=pytest.mark.slow) for each in map(_several, cases[1:])),
    ]


def _several(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    inherited = {key: text for key, text in os.environ.items() if key[:5] != "MESH_"}
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """Check that a start failed as it should, and return the one line that says why."""
    lines = result.stderr.splitlines()
    assert (3, 1, "") == (result.returncode, len(lines), result.stdout), result
    assert lines[0].startswith("meshlib-server: ")
    return lines[0].removeprefix("meshlib-server: ")


def test_a_port_in_use_is_exit_code_3() -> None:
    """Whoever uses it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--insecure", "--listen", f"127.0.0.1:{port}")

    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" == one_line(result)


@pytest.mark.parametrize("flag", first_of("--config", "--token-file", "--peer-token-file"))
def test_an_unreadable_file_is_exit_code_3(flag: str, tmp_path: Path) -> None:
    """Named, with the reason."""
    absent = tmp_path / "absent"

    line = one_line(run("serve", *INSECURE, flag, str(absent)))

    assert str(absent) in line
    assert "No such file or directory" in line


@pytest.mark.parametrize(
    ("text", "named"),
    first_of(
        ("mesh: {self_nmae: a}", "mesh.self_nmae: unknown key"),
        ("mesh: {enabled: 1}", "mesh.enabled: expected a boolean"),
        ("mesh: [", "is no valid YAML"),
    ),
)
def test_a_mistake_in_the_configuration_is_exit_code_3(
    tmp_path: Path, text: str, named: str
) -> None:
    """An unknown key is an error that names it."""
    path = tmp_path / "mesh.yaml"
    path.write_text(text)

    assert named in one_line(run("serve", *INSECURE, "--config", str(path)))


def test_an_unknown_variable_is_exit_code_3() -> None:
    """It would be a mistake that nobody sees."""
    assert "MESH_SELF_NMAE" in one_line(run("serve", *INSECURE, MESH_SELF_NMAE="a"))


def test_without_a_token_it_refuses_to_start() -> None:
    """And says how to give one."""
    line = one_line(run("serve", "--listen", "127.0.0.1:0"))

    assert line.startswith("no token: ")
    assert "MESH_TOKENS" in line


def test_with_peers_and_no_peer_token_it_refuses_to_start() -> None:
    """Nobody would let it in."""
    line = one_line(
        run("serve", "--listen", "127.0.0.1:0", "--peer", "127.0.0.1:1", MESH_TOKENS="a")
    )

    assert line.startswith("no peer token: ")


def test_without_an_address_that_peers_could_reach_it_is_exit_code_3() -> None:
    """A peer elsewhere cannot dial this machine's loopback."""
    line = one_line(
        run("serve", "--insecure", "--listen", "127.0.0.1:0", "--peer", "192.0.2.99:8000")
    )

    assert line.startswith("there is no address that the peer 192.0.2.99:8000 could reach")


@pytest.mark.parametrize(
    "address", first_of("0.0.0.0:8000", "0:8000", "[::ffff:0.0.0.0]:8000", "*:8000")
)
def test_advertising_every_interface_is_exit_code_3(address: str) -> None:
    """0.0.0.0 is no address to dial, however it is written."""
    line = one_line(run("serve", *INSECURE, "--advertise", address))

    assert f"mesh.advertise_addr: {address} is no address to dial" == line


@pytest.mark.slow
def test_a_name_taken_by_a_live_node_is_exit_code_3(own_launcher: Launcher) -> None:
    """With the name and where the other one is."""
    node = own_launcher.node("taken")
    node.start()

    result = run(
        "serve", "--name", "taken", "--listen", "127.0.0.1:0", "--peer", node.address,
        MESH_TOKENS="a", MESH_PEER_TOKEN="peer-token-1",
    )  # fmt: skip

    errors = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert 3 == result.returncode
    assert [
        f"meshlib-server: the name 'taken' is already taken by a live node at {node.address}"
    ] == errors
    assert {"taken": "Alive"} == node.statuses()


@pytest.mark.parametrize(
    "arguments",
    first_of(
        ["serve", "--surprise"],
        ["serve", "--listen", "8000"],
        ["serve", "--peer", "host"],
        ["serve", "--advertise", "host:port"],
        ["serve", "--name"],
        ["serve", "more"],
        ["nothing"],
    ),
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    """With what is wrong about it."""
    result = run(*arguments)

    assert 2 == result.returncode
    assert "Error: " in result.stderr


@pytest.mark.parametrize("arguments", first_of(["--help"], ["serve", "--help"], ["demo", "--help"]))
def test_help_is_exit_code_0(arguments: list[str]) -> None:
    """On each level."""
    result = run(*arguments)

    assert 0 == result.returncode
    assert "Usage:" in result.stdout


def test_no_flag_takes_a_token_itself() -> None:
    """Command lines are seen by everybody on the machine."""
    flags = [word for word in run("serve", "--help").stdout.split() if word.startswith("--")]

    assert {"--token-file", "--peer-token-file"} == {flag for flag in flags if "token" in flag}


def test_insecure_listens_on_loopback_only(own_launcher: Launcher) -> None:
    """Even when the configuration says every interface; and it asks for no token."""
    config = 'mesh: {self_addr: "0.0.0.0:0"}'
    node = own_launcher.node("open", config=config, arguments=["--insecure"])
    node.arguments[node.arguments.index("--listen") + 1] = f"0.0.0.0:{node.port}"
    node.environment.update(MESH_TOKENS="", MESH_PEER_TOKEN="")
    node.client.headers.pop("authorization")
    node.start()

    assert 200 == node.client.get("/mesh/status").status_code
    listening = next(line for line in node.log_of_its_life() if line["message"] == "listening")
    assert f"127.0.0.1:{node.port}" == listening["address"]


def test_the_configuration_of_the_specification_works_as_printed(own_launcher: Launcher) -> None:
    """It listens everywhere, and advertises an address that is not 0.0.0.0."""
    port = own_launcher.free_ports(1)[0]
    config = f"""
mesh:
  enabled: true
  self_name: "router-node-1"
  self_addr: "0.0.0.0:{port}"
  init_peer: "router-node-2:8000"  # Optional: initial peer for bootstrap
"""
    node = own_launcher.node("router-node-1", port=port, config=config)
    node.arguments[:] = node.arguments[4:]  # no --name and no --listen
    node.start()

    status = node.get("/mesh/status")
    assert "router-node-1" == status["node_name"]
    host, _, advertised_port = status["nodes"][0]["address"].rpartition(":")
    assert str(port) == advertised_port
    assert host not in ("0.0.0.0", "")


@pytest.mark.parametrize("everywhere", first_of("0.0.0.0", "0"))
def test_listening_everywhere_advertises_this_machines_address_towards_its_peer(
    own_launcher: Launcher, eventually: Eventually, everywhere: str
) -> None:
    """Which on one machine is the loopback."""
    first = own_launcher.node("first")
    first.start()
    port = own_launcher.free_ports(1)[0]
    second = own_launcher.node("second", port=port, peers=[first.port])
    second.arguments[second.arguments.index("--listen") + 1] = f"{everywhere}:{port}"
    second.start()

    eventually(lambda: len(first.statuses()) == 2, "they join")

    addresses = {item["name"]: item["address"] for item in first.get("/mesh/status")["nodes"]}
    assert f"127.0.0.1:{port}" == addresses["second"]


def test_flags_win_over_the_environment_which_wins_over_the_file(own_launcher: Launcher) -> None:
    """The rising order of precedence, on a real process."""
    node = own_launcher.node(
        "flag",
        config="mesh: {self_name: file, cluster_name: file, zone: file}",
        environment={"MESH_SELF_NAME": "environment", "MESH_CLUSTER_NAME": "environment"},
    )
    node.start()

    assert "flag" == node.get("/mesh/status")["node_name"]


@pytest.mark.slow
def test_one_peer_of_the_file_may_be_a_list(own_launcher: Launcher, eventually: Eventually) -> None:
    """`init_peer` takes several, and passes over those that are not there."""
    first = own_launcher.node("first")
    first.start()
    peers = [f"127.0.0.1:{own_launcher.free_ports(1)[0]}", first.address]
    second = own_launcher.node("second", config=f"mesh: {{init_peer: {peers}}}")
    second.start()

    eventually(lambda: len(first.statuses()) == 2, "they join")


def test_the_installed_command_is_the_same_program() -> None:
    """`meshlib-server` and `python -m meshlib_server`."""
    command = Path(sys.executable).with_name("meshlib-server")

    result = subprocess.run(
        [command, "serve", "--help"], capture_output=True, text=True, timeout=20, check=False
    )

    assert run("serve", "--help").stdout.replace("python -m meshlib_server", "meshlib-server") == (
        result.stdout
    )
