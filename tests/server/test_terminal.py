"""The commands that ask a node: what they print, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.servers import OTHER_TOKEN, TOKEN, Launcher, Node, eventually

from meshlib_server.commands.cli import main


def run(node: Node | None, *arguments: str, **environment: str) -> Result:
    """Run a command against a node."""
    variables = {"MESH_TOKEN": TOKEN, **environment}
    if node is not None:
        variables["MESH_ADDRESS"] = node.address
    return CliRunner().invoke(main, arguments, env=variables, catch_exceptions=False)


def test_status_says_how_the_cluster_is(node: Node) -> None:
    """In words, and with --json as the API has it."""
    told = run(node, "status")
    tree = json.loads(run(node, "status", "--json").stdout)

    assert told.stdout.startswith("node1 is ready, the cluster is healthy\n3 of 3 members in reach")
    assert ("ready", 3) == (tree["health"]["state"], tree["status"]["node_count"])


def test_members_are_a_table_with_a_row_for_each(node: Node) -> None:
    """However narrow the terminal is that is none."""
    lines = [line.split() for line in run(node, "members").stdout.splitlines() if line.strip()]

    assert ["name", "address", "status", "version"] == lines[0]
    assert ["node1", "node2", "node3"] == [line[0] for line in lines[-3:]]
    assert {"Alive"} == {line[2] for line in lines[-3:]}


def test_a_workers_name_can_do_nothing_to_a_terminal(node: Node, name: str) -> None:
    """Neither colour it nor begin a line; and what looks like markup is text."""
    strange = f"{name}\x1b[31m\n[bold]x"
    path = f"/mesh/workers/{name}%1B%5B31m%0A%5Bbold%5Dx"
    body = {"model_id": "m", "url": "http://w", "health": True, "load": 0.0}
    node.request("PUT", path, body)

    told = run(node, "workers").stdout
    ids = [worker["worker_id"] for worker in json.loads(run(node, "workers", "--json").stdout)]
    node.request("DELETE", path)

    assert f"{name}\\x1b[31m\\n[bold]x" in told
    assert "\x1b" not in told
    assert strange in ids


def test_configuration_is_written_read_listed_and_deleted(node: Node, name: str) -> None:
    """As text, or as bytes in hex."""
    assert f"updated: {name}\n" == run(node, "config", "set", name, "häh").stdout
    assert "häh\n" == run(node, "config", "get", name).stdout
    assert "68c3a468\n" == run(node, "config", "get", name, "--hex").stdout
    assert name in run(node, "config", "list").stdout.splitlines()
    assert 0 == run(node, "config", "set", name, "ff", "--hex").exit_code
    assert 2 == run(node, "config", "get", name).exit_code  # no text
    assert f"deleted: {name}\n" == run(node, "config", "delete", name).stdout
    assert 1 == run(node, "config", "get", name).exit_code


def test_limits_are_set_and_shown(node: Node, name: str) -> None:
    """Of any key."""
    assert 0 == run(node, "limits", "set", name, "1000").exit_code

    assert f"{name}: 0 in this window, of 1,000\n" == run(node, "limits", "get", name).stdout


def test_rules_are_set_listed_shown_and_removed(node: Node, name: str) -> None:
    """With all limits of a key of the pattern."""
    pattern = f"{name}:{{key}}"
    limits = ["1000/31d", "5000/month"]
    set_at = run(node, "limits", "rule", name, *limits, "--pattern", pattern)
    node.request("POST", "/mesh/rate-limit/acquire", {"key": f"{name}:a", "cost": 7})
    shown = run(node, "limits", "get", f"{name}:a").stdout
    listed = run(node, "limits", "list").stdout
    removed = run(node, "limits", "remove", name)

    assert f"updated: {name}\n" == set_at.stdout
    assert f"{name}: {pattern}: 1000/31d, 5000/month" in listed.splitlines()
    assert [
        f"{name}:a: 7 used of 1000/31d",
        f"{name}:a: 7 used of 5000/month",
    ] == shown.splitlines()
    assert f"deleted: {name}\n" == removed.stdout
    assert 1 == run(node, "limits", "remove", name).exit_code


def test_route_names_the_worker_and_why(node: Node, name: str) -> None:
    """And ends with 4 where there is none."""
    none = run(node, "route", name, "a prompt")
    body = {"model_id": name, "url": "http://w", "health": True, "load": 0.0}
    node.request("PUT", f"/mesh/workers/{name}", body)
    chosen = run(node, "route", name, "a prompt")

    assert (4, 0) == (none.exit_code, chosen.exit_code)
    assert "no healthy worker" in none.stderr
    assert f"{name} at http://w: no_match, 0 of 8 characters cached\n" == chosen.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "word"),
    [
        (["status"], {"MESH_TOKEN": "wrong"}, 1, "give one by --token-file or MESH_TOKEN"),
        (["status"], {"MESH_ADDRESS": "127.0.0.1:9"}, 3, "is --address right?"),
        (["config", "get", "no-such-key"], {}, 1, "no-such-key"),
        (["forget", "node2", "--yes"], {}, 1, "node2"),
        (["status", "--token-file", "/no/such"], {}, 2, "cannot read the token"),
        (["status", "--profile", "none"], {"XDG_CONFIG_HOME": "/no/such"}, 2, "profiles"),
        (["limits", "set", "k", "-1"], {}, 2, "-1"),
        (["status", "--ca-file", "/no/such"], {}, 3, "No such file"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    node: Node, arguments: list[str], environment: dict[str, str], code: int, word: str
) -> None:
    """That says what to do."""
    result = run(node, *arguments, **environment) if "MESH_ADDRESS" not in environment else run(
        None, *arguments, **environment
    )  # fmt: skip

    assert code == result.exit_code
    assert word in result.stderr
    assert "Traceback" not in result.output


def test_a_shell_completes_commands_and_options() -> None:
    """As the page on operations has it set up."""
    runner = CliRunner()
    script = runner.invoke(
        main, prog_name="meshlib-server", env={"_MESHLIB_SERVER_COMPLETE": "bash_source"}
    )
    found = []
    for words in ("meshlib-server li", "meshlib-server limits s", "meshlib-server status --js"):
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        variables = {"_MESHLIB_SERVER_COMPLETE": "bash_complete", **asked}
        completed = runner.invoke(main, prog_name="meshlib-server", env=variables)
        found.append(completed.stdout.split())

    assert "complete -o nosort -F" in script.stdout
    assert [["plain,limits"], ["plain,set"], ["plain,--json"]] == found


def test_a_profile_names_the_node_and_the_file_of_its_token(node: Node, tmp_path: Path) -> None:
    """So that neither is typed."""
    token = tmp_path / "token"
    token.write_text(f"{OTHER_TOKEN} admin\n")
    folder = tmp_path / "meshlib"
    folder.mkdir()
    (folder / "profiles.yaml").write_text(
        f"profiles:\n  here:\n    address: {node.address}\n    token_file: {token}\n"
    )

    result = run(None, "status", "--profile", "here", MESH_TOKEN="", XDG_CONFIG_HOME=str(tmp_path))

    assert (0, "node1 is ready") == (result.exit_code, result.stdout[:14])


@pytest.mark.slow
def test_leave_ends_the_node_and_events_end_with_it(own_launcher: Launcher) -> None:
    """Only when it is confirmed."""
    node = own_launcher.node("lone")
    node.start()
    eventually(node.is_ready, "it is ready")
    kept = CliRunner().invoke(
        main, ["leave"], input="n\n", env={"MESH_TOKEN": TOKEN, "MESH_ADDRESS": node.address}
    )
    assert 1 == kept.exit_code
    node.get("/mesh/health")

    assert "leaving" in run(node, "leave", "--yes").stdout
    assert 0 == node.started.wait(15)


def test_what_is_set_for_the_commands_is_no_setting_of_a_node(own_launcher: Launcher) -> None:
    """One environment may hold both."""
    environment = {"MESH_ADDRESS": "127.0.0.1:1", "MESH_TOKEN": "t", "MESH_CA_FILE": "c"}
    node = own_launcher.node("both", environment=environment)
    node.start()

    node.get("/mesh/health")
