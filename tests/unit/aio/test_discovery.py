"""Where seeds come from, and which of this machine's addresses leads to a peer."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any, cast

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest

from meshlib.aio import (
    Discovery,
    DnsSeeds,
    FileSeeds,
    FixedSeeds,
    SeveralSources,
    SrvSeeds,
    address_towards,
    is_same_endpoint,
)
from meshlib.errors import ConfigError

pytestmark = pytest.mark.anyio


class Names:
    """A resolver that the test fills."""

    def __init__(self, **hosts: list[str]) -> None:
        self.hosts: dict[str, list[str]] = dict(hosts)

    async def __call__(self, host: str, port: int) -> list[str]:
        if host not in self.hosts:
            raise OSError(f"{host} is not known")
        return self.hosts[host]


async def test_fixed_seeds_stay_as_they_were_given() -> None:
    """In their order, without repetition, names not looked up."""
    seeds = FixedSeeds(["b:1", "a:1", "b:1"])

    assert ("b:1", "a:1") == await seeds.addresses()
    assert seeds.is_fixed


@pytest.mark.parametrize("made", [FixedSeeds, DnsSeeds])
async def test_what_is_no_address_is_refused_at_once(made: type[FixedSeeds | DnsSeeds]) -> None:
    """A mistake of the configuration is not met at the first dial."""
    with pytest.raises(ConfigError):
        made(["no port"])


async def test_every_address_of_a_name_is_a_seed() -> None:
    """A headless service answers with all of its pods."""
    names = Names(pods=["10.0.0.2", "10.0.0.1", "fd00::1"])

    seeds = DnsSeeds(["pods:7000"], resolver=names)

    assert ("10.0.0.1:7000", "10.0.0.2:7000", "[fd00::1]:7000") == await seeds.addresses()


async def test_names_are_looked_up_anew_each_time() -> None:
    """A pod that came later is found."""
    names = Names(pods=["10.0.0.1"])
    seeds = DnsSeeds(["pods:1"], resolver=names)
    await seeds.addresses()

    names.hosts["pods"] = ["10.0.0.9"]

    assert ("10.0.0.9:1",) == await seeds.addresses()


async def test_a_name_that_fails_keeps_its_last_addresses(caplog: pytest.LogCaptureFixture) -> None:
    """A name server's bad minute isolates nobody, and is told."""
    names = Names(pods=["10.0.0.1"], other=["10.0.0.2"])
    seeds = DnsSeeds(["pods:1", "other:1"], resolver=names)
    await seeds.addresses()

    del names.hosts["pods"]

    assert ("10.0.0.1:1", "10.0.0.2:1") == await seeds.addresses()
    assert "pods is not known" in caplog.text


async def test_a_name_is_looked_up_by_the_system() -> None:
    """The default resolver is the machine's own."""
    assert ("127.0.0.1:80",) == await DnsSeeds(["127.0.0.1:80"]).addresses()


async def test_a_file_holds_one_address_in_each_line(tmp_path: Path) -> None:
    """Comments and empty lines are ignored."""
    file = tmp_path / "seeds"
    file.write_text("# our cluster\na:1\n\n  b:2  # the other\na:1\n")

    assert ("a:1", "b:2") == await FileSeeds(file).addresses()


async def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """What was written since counts."""
    file = tmp_path / "seeds"
    file.write_text("a:1\n")
    seeds = FileSeeds(file)
    await seeds.addresses()

    file.write_text("b:1\n")

    assert ("b:1",) == await seeds.addresses()


async def test_a_file_that_is_not_there_yet_is_no_seeds(tmp_path: Path) -> None:
    """It may come later."""
    assert () == await FileSeeds(tmp_path / "none").addresses()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
async def test_a_file_that_cannot_be_read_keeps_the_last_seeds(
    tmp_path: Path, content: bytes | None
) -> None:
    """Gone or garbled: what was known holds."""
    file = tmp_path / "seeds"
    file.write_text("a:1\n")
    seeds = FileSeeds(file)
    await seeds.addresses()

    file.unlink()
    if content is not None:
        file.write_bytes(content)

    assert ("a:1",) == await seeds.addresses()


async def test_a_line_that_is_no_address_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad line does not cost the others."""
    file = tmp_path / "seeds"
    file.write_text("nonsense\na:1\n")

    assert ("a:1",) == await FileSeeds(file).addresses()
    assert "nonsense" in caplog.text


async def test_several_sources_are_asked_together(tmp_path: Path) -> None:
    """Each address once; fixed only if all are."""
    several = SeveralSources([FixedSeeds(["a:1", "b:1"]), FixedSeeds(["b:1", "c:1"])])
    mixed = SeveralSources([FixedSeeds([]), FileSeeds(tmp_path / "none")])

    assert ("a:1", "b:1", "c:1") == await several.addresses()
    assert (True, False) == (several.is_fixed, mixed.is_fixed)


def test_every_source_is_a_discovery(tmp_path: Path) -> None:
    """The runtime tells a source from a list of addresses by the protocol."""
    sources = [FixedSeeds([]), DnsSeeds([]), FileSeeds(tmp_path), SeveralSources([])]

    assert all(isinstance(source, Discovery) for source in sources)
    assert not isinstance(("a:1",), Discovery)


async def test_the_address_towards_a_peer_on_this_machine_is_the_loopback() -> None:
    """The route decides, not the name of the host."""
    assert "127.0.0.1" == await address_towards("127.0.0.1:9")


@pytest.mark.parametrize("peer", ["nowhere.invalid:1", "a" * 70 + ".x:1"])
async def test_no_address_leads_to_a_host_that_is_not_found(peer: str) -> None:
    """The caller hears an OSError."""
    with pytest.raises(OSError):
        await address_towards(peer)


async def test_two_names_of_one_host_are_one_endpoint() -> None:
    """Hosts are compared by their addresses, ports by number."""
    names = Names(me=["10.0.0.1"], alias=["10.0.0.1"], other=["10.0.0.2"])

    assert await is_same_endpoint("me:1", "alias:1", resolver=names)
    assert not await is_same_endpoint("me:1", "alias:2", resolver=names)
    assert not await is_same_endpoint("me:1", "other:1", resolver=names)
    assert not await is_same_endpoint("me:1", "unknown:1", resolver=names)
    assert await is_same_endpoint("unknown:1", "unknown:1", resolver=names)


class Services:
    """Records that the test fills."""

    def __init__(self, **records: list[tuple[str, int]]) -> None:
        self.records: dict[str, list[tuple[str, int]]] = dict(records)

    async def __call__(self, name: str) -> list[tuple[str, int]]:
        if name not in self.records:
            raise OSError(f"{name} is not known")
        return self.records[name]


SERVICE = "_mesh._tcp.example"


async def test_every_address_of_every_target_is_a_seed() -> None:
    """Each with the port that its record names."""
    services = Services(**{SERVICE: [("one", 7001), ("two", 7002), ("one", 7001)]})
    names = Names(one=["10.0.0.1", "fd00::1"], two=["10.0.0.2"])
    seeds = SrvSeeds([SERVICE], services=services, resolver=names)

    assert ("10.0.0.1:7001", "10.0.0.2:7002", "[fd00::1]:7001") == await seeds.addresses()
    assert not seeds.is_fixed


async def test_a_service_that_fails_stays_as_it_was_known() -> None:
    """And one that has come, or has fewer targets, is seen at the next look."""
    services, names = Services(), Names(one=["10.0.0.1"], two=["10.0.0.2"])
    seeds = SrvSeeds([SERVICE], services=services, resolver=names)
    assert () == await seeds.addresses()
    services.records[SERVICE] = [("one", 1), ("two", 2), ("gone", 3)]
    assert ("10.0.0.1:1", "10.0.0.2:2") == await seeds.addresses()
    names.hosts.clear()
    assert ("10.0.0.1:1", "10.0.0.2:2") == await seeds.addresses()
    services.records.clear()
    assert ("10.0.0.1:1", "10.0.0.2:2") == await seeds.addresses()
    services.records[SERVICE], names.hosts["two"] = [("two", 2)], ["10.0.0.2"]
    assert ("10.0.0.2:2",) == await seeds.addresses()


@pytest.mark.parametrize("name", ["example.com", "_mesh.example.com", "_mesh._tcp", "", "a:1"])
async def test_what_is_no_name_of_a_service_is_refused_at_once(name: str) -> None:
    """A mistake of the configuration is not met at the first look."""
    with pytest.raises(ConfigError):
        SrvSeeds([name])


async def test_without_the_extra_one_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks services up himself needs none."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    SrvSeeds([SERVICE], services=Services())
    with pytest.raises(ConfigError, match="extra `srv`"):
        SrvSeeds([SERVICE])


class NameServer(asyncio.DatagramProtocol):
    """Answers SRV questions over UDP."""

    def __init__(self, records: dict[str, list[str]]) -> None:
        self.records = records

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        name = query.question[0].name
        texts = self.records.get(name.to_text(omit_final_dot=True))
        if texts is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif texts:
            answer.answer.append(dns.rrset.from_text(name, 5, "IN", "SRV", *texts))
        self.transport.sendto(answer.to_wire(), addr)


async def test_name_servers_are_asked_for_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a socket; a name that does not exist, and a service that is not there, are no seeds."""
    records = {
        SERVICE: ["0 5 7001 127.0.0.1.", "9 0 7002 127.0.0.2."],
        "_none._tcp.example": ["0 0 0 ."],
        "_empty._tcp.example": [],
    }
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: NameServer(records), local_addr=("127.0.0.1", 0)
    )
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    found = await SrvSeeds([SERVICE]).addresses()
    nothing = await SrvSeeds(
        ["_none._tcp.example", "_empty._tcp.example", "_gone._tcp.example"]
    ).addresses()
    transport.close()

    assert ("127.0.0.1:7001", "127.0.0.2:7002") == found
    assert () == nothing
