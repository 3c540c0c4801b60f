"""Where seeds come from, and which of this machine's addresses leads to a peer."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.aio import (
    Discovery,
    DnsSeeds,
    FileSeeds,
    FixedSeeds,
    SeveralSources,
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
