"""What is set of regions, and servers that speak WebSockets inside and NATS between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.real_nats import RealNats, real_nats
from support.servers import Eventually, Launcher, Node

from meshlib.aio import NatsTransport
from meshlib.errors import ConfigError
from meshlib_server.auth import Keyring, Secrets, TokenSet
from meshlib_server.config import MeshSettings, load_settings
from meshlib_server.transports import (
    BridgingSettings,
    MountedWebSockets,
    NatsSettings,
    PeerTransport,
    make_transport,
    mounted_of,
)

BRIDGING = {
    "regions": ["eu=10.1.0.0/16", "us=10.2.0.0/16", "us = *.us.example"],
    "bridges": ["10.1.0.1:8000", "10.2.0.1:8000"],
}
RIGHT = {"transport": "bridged", "region": "eu", "bridging": BRIDGING}
NATS = {"servers": ["nats://127.0.0.1:4222"]}


def load(tmp_path: Path, mesh: dict[str, Any], **environment: str) -> MeshSettings:
    """Load a configuration with this section."""
    path = tmp_path / "mesh.yaml"
    path.write_text(yaml.safe_dump({"mesh": mesh}))
    return load_settings(str(path), environment=environment, flags={}).mesh


def with_bridging(**changed: Any) -> dict[str, Any]:
    """Return the right section with something else of its regions."""
    return {**RIGHT, "bridging": {**BRIDGING, **changed}}


@pytest.mark.parametrize(
    ("mesh", "named"),
    [
        ({"transport": "bridged"}, r"needs mesh\.bridging\.regions"),
        ({**RIGHT, "transport": "websocket"}, r"mesh\.bridging\.regions needs mesh\.transport"),
        ({"transport": "nats", "nats": NATS, "bridging": {"bridges": ["a:1"]}}, r"bridging\.bri"),
        ({**RIGHT, "region": "asia"}, r"mesh\.region: must be one of eu, us, got 'asia'"),
        ({**RIGHT, "region": ""}, r"mesh\.region"),
        (with_bridging(regions=["eu"]), r"mesh\.bridging\.regions\[0\]: must be such as"),
        (with_bridging(regions=["eu=10.1.0.0/16", "=x"]), r"mesh\.bridging\.regions\[1\]"),
        (with_bridging(regions=["eu=10.1.0.1/16"]), r"mesh\.bridging: .* no network"),
        (with_bridging(bridges=["10.1.0.1:8000"]), r"mesh\.bridging: region 'us' has no bridge"),
        (with_bridging(bridges=["10.9.0.1:8000"]), r"mesh\.bridging: the bridge .* no region"),
        (with_bridging(regions="eu=10.1.0.0/16"), r"mesh\.bridging\.regions: expected a list"),
        ({**RIGHT, "init_peer": ["10.1.0.1:8000", "10.7.0.1:8000"]}, r"init_peer\[1\].* no region"),
    ],
)
def test_settings_that_do_not_go_together_are_named(
    tmp_path: Path, mesh: dict[str, Any], named: str
) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=named):
        load(tmp_path, mesh)


def test_regions_come_from_the_environment_too(tmp_path: Path) -> None:
    """With commas, as every list."""
    mesh = load(
        tmp_path,
        {},
        MESH_TRANSPORT="bridged",
        MESH_REGION="us",
        MESH_BRIDGING_REGIONS="eu=10.1.0.0/16, us=10.2.0.0/16",
        MESH_BRIDGING_BRIDGES="10.1.0.1:8000,10.2.0.1:8000",
    )

    assert ("10.2.0.1:8000",) == mesh.bridging.made().bridges_of("us")


def made(mesh: MeshSettings, address: str) -> Any:
    """Make the transport of a node of an address."""
    keyring = Keyring(Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None))
    return make_transport(
        mesh.transport,
        nats=mesh.nats,
        bridging=mesh.bridging,
        region=mesh.region,
        address=address,
        token="t",
        judge=keyring,
        tls=None,
        accepted_max=10,
    )


def test_its_address_says_whether_a_node_is_a_bridge(tmp_path: Path) -> None:
    """All of them may have one file."""
    mesh = load(tmp_path, {**RIGHT, "nats": NATS})
    bridge, other = made(mesh, "10.1.0.1:8000"), made(mesh, "10.1.0.7:8000")

    assert [MountedWebSockets, NatsTransport] == [type(part) for part in bridge.parts]
    assert [MountedWebSockets] == [type(part) for part in other.parts]
    assert "10.1.0.1:8000" == bridge.parts[1].address
    assert (bridge.parts[0], other.parts[0]) == (mounted_of(bridge), mounted_of(other))


@pytest.mark.parametrize(
    ("nats", "address", "named"),
    [
        ({}, "10.1.0.1:8000", r"mesh\.nats\.servers: 10\.1\.0\.1:8000 is among"),
        (NATS, "10.2.0.5:8000", r"mesh\.region: eu it is to be, and 10\.2\.0\.5:8000 is of us"),
        (NATS, "10.3.0.5:8000", r"is of no region"),
    ],
)
def test_a_node_that_cannot_be_what_it_is_told_is_refused(
    tmp_path: Path, nats: dict[str, Any], address: str, named: str
) -> None:
    """A bridge without NATS, and a node of another region than its address."""
    mesh = load(tmp_path, {**RIGHT, "nats": nats})

    with pytest.raises(ConfigError, match=named):
        made(mesh, address)


def test_the_other_transports_are_as_they_were() -> None:
    """One part each."""
    over_nats = MeshSettings(
        transport=PeerTransport.NATS, nats=NatsSettings(servers=("nats://127.0.0.1:4222",))
    )

    assert isinstance(made(MeshSettings(), "a.example:1"), MountedWebSockets)
    assert mounted_of(made(over_nats, "a.example:1")) is None
    assert BridgingSettings() == MeshSettings().bridging


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[RealNats]:
    with real_nats(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def four(nats: RealNats, own_launcher: Launcher, eventually: Eventually) -> dict[str, Node]:
    """Start two regions of a bridge and another node each, with one file."""
    names = ("eu-1", "eu-2", "us-1", "us-2")
    ports = dict(zip(names, own_launcher.free_ports(4), strict=True))
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    config = yaml.safe_dump(
        {
            "mesh": {
                "transport": "bridged",
                "full_mesh_threshold": 1,
                "nats": {"servers": [nats.url]},
                "bridging": {
                    "regions": [f"{name[:2]}={address}" for name, address in addresses.items()],
                    "bridges": [addresses["eu-1"], addresses["us-1"]],
                },
            }
        }
    )
    nodes = {
        name: own_launcher.node(
            name,
            port=port,
            peers=[ports["eu-1"] if name != "eu-1" else ports["us-2"]],
            config=config,
            environment={"MESH_REGION": name[:2]},
        )
        for name, port in ports.items()
    }
    for node in nodes.values():
        node.spawn()
    for node in nodes.values():
        node.await_answer()
    for node in nodes.values():
        eventually(
            lambda node=node: node.statuses() == dict.fromkeys(names, "Alive"),  # type: ignore[misc]
            "they join",
        )
        eventually(node.is_ready, "they are ready")
    return nodes


@pytest.mark.slow
def test_servers_of_two_regions_meet_by_their_bridges(
    four: dict[str, Node], eventually: Eventually
) -> None:
    """What is written at one is at all, and how it went is in the metrics."""
    for name, node in four.items():
        node.request("POST", "/mesh/config", {"key": name, "value": "00ff"})
    for node in four.values():
        for name in four:
            path = f"/mesh/config/{name}"
            eventually(
                lambda node=node, path=path: node.client.get(path).status_code == 200,  # type: ignore[misc]
                "it has the key",
            )

    numbers = {name: node.client.get("/metrics").text for name, node in four.items()}
    assert "meshlib_bridge_frames_total 0.0" in numbers["eu-2"]
    assert "meshlib_bridge_frames_total 0.0" not in numbers["eu-1"]
    assert all('reason="stray"} 0.0' in text for text in numbers.values())


@pytest.mark.slow
def test_a_bridge_without_its_nats_does_not_start(own_launcher: Launcher) -> None:
    """It says why in one line, and ends with exit code 3."""
    (port,) = own_launcher.free_ports(1)
    config = (
        "mesh: {transport: bridged, region: eu, bridging: {regions: [eu=127.0.0.0/8], "
        f'bridges: ["127.0.0.1:{port}"]}}, nats: {{servers: ["nats://127.0.0.1:1"]}}}}'
    )
    node = own_launcher.node("one", port=port, config=config)

    node.spawn()

    assert 3 == node.started.wait(20)
    assert "cannot reach NATS" in node.log.read_text()
