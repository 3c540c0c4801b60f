"""Workers that are read from a file, DNS and a cluster of Kubernetes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest
from attrs import define, field
from support.transports import poll_until

from meshlib import GossipConfig, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.errors import ConfigError
from meshlib_server.adapters.workers import (
    DnsWorkers,
    FileWorkers,
    Found,
    KubernetesWorkers,
    WorkerSource,
    WorkersPlug,
)
from meshlib_server.config import load_settings
from meshlib_server.plugs import WorkerSourceSettings, load_plugs
from meshlib_server.service import Service


def known(mesh: MeshRuntime) -> dict[str, tuple[str, str, bool]]:
    """Return what a node knows of its workers."""
    return {one.worker_id: (one.model_id, one.url, one.health) for one in mesh.sync.workers.all()}


@contextlib.asynccontextmanager
async def following(
    *sources: WorkerSource, network: MemoryNetwork | None = None, name: str = "n1"
) -> AsyncIterator[tuple[MeshRuntime, WorkersPlug]]:
    """Run a node that follows sources inside the block."""
    config = MeshConfig(name=name, gossip=attrs.evolve(GossipConfig.local(), bootstrap_after_s=0.1))
    transport = (network or MemoryNetwork()).transport(f"{name}:1")
    seeds = ("n1:1",) if name != "n1" else ()
    mesh = MeshRuntime(config, transport=transport, seeds=seeds)
    plug = WorkersPlug(sources, 0.02)
    async with plug.serve(Service(mesh, shut_down=lambda: None)), mesh:
        await mesh.wait_ready(10)
        yield mesh, plug


@define
class Listed:
    """A source that a test writes."""

    workers: dict[str, Found] = field(factory=dict)
    looks: int = 0
    is_failing: bool = False
    prefix: str = "file:"
    files: tuple[str, ...] = ()

    async def look(self) -> dict[str, Found]:
        """Return what the test has written, or fail as the test wants."""
        self.looks += 1
        if self.is_failing:
            raise OSError("no answer")
        return dict(self.workers)

    async def was_looked_at(self) -> None:
        """Wait until it was looked at twice from now on, so that one look has ended."""
        looks = self.looks
        await poll_until(lambda: self.looks >= looks + 2)


def a_worker(number: int, *, model: str = "m", is_healthy: bool = True) -> Found:
    return Found(model, f"http://10.0.0.{number}:8000", is_healthy)


def test_what_a_source_has_is_known_and_what_it_loses_is_not() -> None:
    """Workers come, change their model, and go; those of the API stay whatever it says."""

    async def case() -> None:
        source = Listed({"file:a": a_worker(1), "file:b": a_worker(2)})
        async with following(source) as (mesh, _):
            mesh.sync.sync_worker_state("mine", model_id="m", url="u", health=True, load=0.0)
            await poll_until(lambda: set(known(mesh)) == {"mine", "file:a", "file:b"})
            source.workers = {"file:b": a_worker(2, model="other")}
            await poll_until(lambda: set(known(mesh)) == {"mine", "file:b"})
            assert ("other", "http://10.0.0.2:8000", True) == known(mesh)["file:b"]

    asyncio.run(case())


def test_what_has_not_changed_is_not_written_again() -> None:
    """A hundred looks at the same make one write of each worker."""

    async def case() -> None:
        source = Listed({"file:a": a_worker(1)})
        async with following(source) as (mesh, _):
            await poll_until(lambda: "file:a" in known(mesh))
            await poll_until(lambda: source.looks > 20)
            found = mesh.sync.workers.get("file:a")
            assert found is not None
            assert 1 == found.version

    asyncio.run(case())


def test_a_source_that_does_not_answer_takes_nothing_away() -> None:
    """Its workers stay until it says again which there are."""

    async def case() -> None:
        source = Listed({"file:a": a_worker(1)})
        async with following(source) as (mesh, _):
            await poll_until(lambda: "file:a" in known(mesh))
            source.is_failing = True
            await source.was_looked_at()
            assert {"file:a"} == set(known(mesh))
            source.is_failing, source.workers = False, {}
            await poll_until(lambda: known(mesh) == {})

    asyncio.run(case())


def test_health_that_was_written_stays_until_the_source_says_another_thing() -> None:
    """An operator takes a worker out; the source, which has it still, does not put it back."""

    async def case() -> None:
        source = Listed({"file:a": a_worker(1)})
        async with following(source) as (mesh, _):
            await poll_until(lambda: "file:a" in known(mesh))
            mesh.sync.sync_worker_state(
                "file:a", model_id="m", url="http://10.0.0.1:8000", health=False, load=2.0
            )
            await source.was_looked_at()
            assert not known(mesh)["file:a"][2]
            source.workers = {"file:a": a_worker(1, is_healthy=False)}
            await source.was_looked_at()
            source.workers = {"file:a": a_worker(1)}
            await poll_until(lambda: known(mesh)["file:a"][2])
            found = mesh.sync.workers.get("file:a")
            assert found is not None
            assert 2.0 == found.load

    asyncio.run(case())


def test_nodes_whose_sources_differ_do_not_fight() -> None:
    """A worker that one of two still has is there in the end, and is not written for ever."""

    async def case() -> None:
        network = MemoryNetwork()
        first, second = Listed({"file:a": a_worker(1)}), Listed({"file:a": a_worker(1)})
        async with (
            following(first, network=network) as (mesh, _),
            following(second, network=network, name="n2") as (other, _),
        ):
            await poll_until(lambda: "file:a" in known(mesh) and "file:a" in known(other))
            second.workers = {}
            await second.was_looked_at()
            await poll_until(lambda: "file:a" in known(mesh) and "file:a" in known(other))
            found = mesh.sync.workers.get("file:a")
            for _ in range(5):
                await first.was_looked_at()
                await second.was_looked_at()
            assert found == mesh.sync.workers.get("file:a")

    asyncio.run(case())


def test_what_is_left_of_an_earlier_life_is_removed() -> None:
    """A worker that went while no node ran is none of the source's."""

    async def case() -> None:
        source = Listed({})
        source.is_failing = True
        async with following(source) as (mesh, _):
            for name in ("file:old", "mine"):
                mesh.sync.sync_worker_state(name, model_id="m", url="u", health=True, load=0.0)
            source.is_failing = False
            await poll_until(lambda: set(known(mesh)) == {"mine"})

    asyncio.run(case())


# A file


def test_a_file_of_workers_is_read(tmp_path: Path) -> None:
    """Each has its model and its address; the id is made of the address."""
    path = tmp_path / "workers.yaml"
    path.write_text(
        "workers:\n"
        "  - {model_id: llama, url: 'http://10.0.0.1:8000'}\n"
        "  - {model_id: llama, url: 'http://10.0.0.2:8000/v1', health: false}\n"
    )

    assert asyncio.run(FileWorkers(str(path)).look()) == {
        "file:10.0.0.1:8000": Found("llama", "http://10.0.0.1:8000"),
        "file:10.0.0.2:8000": Found("llama", "http://10.0.0.2:8000/v1", False),
    }


@pytest.mark.parametrize(
    "text",
    [
        "workers: 1",
        "worker: []",
        "workers: [{model_id: m}]",
        "workers: [{model_id: '', url: 'http://a:1'}]",
        "workers: [{model_id: m, url: 'a'}]",
        "workers: [{model_id: m, url: 'http://[', x: 1}]",
        "workers: [{model_id: m, url: 'http://['}]",
        "workers: [{model_id: m, url: 'http://a:1', health: 1}]",
        "workers: [{model_id: m, url: 'http://a:1'}, {model_id: n, url: 'http://a:1'}]",
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, text: str) -> None:
    """It is said at the start; later what was known stays."""
    path = tmp_path / "workers.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"workers\.yaml"):
        FileWorkers(str(path))


def test_the_server_reads_a_file_once_it_is_told_to(tmp_path: Path) -> None:
    """The setting makes the plug, which names its file among those that are looked at."""
    path = tmp_path / "workers.yaml"
    path.write_text("workers: []")
    environment = {"MESH_WORKER_SOURCES_FILE": str(path)}
    settings = load_settings(None, environment=environment, flags={})
    (plug,) = load_plugs(settings.mesh.envoy, settings.mesh.worker_sources)

    assert (str(path),) == plug.files
    assert () == load_plugs(settings.mesh.envoy, WorkerSourceSettings())


# DNS


def test_every_address_of_a_name_is_a_worker() -> None:
    """Of both families; a name that is not found is no name without workers."""

    async def look_up(host: str, port: int) -> list[str]:
        if host == "gone":
            raise socket.gaierror("not found")
        return ["10.0.0.1", "fd00::1"]

    async def case() -> None:
        found = await DnsWorkers(["llama=vllm.svc:8000"], resolver=look_up).look()
        assert found == {
            "dns:10.0.0.1:8000": Found("llama", "http://10.0.0.1:8000"),
            "dns:[fd00::1]:8000": Found("llama", "http://[fd00::1]:8000"),
        }
        with pytest.raises(OSError, match="not found"):
            await DnsWorkers(["llama=gone:8000"], resolver=look_up).look()
        assert await DnsWorkers(["llama=127.0.0.1:8000"]).look()

    asyncio.run(case())


@pytest.mark.parametrize("name", ["vllm.svc:8000", "=vllm:8000", "llama=", "llama=vllm"])
def test_a_name_without_a_model_or_a_port_is_refused(name: str) -> None:
    """Nothing could be told of its workers."""
    with pytest.raises(ConfigError):
        DnsWorkers([name])


# Kubernetes


@define
class Cluster:
    """What the API server of a cluster answers for EndpointSlices."""

    slices: dict[tuple[str, str], list[dict[str, Any]]] = field(factory=dict)
    status: int = 200
    asked: list[str] = field(factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Answer a list of one namespace by its label."""
        parts = urlsplit(path)
        self.asked.append(path)
        if self.status != 200:
            return self.status, {"kind": "Status", "status": "Failure", "message": "no"}
        namespace = parts.path.split("/")[5]
        (label,) = parse_qs(parts.query)["labelSelector"]
        service = label.removeprefix("kubernetes.io/service-name=")
        items = self.slices.get((namespace, service), [])
        return 200, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
            "metadata": {"resourceVersion": "1"}, "items": items,
        }  # fmt: skip


def an_endpoint(*addresses: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": list(addresses), "conditions": conditions}


def a_slice(
    *endpoints: dict[str, Any], ports: dict[str, int] | None = None, kind: str = "IPv4"
) -> dict[str, Any]:
    named = {"http": 8000} if ports is None else ports
    return {
        "metadata": {"name": "s"}, "addressType": kind, "endpoints": list(endpoints),
        "ports": [{"name": name, "port": port} for name, port in named.items()],
    }  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[tuple[Cluster, Callable[[Path], str]]]:
    """An API server over HTTP, and what writes a kubeconfig that names it."""
    made = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = made.answer(self.path)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def kubeconfig(folder: Path) -> str:
        path = folder / "kubeconfig"
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        where = {"server": f"http://127.0.0.1:{server.server_port}"}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "x",
                    "contexts": [context], "clusters": [{"name": "x", "cluster": where}],
                    "users": [{"name": "x", "user": {}}],
                }
            )
        )  # fmt: skip
        return str(path)

    yield made, kubeconfig
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_endpoints_of_a_service_are_workers(
    cluster: tuple[Cluster, Callable[[Path], str]], tmp_path: Path
) -> None:
    """What is not ready is not healthy, what ends is none, and names are no addresses."""
    api, kubeconfig = cluster
    api.slices["prod", "vllm"] = [
        a_slice(
            an_endpoint("10.0.0.1", ready=True),
            an_endpoint("10.0.0.2", ready=False),
            an_endpoint("10.0.0.3"),
            an_endpoint("10.0.0.4", ready=False, terminating=True),
        ),
        a_slice(an_endpoint("fd00::1", ready=True), kind="IPv6"),
        a_slice(an_endpoint("host.example"), kind="FQDN"),
        a_slice(an_endpoint("10.0.0.5"), ports={"metrics": 9000}),
    ]
    services = ["llama=prod/vllm:http"]

    found = asyncio.run(KubernetesWorkers(services, kubeconfig=kubeconfig(tmp_path)).look())

    assert found == {
        "kubernetes:10.0.0.1:8000": Found("llama", "http://10.0.0.1:8000"),
        "kubernetes:10.0.0.2:8000": Found("llama", "http://10.0.0.2:8000", False),
        "kubernetes:10.0.0.3:8000": Found("llama", "http://10.0.0.3:8000"),
        "kubernetes:[fd00::1]:8000": Found("llama", "http://[fd00::1]:8000"),
    }


def test_a_port_is_named_by_its_number_too(
    cluster: tuple[Cluster, Callable[[Path], str]], tmp_path: Path
) -> None:
    """Two services serve two models; a service that is not there has no workers."""
    api, kubeconfig = cluster
    api.slices["a", "one"] = [a_slice(an_endpoint("10.0.0.1"), ports={"": 9000})]
    api.slices["b", "two"] = [a_slice(an_endpoint("10.0.0.2"), ports={"x": 9000, "y": 9001})]
    services = ["m=a/one:9000", "n=b/two:9001", "o=b/gone:80"]

    found = asyncio.run(KubernetesWorkers(services, kubeconfig=kubeconfig(tmp_path)).look())

    assert found == {
        "kubernetes:10.0.0.1:9000": Found("m", "http://10.0.0.1:9000"),
        "kubernetes:10.0.0.2:9001": Found("n", "http://10.0.0.2:9001"),
    }


def test_a_cluster_that_refuses_says_nothing_of_its_workers(
    cluster: tuple[Cluster, Callable[[Path], str]], tmp_path: Path
) -> None:
    """Without the right to list, or without a server, the workers stay as they are."""
    api, kubeconfig = cluster
    source = KubernetesWorkers(["m=a/one:80"], kubeconfig=kubeconfig(tmp_path))
    api.status = 403

    with pytest.raises(OSError, match="a/one"):
        asyncio.run(source.look())


@pytest.mark.parametrize("text", ["a/one:80", "m=one:80", "m=a/one", "m=a/b/c:1", "m=/one:80"])
def test_a_service_that_is_none_is_refused(text: str) -> None:
    """The setting says what is expected."""
    with pytest.raises(ConfigError, match="MODEL="):
        KubernetesWorkers([text])


def test_without_a_cluster_it_is_said_at_the_start(tmp_path: Path) -> None:
    """Neither in one, nor told of one."""
    for kubeconfig in (None, str(tmp_path / "none")):
        with pytest.raises(ConfigError, match="no cluster"):
            KubernetesWorkers(["m=a/one:80"], kubeconfig=kubeconfig)
