"""The files of `deploy/`: what they ask for is there, and the tools made for them find no fault."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime, SnapshotFile
from meshlib_server.config import load_settings
from meshlib_server.http.gate import Gate, HttpSettings
from meshlib_server.metrics import Sources, read_families
from meshlib_server.metrics.names import PREFIX, Kind
from meshlib_server.serving import LEAVE_TIMEOUT_S

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
    configuration.write_text(text.replace("/etc/prometheus-token", str(token)))

    checked = subprocess.run(
        ["promtool", "check", kind, str(folder / file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == checked.returncode, checked.stdout + checked.stderr


# What runs the program


def manifests() -> list[Any]:
    """Return the documents for Kubernetes."""
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "meshlib.yaml").read_text()))


def of_kind(kind: str) -> list[Any]:
    """Return those of a kind."""
    return [each for each in manifests() if each["kind"] == kind]


def container() -> Any:
    """Return the container of the set."""
    [stateful_set] = of_kind("StatefulSet")
    [found] = stateful_set["spec"]["template"]["spec"]["containers"]
    return found


def variables_of_kubernetes() -> dict[str, str]:
    """Return the environment of a pod, with what Kubernetes puts in."""
    given = {"metadata.name": "meshlib-0", "status.podIP": "10.1.2.3"}
    found = {}
    for each in container()["env"]:
        source = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        found[each["name"]] = given.get(source, "r1") if source else each["value"]
    address = found.pop("POD_IP")
    return {name: value.replace("$(POD_IP)", address) for name, value in found.items()}


def variables_of_compose() -> dict[str, str]:
    """Return the environment of the first node."""
    tree = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    return dict(tree["services"]["node1"]["environment"])


def variables_of_systemd() -> dict[str, str]:
    """Return the environment of the unit."""
    text = (DEPLOY / "systemd" / "meshlib-server.service").read_text()
    return dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))


def variables_of_docker() -> dict[str, str]:
    """Return the environment of the image."""
    text = (DEPLOY / "Dockerfile").read_text()
    return dict(re.findall(r"\b(MESH_\w+)=(\S+)", text))


@pytest.mark.parametrize(
    "variables",
    [variables_of_kubernetes, variables_of_compose, variables_of_systemd, variables_of_docker],
)
def test_every_variable_is_a_setting(variables: Callable[[], dict[str, str]]) -> None:
    """With a value that can be: the server would not start otherwise."""
    given = variables()

    assert given
    load_settings(environment=given, flags={})


def test_a_pod_is_probed_where_the_server_answers() -> None:
    """For its life where nothing of its peers counts, for traffic where it does."""
    paths = {
        name: container()[name]["httpGet"]["path"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert {
        "startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"
    } == paths  # fmt: skip


def test_pods_find_each_other_before_they_are_ready() -> None:
    """A set that starts in order, or a name that lists ready pods alone, would wait for ever."""
    [stateful_set] = of_kind("StatefulSet")
    [nodes] = [each for each in of_kind("Service") if each["spec"].get("clusterIP") == "None"]

    assert "Parallel" == stateful_set["spec"]["podManagementPolicy"]
    assert nodes["spec"]["publishNotReadyAddresses"] is True
    assert nodes["metadata"]["name"] == stateful_set["spec"]["serviceName"]
    settings = load_settings(environment=variables_of_kubernetes(), flags={})
    assert (f"{nodes['metadata']['name']}:8000",) == settings.mesh.discovery.dns_names


def test_a_pod_has_time_to_end() -> None:
    """More than the hook, the grace period, the handover and the rest take together."""
    [stateful_set] = of_kind("StatefulSet")
    mesh = load_settings(environment=variables_of_kubernetes(), flags={}).mesh
    [_, hook] = container()["lifecycle"]["preStop"]["exec"]["command"]
    takes_s = float(hook) + mesh.http.grace_s + mesh.gossip.leave_handover_s + LEAVE_TIMEOUT_S + 2

    assert stateful_set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= takes_s


def test_what_runs_has_no_more_rights_than_it_needs() -> None:
    """No root, a root file system that cannot be written, no capabilities."""
    pod = of_kind("StatefulSet")[0]["spec"]["template"]["spec"]
    node = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]["node1"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    assert ["ALL"] == container()["securityContext"]["capabilities"]["drop"] == node["cap_drop"]
    assert node["read_only"] is True
    assert re.search(r"^USER \d+:\d+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)


def test_the_labels_of_the_set_are_those_that_are_looked_for() -> None:
    """By the services, the budget, the policy and the set itself."""
    [stateful_set] = of_kind("StatefulSet")
    labels = stateful_set["spec"]["template"]["metadata"]["labels"].items()

    assert 2 == len(of_kind("Service"))
    for service in of_kind("Service"):
        assert service["spec"]["selector"].items() <= labels
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert of_kind(kind)[0]["spec"][field]["matchLabels"].items() <= labels
    assert stateful_set["spec"]["selector"]["matchLabels"].items() <= labels


def test_the_image_is_made_of_files_that_there_are() -> None:
    """And `.dockerignore` lets them through."""
    root = DEPLOY.parent
    copied = {
        name
        for line in re.findall(
            r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE
        )
        for name in line.split()
    }
    let_through = {
        line[1:] for line in (root / ".dockerignore").read_text().split() if line[0] == "!"
    }

    assert copied == let_through
    assert all((root / name).exists() for name in copied)


def check_of(tool: str, *arguments: str) -> tuple[int, str]:
    """Run a tool of this environment, and return its exit code and what it said."""
    path = Path(sys.executable).parent / tool
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_hadolint_finds_nothing_wrong_with_the_image() -> None:
    """The linter of Dockerfiles, with all of its rules."""
    assert check_of("hadolint", str(DEPLOY / "Dockerfile")) == (0, "")


@pytest.mark.slow
def test_every_object_of_kubernetes_is_of_its_schema() -> None:
    """Strictly: a field that Kubernetes does not know is none."""
    code, said = check_of(
        "kubernetes-validate", "--strict", str(DEPLOY / "kubernetes" / "meshlib.yaml")
    )

    assert 0 == code, said
    assert len(list(yaml.safe_load_all((DEPLOY / "kubernetes" / "meshlib.yaml").read_text()))) == (
        said.count(" passed for resource ")
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_the_library_behind_docker_compose_takes_the_compose_file(tmp_path: Path) -> None:
    """By its schema, and by the rules that it has beside it; one with a wrong key it refuses."""
    program = tmp_path / "compose_check"
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false"}
    subprocess.run(
        ["go", "build", "-o", str(program), "."],
        cwd=Path(__file__).parents[1] / "support" / "compose_check",
        env={**environment, "GOTOOLCHAIN": "local"}, check=True,
    )  # fmt: skip
    text = (DEPLOY / "compose" / "compose.yaml").read_text()
    found = []
    for name, content in (("good", text), ("bad", text.replace("read_only:", "readonly:"))):
        folder = tmp_path / name
        folder.mkdir()
        for secret in ("tokens", "peer-token", "prometheus-token"):
            (folder / secret).write_text("secret\n")
        (folder / "compose.yaml").write_text(content)
        checked = subprocess.run(
            [program, str(folder / "compose.yaml")], capture_output=True, text=True, check=False
        )
        found.append((checked.returncode, checked.stdout.split(), checked.stderr))

    assert (0, ["[node1", "node2", "node3", "prometheus]"], "") == found[0]
    assert 1 == found[1][0]
    assert "readonly" in found[1][2]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """Its own check, with a program where the unit looks for it."""
    unit = tmp_path / "meshlib-server.service"
    text = (DEPLOY / "systemd" / "meshlib-server.service").read_text()
    unit.write_text(text.replace("/opt/meshlib/bin/meshlib-server", "/bin/true"))

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert not [line for line in checked.stderr.splitlines() if "meshlib-server.service" in line]
