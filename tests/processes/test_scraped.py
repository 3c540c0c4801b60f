"""A real Prometheus scrapes nodes, as the demonstration tells it to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers import eventually

from meshlib_server.commands.demo import Node, make_nodes, scrape_configuration
from meshlib_server.commands.processes import free_ports

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def prometheus(configuration: str, folder: Path) -> Iterator[str]:
    """Run a Prometheus inside the block; yield its address."""
    program = shutil.which("prometheus")
    if program is None:
        if os.environ.get("MESHLIB_BROWSER_REQUIRED"):  # where CI runs, it installs both
            pytest.fail("there is no Prometheus")
        pytest.skip("there is no Prometheus")
    path = folder / "prometheus.yml"
    path.write_text(configuration)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    where = [f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *where, f"--web.listen-address={address}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def ask(address: str, query: str) -> dict[str, str]:
    """Return the value at each instance; nothing while nobody answers."""
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        found = json.load(answer)["data"]["result"]
        return {one["metric"]["instance"]: one["value"][1] for one in found}
    return {}


def test_prometheus_scrapes_three_nodes_and_sees_one_go(tmp_path: Path) -> None:
    """All are up, then one is not, and the other two say that it is Down."""
    nodes = make_nodes(tmp_path)
    names = {node.url.removeprefix("http://"): node for node in nodes}
    lost, *left = names
    try:
        for node in nodes:
            node.start()
        with prometheus(scrape_configuration(nodes, tmp_path), tmp_path) as address:
            alive = 'meshlib_members{state="Alive"}'
            eventually(lambda: ask(address, alive) == dict.fromkeys(names, "3"), "each sees three")
            kill(names[lost])
            down = 'meshlib_members{state="Down"} == 1'
            eventually(lambda: ask(address, down) == dict.fromkeys(left, "1"), "two see it go")
            up = {lost: "0", **dict.fromkeys(left, "1")}
            eventually(lambda: ask(address, "up") == up, "it is scraped no more")
    finally:
        for node in nodes:
            node.stop()


def kill(node: Node) -> None:
    """Have no process there any more."""
    assert node.process is not None
    node.process.kill()
    node.process.wait(5)
