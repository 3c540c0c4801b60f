"""`meshlib-server demo`: three nodes as three processes, walked through what they do together.

Every step looks at what the nodes answer over HTTP, prints one line of what it saw, and fails
the whole walk when that is not what the specification promises.
"""

from __future__ import annotations

import http.client
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from attrs import define, field

from meshlib_server.commands.nats import NatsServer
from meshlib_server.commands.processes import MODEL, Node, StepFailed, free_ports, make_nodes

__all__ = ["Node", "StepFailed", "make_nodes", "run_demo", "scrape_configuration"]

STEP_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.01
STOP_TIMEOUT_S: Final = 5.0
LIMIT_PER_SECOND: Final = 100
LIMIT_TOLERANCE: Final = 1.15
SETTLE_S: Final = 1.0
ACQUIRE_S: Final = 2.0
PROMPT: Final = "The quick brown fox"


def _require(is_so: bool, message: str) -> None:
    """Fail the step unless something is so."""
    if not is_so:
        raise StepFailed(message)


def _await_on(nodes: list[Node], what: str, is_so: Callable[[Node], bool]) -> str:
    """Wait until something is so on each of some nodes, and return how long that took."""
    started_at = time.monotonic()
    waiting = list(nodes)
    while waiting := [node for node in waiting if not is_so(node)]:
        if time.monotonic() - started_at > STEP_TIMEOUT_S:
            names = ", ".join(node.name for node in waiting)
            raise StepFailed(f"after {STEP_TIMEOUT_S:.0f} s not so on {names}: {what}")
        time.sleep(POLL_S)
    return f"{time.monotonic() - started_at:.2f} s"


def _status_of(node: Node, name: str) -> str | None:
    """Return the status of a member as a node sees it."""
    answer = node.get("/mesh/status") or {"nodes": []}
    found = [member["status"] for member in answer["nodes"] if member["name"] == name]
    return found[0] if found else None


@define
class _Walk:
    """The steps, in their order. Each returns what it saw."""

    nodes: list[Node]
    step_count: int = field(default=0, init=False)

    def run(self) -> None:
        """Walk through all steps, printing a line for each; raise `StepFailed` at the first."""
        steps: list[tuple[str, Callable[[], str]]] = [
            ("start", self.start),
            ("join", self.join),
            ("policy", self.see_policy),
            ("configuration", self.configure),
            ("rate limit", self.limit),
            ("decisions", self.acquire),
            ("worker state", self.add_workers),
            ("tree operation", self.insert_prefix),
            ("routing", self.route),
            ("kill -9", self.kill),
            ("survivors", self.write_meanwhile),
            ("restart", self.restart),
            ("graceful leave", self.leave),
        ]
        for name, step in steps:
            self.step_count += 1
            click.echo(f"{self.step_count:>3}  {name:<15} ", nl=False)
            click.echo(step())

    def start(self) -> str:
        """Start the processes."""
        for node in self.nodes:
            node.start()
        _await_on(self.nodes, "it answers", lambda node: node.get("/mesh/health") is not None)
        return "three processes: " + ", ".join(f"{node.name} at {node.url}" for node in self.nodes)

    def join(self) -> str:
        """The nodes find each other."""
        names = [node.name for node in self.nodes]

        def sees_all(node: Node) -> bool:
            answer = node.get("/mesh/status") or {"nodes": []}
            alive = [item["name"] for item in answer["nodes"] if item["status"] == "Alive"]
            return alive == names

        took = _await_on(self.nodes, "it sees three nodes Alive", sees_all)

        def is_healthy(node: Node) -> bool:
            return bool((node.get("/mesh/health") or {"status": ""})["status"] == "healthy")

        ready = _await_on(self.nodes, "it is ready and healthy", is_healthy)
        return f"each sees {', '.join(names)} Alive after {took}, healthy {ready} later"

    def see_policy(self) -> str:
        """The policy in the first node's configuration file is everywhere."""
        path = f"/mesh/policies/{MODEL}"
        _await_on(self.nodes, "it has the policy", lambda node: node.get(path) is not None)
        policy = self.nodes[2].do("GET", path)
        return f"node3 has {policy['policy_type']} for {MODEL}: {policy['config']}"

    def configure(self) -> str:
        """A key written on one node is read on the others."""
        body = {"key": "custom_feature_flag", "value": b"true".hex()}
        self.nodes[0].do("POST", "/mesh/config", body)
        path = "/mesh/config/custom_feature_flag"
        expected = {**body, "format": "hex"}
        took = _await_on(
            self.nodes[1:], "it has the key", lambda node: bool(node.get(path) == expected)
        )
        return f"custom_feature_flag = true, set on node1, read on node2 and node3 after {took}"

    def limit(self) -> str:
        """A limit set on one node holds on the others."""
        body = {"limit_per_second": LIMIT_PER_SECOND}
        self.nodes[1].do("POST", "/mesh/rate-limit", body)
        took = _await_on(
            self.nodes,
            "it has the limit",
            lambda node: bool(node.get("/mesh/rate-limit") == body),
        )
        return f"{LIMIT_PER_SECOND} a second, set on node2, known everywhere after {took}"

    def acquire(self) -> str:
        """All nodes together admit the limit, and no more than that."""
        self._ask_for(SETTLE_S)  # the first ones wait until owners have their first votes
        # Windows are whole seconds, and each admits the limit: begin with one.
        self._ask_for(-time.time() % 1.0)
        asked, allowed, took_s = self._ask_for(ACQUIRE_S)
        rate = allowed / took_s
        seen = (
            f"{allowed} of {asked} admitted in {took_s:.1f} s on three nodes: {rate:.0f} a second"
        )
        _require(rate <= LIMIT_PER_SECOND * LIMIT_TOLERANCE, f"over the limit: {seen}")
        _require(asked > allowed, f"nothing was refused: {seen}")
        _require(rate >= LIMIT_PER_SECOND / 2, f"far under the limit: {seen}")
        self.nodes[2].do("POST", "/mesh/rate-limit", {"limit_per_second": 0})
        return seen

    def _ask_for(self, duration_s: float) -> tuple[int, int, float]:
        """Ask every node in turn; return how many were asked for, admitted, and the seconds."""
        asked = allowed = 0
        started_at = time.monotonic()
        while (took_s := time.monotonic() - started_at) < duration_s:
            for node in self.nodes:
                status, _ = node.call("POST", "/mesh/rate-limit/acquire", {"key": "global"})
                _require(status in (200, 429), f"acquire answered {status}")
                allowed += status == 200
                asked += 1
        return asked, allowed, took_s

    def add_workers(self) -> str:
        """Workers registered on one node are known on the others."""
        for number in (1, 2):
            body = {
                "model_id": MODEL,
                "url": f"http://worker{number}:8000",
                "health": True,
                "load": 0.5,
            }
            self.nodes[2].do("PUT", f"/mesh/workers/worker{number}", body)
        took = _await_on(
            self.nodes, "it has two workers", lambda node: len(node.get("/mesh/workers") or []) == 2
        )
        return f"worker1 and worker2, registered on node3, known everywhere after {took}"

    def insert_prefix(self) -> str:
        """A tree operation on one node is matched on another."""
        operation = {"insert": {"text": PROMPT, "tenant": "worker1"}}
        self.nodes[0].do("POST", f"/mesh/trees/{MODEL}/operations", {"operations": [operation]})
        text = PROMPT + " jumps"

        def matches(node: Node) -> bool:
            answer = node.do("POST", f"/mesh/trees/{MODEL}/match", {"text": text})
            return bool(answer["tenant"] == "worker1" and answer["matched"] == len(PROMPT))

        took = _await_on(self.nodes[1:], "it matches the prefix", matches)
        return f"{PROMPT!r} on worker1, inserted on node1, matched on the others after {took}"

    def route(self) -> str:
        """Every node sends the same prompt to the worker that has its prefix."""
        text = PROMPT + " jumps"
        reasons = set()
        for node in self.nodes:
            answer = node.do("POST", f"/mesh/route/{MODEL}", {"text": text})
            _require(answer["worker_id"] == "worker1", f"{node.name} routed to {answer}")
            reasons.add(answer["reason"])
        return f"{text!r} goes to worker1 by each node: {', '.join(sorted(reasons))}"

    def kill(self) -> str:
        """A killed node is found out."""
        victim = self.nodes[2]
        assert victim.process is not None
        victim.process.send_signal(signal.SIGKILL)
        victim.wait(STOP_TIMEOUT_S)
        took = _await_on(
            self.nodes[:2], "it sees node3 Down", lambda node: _status_of(node, "node3") == "Down"
        )
        return f"node3 killed; Down for node1 and node2 after {took}"

    def write_meanwhile(self) -> str:
        """The others go on."""
        for number in range(100):
            body = {"key": f"meanwhile/{number}", "value": f"{number:04x}"}
            self.nodes[number % 2].do("POST", "/mesh/config", body)
        return "100 keys written to node1 and node2 meanwhile"

    def restart(self) -> str:
        """A restarted node has everything again."""
        node = self.nodes[2]
        node.start()

        def is_restored(node: Node) -> bool:
            keys = (node.get("/mesh/config") or {"keys": []})["keys"]
            return (
                sum(key.startswith("meanwhile/") for key in keys) == 100
                and len(node.get("/mesh/workers") or []) == 2
                and (node.get(f"/mesh/trees/{MODEL}") or {"operations": []})["operations"] != []
            )

        took = _await_on([node], "it has the keys, the workers and the tree", is_restored)
        _await_on(
            self.nodes, "it sees node3 Alive", lambda node: _status_of(node, "node3") == "Alive"
        )
        return f"node3 has the keys, the workers and the tree again {took} after its start"

    def leave(self) -> str:
        """A node that is told to leave says so, and ends well."""
        started_at = time.monotonic()
        self.nodes[2].do("POST", "/mesh/shutdown", expect=202)
        _await_on(
            self.nodes[:2],
            "it sees node3 Leaving",
            lambda node: _status_of(node, "node3") in ("Leaving", None),
        )
        exit_code = self.nodes[2].wait(STOP_TIMEOUT_S)
        took = time.monotonic() - started_at
        _require(exit_code == 0, f"node3 ended with exit code {exit_code}")
        return f"node3 Leaving for the others, and ended with exit code 0 after {took:.2f} s"


def run_demo(*, keep: bool, transport: str = "websocket") -> int:
    """Run the demonstration and return the exit code: 0 only when every step held.

    Args:
        keep: leave the cluster running, and print how to reach and how to stop it.
        transport: what carries frames between the nodes: `websocket`, or `nats`, for which a
            server of NATS is started beside them.
    """
    directory = Path(tempfile.mkdtemp(prefix="meshlib-demo-"))
    nats = None
    if transport == "nats":
        nats = NatsServer(directory, port=free_ports(1)[0], token=secrets.token_urlsafe(24))
    nodes = make_nodes(directory, settings=None if nats is None else nats.settings())
    walk = _Walk(nodes)
    started_at = time.monotonic()
    is_kept = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process is left behind
    try:
        if nats is not None:
            nats.start()
            click.echo(f"     NATS carries the frames, at 127.0.0.1:{nats.port}")
        walk.run()
        took = time.monotonic() - started_at
        click.echo(f"demo: all {walk.step_count} steps held in {took:.1f} s")
        if keep:
            nodes[2].start()
            _await_on(nodes, "it answers", lambda node: node.get("/mesh/health") is not None)
            _tell_how_to_use(nodes, directory, nats)
            is_kept = True
    except (StepFailed, OSError, http.client.HTTPException) as error:
        click.echo(f"FAILED: {error}")
        _show_logs(nodes)
        return 1
    finally:
        if not is_kept:
            for node in nodes:
                node.stop()
            if nats is not None:
                nats.stop()
            shutil.rmtree(directory, ignore_errors=True)
    return 0


def _show_logs(nodes: list[Node]) -> None:
    for node in nodes:
        if node.log.exists():
            tail = node.log.read_text(errors="replace").splitlines()[-20:]
            click.echo(f"--- {node.name}", err=True)
            for line in tail:
                click.echo(line, err=True)


def scrape_configuration(nodes: list[Node], directory: Path) -> str:
    """Return what Prometheus has to know to scrape the nodes.

    Args:
        nodes: the nodes.
        directory: where the file with their token is.

    Returns:
        YAML.
    """
    targets = ", ".join(f'"{node.url.removeprefix("http://")}"' for node in nodes)
    return f"""global: {{scrape_interval: 2s}}
scrape_configs:
  - job_name: meshlib
    authorization: {{type: Bearer, credentials_file: {directory}/tokens}}
    static_configs: [{{targets: [{targets}]}}]
"""


def _tell_how_to_use(nodes: list[Node], directory: Path, nats: NatsServer | None) -> None:
    click.echo("\nThe cluster is left running:")
    for node in nodes:
        assert node.process is not None
        click.echo(f"  {node.name}  {node.url}/mesh/status  pid {node.process.pid}")
    header = f'"Authorization: Bearer $(cat {directory}/tokens)"'
    click.echo(f"\n  curl -H {header} {nodes[0].url}/mesh/status")
    click.echo(f"  {nodes[0].url}/mesh/ui is the dashboard; it asks for that token")
    scraping = directory / "prometheus.yml"
    scraping.write_text(scrape_configuration(nodes, directory))
    where = f"--config.file={scraping} --storage.tsdb.path={directory}/prometheus"
    click.echo(f"  prometheus {where} scrapes all of them")
    processes = [node.process for node in nodes] + ([] if nats is None else [nats.process])
    pids = " ".join(str(process.pid) for process in processes if process is not None)
    assert nodes[1].process is not None
    click.echo(f"\nOne that dies is seen by the others:  kill -9 {nodes[1].process.pid}")
    click.echo(f"To stop them:  kill {pids}; rm -r {directory}")
