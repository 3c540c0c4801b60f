"""State on disks: all nodes end at once, and disks and files are not as they should be."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from support.servers import Launcher, Node, eventually

INTERVAL_S = 0.5

WITHOUT_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Has root, too, asked for its permission to write."""


def kept(launcher: Launcher, folder: Path, name: str = "one", **settings: Any) -> Node:
    """Make a node that keeps its state in a folder."""
    path = folder / f"{name}.db"
    arguments = ["--storage-path", str(path), "--storage-interval", str(INTERVAL_S)]
    return launcher.node(name, arguments=[*arguments, "--gossip-profile", "local"], **settings)


def set_key(node: Node, key: str, value: str = "00") -> None:
    """Write one key."""
    node.request("POST", "/mesh/config", {"key": key, "value": value})


def keys_of(node: Node) -> set[str]:
    """Return the keys that a node has."""
    return set(node.get("/mesh/config")["keys"])


def problems(node: Node) -> str:
    """Return the problems that a node tells of, as one text."""
    return "\n".join(node.get("/mesh/health")["problems"])


def is_saved(path: Path, since: float) -> bool:
    """Tell whether a file was written after a moment."""
    return path.exists() and path.stat().st_mtime > since


def save(node: Node, path: Path) -> None:
    """Wait until all that was written so far must be in the file."""
    since = time.time()
    set_key(node, f"marker-{since}")
    eventually(lambda: is_saved(path, since), "it saves")
    since = time.time()
    set_key(node, f"marker-{since}")
    eventually(lambda: is_saved(path, since), "it saves again")


@pytest.mark.slow
def test_limits_and_keys_are_in_force_before_the_first_request(
    own_launcher: Launcher, tmp_path: Path
) -> None:
    """A node that is alone among peers that do not answer has its limit at its first answer."""
    dead_port = own_launcher.free_ports(1)[0]
    node = kept(own_launcher, tmp_path, peers=[dead_port])
    node.start()
    eventually(node.is_ready, "it begins alone")
    node.request("POST", "/mesh/rate-limit", {"limit_per_second": 17})
    set_key(node, "key")
    save(node, tmp_path / "one.db")
    node.kill()

    node.start()

    assert 17 == node.get("/mesh/rate-limit")["limit_per_second"]
    assert "key" in keys_of(node)
    assert not node.is_ready()


@pytest.mark.slow
def test_a_stop_saves_what_no_interval_did(own_launcher: Launcher, tmp_path: Path) -> None:
    """The last save is made at the end."""
    node = own_launcher.node(
        "one", arguments=["--storage-path", str(tmp_path / "one.db"), "--storage-interval", "600"]
    )
    node.start()
    set_key(node, "key")
    node.started.send_signal(signal.SIGTERM)
    assert 0 == node.started.wait(30)

    node.start()

    assert {"key"} == keys_of(node)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rounds", [3, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_killing_all_at_once_loses_nothing_older_than_the_interval(
    own_launcher: Launcher, tmp_path: Path, rounds: int
) -> None:
    """Kill -9 of three at random moments, of saves too; every node has all that had its time."""
    ports = own_launcher.free_ports(3)
    nodes = [
        kept(own_launcher, tmp_path, f"n{i}", port=port, peers=[p for p in ports if p != port])
        for i, port in enumerate(ports)
    ]
    rng = random.Random(12)
    written: dict[str, float] = {}
    for round_number in range(rounds):
        for node in nodes:
            node.spawn()
        for node in nodes:
            node.await_answer()
        for node in nodes:
            eventually(node.is_ready, f"{node.name} is ready")
            assert set() == set(written) - keys_of(node)
        ends_at = time.monotonic() + rng.uniform(1.5, 3.0)
        number = 0
        while time.monotonic() < ends_at:
            key = f"{round_number}-{number}"
            set_key(nodes[number % 3], key, os.urandom(100).hex())
            written[key] = time.monotonic()
            number += 1
        killed_at = time.monotonic()
        for node in nodes:
            node.started.kill()
        for node in nodes:
            node.started.wait()
        # A save begins an interval after the one before has ended, and takes its time itself.
        written = {k: at for k, at in written.items() if at < killed_at - 2 * INTERVAL_S}
    assert len(written) > 100


@pytest.mark.slow
def test_a_full_disk_is_a_problem_and_not_an_end(own_launcher: Launcher, tmp_path: Path) -> None:
    """The file is as before, the node answers and says so, and saves once there is room."""
    path = tmp_path / "one.db"
    node = kept(own_launcher, tmp_path)
    node.start()
    set_key(node, "early")
    save(node, path)
    before = path.stat().st_ino
    pid = node.started.pid
    limit = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (path.stat().st_size, limit[1]))
    for number in range(20):
        set_key(node, f"late-{number}", os.urandom(20_000).hex())

    eventually(lambda: "cannot be written" in problems(node), "it tells that it cannot save")
    assert "degraded" == node.get("/mesh/health")["status"]
    assert before == path.stat().st_ino
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
    eventually(lambda: not problems(node), "it saves again")
    node.kill()
    node.start()

    assert {"early", "late-0", "late-19"} <= keys_of(node)


@pytest.mark.slow
def test_a_read_only_folder_is_a_problem_and_not_an_end(
    own_launcher: Launcher, tmp_path: Path
) -> None:
    """What is there is begun with; that nothing is saved is told until it is."""
    folder = tmp_path / "folder"
    folder.mkdir()
    first = kept(own_launcher, folder)
    first.start()
    set_key(first, "key")
    save(first, folder / "one.db")
    first.kill()
    folder.chmod(0o555)
    node = kept(own_launcher, folder)
    node.launcher = WITHOUT_OVERRIDE if os.geteuid() == 0 else ()
    node.start()

    assert "key" in keys_of(node)
    assert "cannot be written" in problems(node)
    folder.chmod(0o755)
    eventually(lambda: not problems(node), "it saves again")


def other_cluster(path: Path) -> None:
    """Leave a file that a node of another cluster wrote."""
    # Whose it is stands under the digest, so it is written by such a node.
    path.unlink()
    launcher = Launcher(directory=path.parent)
    node = kept(launcher, path.parent, config="mesh: {cluster_name: other}")
    node.start()
    set_key(node, "foreign")
    launcher.stop()


def other_node(path: Path) -> None:
    """Leave a file that another node wrote."""
    launcher = Launcher(directory=path.parent)
    node = kept(launcher, path.parent, "two")
    node.start()
    set_key(node, "foreign")
    launcher.stop()
    (path.parent / "two.db").rename(path)


def newer(path: Path) -> None:
    """Leave a file of a format of the future."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def torn(path: Path) -> None:
    """Leave half a file."""
    os.truncate(path, path.stat().st_size // 2)


def corrupt(path: Path) -> None:
    """Leave what is no database."""
    path.write_bytes(os.urandom(10_000))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(other_cluster, "is of cluster 'other', not 'mesh'", marks=pytest.mark.slow),
        pytest.param(other_node, "is of node 'two', not 'one'", marks=pytest.mark.slow),
        (newer, "has format 99, and the newest known here is"),
        pytest.param(torn, "is not used", marks=pytest.mark.slow),
        pytest.param(corrupt, "cannot be read", marks=pytest.mark.slow),
    ],
)
def test_a_file_that_is_not_to_be_used_is_set_aside(
    own_launcher: Launcher, tmp_path: Path, spoil: Any, says: str
) -> None:
    """It is kept as it was, and the node says why until somebody takes it away."""
    path, aside = tmp_path / "one.db", tmp_path / "one.db.aside-1"
    node = kept(own_launcher, tmp_path)
    node.start()
    set_key(node, "key", os.urandom(20_000).hex())
    save(node, path)
    node.kill()
    spoil(path)
    content = path.read_bytes()

    node.start()

    assert set() == keys_of(node)
    assert says in problems(node)
    assert content == aside.read_bytes()
    save(node, path)
    aside.unlink()
    eventually(lambda: not problems(node), "it is content")


@pytest.mark.slow
def test_what_cannot_be_set_aside_is_not_overwritten(
    own_launcher: Launcher, tmp_path: Path
) -> None:
    """Eight files are enough: then nothing is saved before one is taken away."""
    path = tmp_path / "one.db"
    for number in range(1, 9):
        (tmp_path / f"one.db.aside-{number}").write_text(str(number))
    path.write_text("no database")
    node = kept(own_launcher, tmp_path)
    node.start()
    set_key(node, "key")

    eventually(lambda: "nothing is saved" in problems(node), "it tells that it saves nothing")
    time.sleep(2 * INTERVAL_S)
    assert "no database" == path.read_text()
    (tmp_path / "one.db.aside-3").unlink()
    eventually(lambda: path.exists() and path.read_bytes()[:6] == b"SQLite", "it saves")

    assert "no database" == (tmp_path / "one.db.aside-3").read_text()


@pytest.mark.slow
def test_two_processes_do_not_share_a_file(own_launcher: Launcher, tmp_path: Path) -> None:
    """The second one does not start, and says why."""
    node = kept(own_launcher, tmp_path)
    node.start()
    second = kept(own_launcher, tmp_path)
    second.spawn()

    assert 3 == second.started.wait(30)
    assert "in use by another" in second.log.read_text()


@pytest.mark.slow
def test_a_side_that_restarts_alone_remembers_the_other(
    own_launcher: Launcher, tmp_path: Path
) -> None:
    """Two are killed and one of them comes back, to which nobody was ever named."""
    first = kept(own_launcher, tmp_path, "a")
    second = kept(own_launcher, tmp_path, "b", peers=[first.port])
    third = kept(own_launcher, tmp_path, "c", peers=[first.port])
    nodes = [first, second, third]
    for node in nodes:
        node.start()
    for node in nodes:
        eventually(lambda node=node: len(node.statuses()) == 3, "they have met")  # type: ignore[misc]
    first.request("POST", "/mesh/rate-limit", {"limit_per_second": 30})
    save(first, tmp_path / "a.db")
    for node in nodes:
        node.kill()
    first.start()
    eventually(first.is_ready, "it goes on alone")
    health, alone = first.get("/mesh/health"), first.statuses()
    asked = [first.client.post("/mesh/rate-limit/acquire", json={"key": "global"}) for _ in "12"]
    second.start()
    eventually(lambda: first.statuses()["b"] == "Alive", "they have met again")
    eventually(lambda: first.get("/mesh/health")["status"] == "degraded", "two are a majority")
    eventually(lambda: first.get("/mesh/health")["state"] == "ready", "it is one of them")

    assert {"a": "Alive", "b": "Down", "c": "Down"} == alone
    assert ("partitioned", "isolated") == (health["status"], health["state"])
    assert [200, 200] == [answer.status_code for answer in asked]
    assert not any(answer.json()["confirmed"] for answer in asked)
