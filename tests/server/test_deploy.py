"""The files of `deploy/`: what they ask for is there, and the tools made for them find no fault."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime, SnapshotFile
from meshlib_server.http.gate import Gate, HttpSettings
from meshlib_server.metrics import Sources, read_families
from meshlib_server.metrics.names import PREFIX, Kind

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "meshlib.json"
SUFFIXES = {Kind.COUNTER: ["_total"], Kind.GAUGE: [""], Kind.HISTOGRAM: ["_bucket", "_count"]}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return every name that a scrape can have, with the names of its labels."""
    path = tmp_path_factory.mktemp("state") / "state.db"

    async def run() -> dict[str, set[str]]:
        config = MeshConfig(name="a")
        transport = MemoryNetwork().transport("a:1")
        async with MeshRuntime(config, transport=transport) as mesh:
            await mesh.wait_ready(5)
            gate = Gate(HttpSettings(), connections_max=1)
            families = read_families(mesh, Sources(gate=gate, snapshots=SnapshotFile(path)))
        return {
            PREFIX + family.name + suffix: {*family.labels, "instance", "job", "le"}
            for family in families
            for suffix in SUFFIXES[family.kind]
        }

    return anyio.run(run)


def expressions() -> Iterator[str]:
    """Yield every expression of the alerts and of the dashboard."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_every_name_that_is_asked_for_is_scraped(known: dict[str, set[str]]) -> None:
    """An alert on a name that there is not would never fire."""
    asked = [name for each in expressions() for name in re.findall(r"meshlib_\w+", each)]

    assert len(asked) > 20
    assert set() == set(asked) - set(known)


def test_every_label_that_is_asked_for_is_one_of_that_name(known: dict[str, set[str]]) -> None:
    """A selector by a label that there is not selects nothing."""
    for each in expressions():
        for name, selectors in re.findall(r"(meshlib_\w+)\{([^}]*)\}", each):
            assert set(re.findall(r"(\w+)(?:=~|!=|=)", selectors)) <= known[name], each


def test_panels_do_not_overlap() -> None:
    """Each has a place of its own in the grid of 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(("kind", "file"), [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_promtool_finds_nothing_wrong(kind: str, file: str, tmp_path: Path) -> None:
    """Prometheus' own check of its rules and its configuration, with a token where it looks."""
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    configuration = folder / "prometheus.yml"
    token = folder / "token"
    token.write_text("t\n")
    text = configuration.read_text()
    configuration.write_text(text.replace("/etc/prometheus/meshlib-token", str(token)))

    checked = subprocess.run(
        ["promtool", "check", kind, str(folder / file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == checked.returncode, checked.stdout + checked.stderr
