"""What a scrape says: every counter there is, in a form that Prometheus reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import attrs
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.servers import Node, eventually

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.aio import BridgeCounters, DriverCounters, SnapshotCounters, TransportCounters
from meshlib.gossip import Counters
from meshlib_server.app import build_app
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.http.gate import GateCounters
from meshlib_server.lag import LoopLag
from meshlib_server.metrics import Sources, names, read_families
from meshlib_server.metrics.names import Name
from meshlib_server.metrics.readings import SHOWN_MAX
from meshlib_server.service import Service

OPEN = Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None)
RECORDS: list[tuple[Any, Mapping[str, Name]]] = [
    (Counters, names.NODE),
    (TransportCounters, names.TRANSPORT),
    (BridgeCounters, names.BRIDGING),
    (DriverCounters, names.DRIVER),
    (SnapshotCounters, names.SNAPSHOTS),
    (LoopLag, names.EVENT_LOOP),
    (GateCounters, names.GATE),
]


@pytest.mark.parametrize(("record", "meanings"), RECORDS)
def test_each_counter_of_the_library_has_a_name(record: Any, meanings: Mapping[str, Name]) -> None:
    """What is counted and shown nowhere helps nobody."""
    assert set(attrs.fields_dict(record)) == set(meanings)


def test_numbers_of_one_family_differ_by_their_labels_alone() -> None:
    """One text, one kind, the same label names, and no two numbers with the same values."""
    families: dict[str, list[Name]] = {}
    for _, meanings in RECORDS:
        for name in meanings.values():
            families.setdefault(name.metric, []).append(name)
    for each in families.values():
        assert 1 == len({(name.text, name.kind, tuple(name.labels)) for name in each})
        assert len(each) == len({tuple(name.labels.values()) for name in each})


def test_names_are_such_as_prometheus_wants() -> None:
    """In its letters, with the base unit behind, and without the suffix that it adds itself."""
    for _, meanings in RECORDS:
        for name in meanings.values():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", name.metric)
            assert not name.metric.endswith(("_total", "_s", "_ms", "_count"))


def scraped(text: str) -> dict[str, float]:
    """Return each sample of a scrape, by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def scrape_of(service: Service, *paths: str) -> str:
    """Ask an application for some paths, and then for its metrics."""
    transport = httpx2.ASGITransport(app=build_app(service, secrets=OPEN))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in paths:
            await client.get(path)
        answer = await client.get("/metrics")
    assert 200 == answer.status_code
    return answer.text


def alone(**kwargs: Any) -> MeshRuntime:
    """Make a node that has no peers."""
    config = MeshConfig(name="a", address="a:1", **kwargs)
    return MeshRuntime(config, transport=MemoryNetwork().transport("a:1"))


def test_a_scrape_tells_of_the_node_its_stores_and_its_limits() -> None:
    """One number of each source, as the node has it."""

    async def run() -> str:
        async with alone() as mesh:
            await mesh.wait_ready(5)
            mesh.sync.sync_worker_state("w", model_id="m", url="http://w", health=True, load=0.5)
            mesh.renew_request(mesh.begin("w"), decoded_tokens=30)
            mesh.sync.set_config("gone", b"")
            mesh.sync.delete_config("gone")
            mesh.limits.set("alice", 100)
            for _ in range(3):
                mesh.acquire("alice")
            return await scrape_of(Service(mesh, shut_down=lambda: None))

    found = scraped(anyio.run(run))

    assert 1 == found["meshlib_members{state=Alive}"]
    assert 0 == found["meshlib_members{state=Down}"]
    assert 1 == found["meshlib_state{state=ready}"]
    assert 0 == found["meshlib_health_score"]
    assert 1 == found["meshlib_workers{healthy=true}"]
    assert 0.5 == found["meshlib_worker_load{worker=w}"]
    assert 1 == found["meshlib_worker_requests_in_flight{worker=w}"]
    assert 30 == found["meshlib_worker_decoded_tokens{worker=w}"]
    assert 1 == found["meshlib_tombstones{store=app}"]
    assert 100 == found["meshlib_rate_limit{key=alice}"]
    assert 1 == found["meshlib_rate_limit_keys"]
    assert 0 == found["meshlib_rate_limit_questions_waiting"]
    assert "meshlib_packets_total{direction=sent}" in found
    assert "meshlib_event_loop_lag_seconds" in found
    assert "process_open_fds" in found


def test_requests_are_counted_by_path_template_and_status() -> None:
    """A key in a path is no label, nor is a path that nobody serves."""

    async def run() -> str:
        async with alone() as mesh:
            await mesh.wait_ready(5)
            service = Service(mesh, shut_down=lambda: None)
            return await scrape_of(service, "/mesh/workers/x%2Fy", "/mesh/workers", "/x", "/y")

    found = scraped(anyio.run(run))

    requests = "meshlib_http_requests_total"
    worker = "/mesh/workers/{worker_id}"
    assert 1 == found[f"{requests}{{method=GET,path={worker},status=404}}"]
    assert 1 == found[f"{requests}{{method=GET,path=/mesh/workers,status=200}}"]
    assert 2 == found[f"{requests}{{method=GET,path=other,status=404}}"]
    assert 2 == found["meshlib_http_request_duration_seconds_count{path=other}"]
    assert 2 == found["meshlib_http_request_duration_seconds_bucket{le=+Inf,path=other}"]


def test_a_node_that_is_not_enabled_is_scraped_all_the_same() -> None:
    """The process has numbers when the mesh has none."""

    async def run() -> str:
        return await scrape_of(Service(None, shut_down=lambda: None))

    found = scraped(anyio.run(run))

    assert "meshlib_event_loop_turns_total" in found
    assert not any(name.startswith("meshlib_members") for name in found)


def test_a_scrape_is_bounded_however_much_there_is() -> None:
    """Of many workers and keys some are shown, and all are counted."""

    async def run() -> list[Any]:
        async with alone() as mesh:
            await mesh.wait_ready(5)
            for number in range(2 * SHOWN_MAX):
                mesh.limits.set(f"key-{number}", 1)
                mesh.sync.sync_worker_state(
                    f"w-{number}", model_id="m", url="http://w", health=False, load=0.0
                )
            return read_families(mesh, Sources())

    families = {family.name: family for family in anyio.run(run)}

    assert max(len(family.samples) for family in families.values()) <= SHOWN_MAX
    assert {("true",): 0.0, ("false",): 2.0 * SHOWN_MAX} == families["workers"].samples


def test_an_event_is_counted_with_its_reason_when_that_is_of_a_fixed_list() -> None:
    """What a peer wrote into an event is no label."""

    @attrs.frozen
    class Told:
        reason: str

    sources = Sources()
    sources.note_event(Told("whatever a peer says"))

    assert {("Told", ""): 1} == sources.events


def test_a_real_server_is_scraped_with_a_token(node: Node) -> None:
    """In the text format by default, in OpenMetrics for who asks, and never without a token."""
    plain = node.client.get("/metrics")
    asked = node.client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    strange = node.client.get("/metrics", headers={"Authorization": "Bearer no-such-token"})

    assert (200, 200, 401) == (plain.status_code, asked.status_code, strange.status_code)
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert asked.text.endswith("# EOF\n")
    found = scraped(plain.text)
    assert 3 == found["meshlib_members{state=Alive}"]
    assert found["meshlib_http_connections_total{outcome=accepted}"] >= 1


def test_a_write_shows_as_missing_at_peers_until_they_have_it(cluster: list[Node]) -> None:
    """Convergence is a number that goes to 0 at every node."""
    cluster[0].request("POST", "/mesh/config", {"key": "behind", "value": "00"})

    def is_converged() -> bool:
        behind: Iterable[float] = [
            value
            for node in cluster
            for name, value in scraped(node.client.get("/metrics").text).items()
            if name.startswith("meshlib_peer_behind_entries")
        ]
        return 6 == len(list(behind)) and not any(behind)

    eventually(is_converged, "nobody is behind anybody")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_wrong(node: Node) -> None:
    """Prometheus' own check of names, units and texts."""
    text = node.client.get("/metrics").text
    ours = "\n".join(line for line in text.splitlines() if "meshlib_" in line) + "\n"

    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=ours, capture_output=True, text=True, check=False
    )

    assert (0, "") == (checked.returncode, checked.stderr)


def test_usage_is_shown_of_a_bounded_number_of_models() -> None:
    """Those beyond are one: whoever calls names the model."""
    sources = Sources()
    for number in range(SHOWN_MAX + 5):
        sources.note_usage(f"m{number}", prompt_tokens=2, completion_tokens=1)
    (family,) = [one for one in read_families(None, sources) if one.name == "usage_tokens"]

    assert 2.0 == family.samples["m0", "prompt"]
    assert 5.0 == family.samples["other", "completion"]
    assert 2 * (SHOWN_MAX + 1) == len(family.samples)
