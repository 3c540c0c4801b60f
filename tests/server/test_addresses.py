"""Which address is listened on, and which one peers are told."""

from __future__ import annotations

import pytest

from meshlib.errors import ConfigError
from meshlib_server.addresses import (
    Way,
    advertised_address,
    find_way,
    is_loopback,
    listening_address,
)

WAYS = {
    "near:8000": Way(local="10.0.0.5", remote="10.0.0.9"),
    "near6:8000": Way(local="fd00::5", remote="fd00::9"),
    "self:8000": Way(local="10.0.0.5", remote="10.0.0.5"),
    "127.0.0.1:8001": Way(local="127.0.0.1", remote="127.0.0.1"),
    "192.0.2.1:9": Way(local="10.0.0.7", remote="192.0.2.1"),
}


def advertise(
    listening: str, *peers: str, advertise_addr: str | None = None, has_way_out: bool = True
) -> str:
    """Ask with a made-up routing table."""
    ways = {peer: way for peer, way in WAYS.items() if has_way_out or peer != "192.0.2.1:9"}
    return advertised_address(
        listening=listening, advertise_addr=advertise_addr, peers=peers, find=ways.get
    )


def test_the_configured_address_is_advertised() -> None:
    """What the operator says wins over everything that could be found out."""
    assert "host:1" == advertise("0.0.0.0:8000", "near:8000", advertise_addr="host:1")


def test_a_configured_port_of_zero_stands_for_the_port_listened_on() -> None:
    """A name can be advertised before the port is known."""
    assert "host:8000" == advertise("0.0.0.0:8000", advertise_addr="host:0")


def test_the_one_interface_listened_on_is_advertised() -> None:
    """Nothing needs finding out."""
    assert "10.0.0.5:8000" == advertise("10.0.0.5:8000", "near:8000")


def test_listening_everywhere_advertises_the_address_towards_the_first_peer() -> None:
    """0.0.0.0 is never told to anyone."""
    assert "10.0.0.5:8000" == advertise("0.0.0.0:8000", "near:8000", "self:8000")


def test_an_ipv6_address_is_put_in_brackets() -> None:
    """So that its port can be told."""
    assert "[fd00::5]:8000" == advertise("[::]:8000", "near6:8000")


def test_a_peer_that_does_not_resolve_is_passed_over() -> None:
    """The first peer that resolves tells."""
    assert "10.0.0.5:8000" == advertise("0.0.0.0:8000", "absent:8000", "near:8000")


@pytest.mark.parametrize("peers", [(), ("absent:8000",)])
def test_without_a_peer_that_resolves_the_way_out_tells(peers: tuple[str, ...]) -> None:
    """A first node, and one whose peers have no name yet, advertise their own address."""
    assert "10.0.0.7:8000" == advertise("0.0.0.0:8000", *peers)


def test_without_any_way_out_there_is_no_address() -> None:
    """A node that nobody could reach does not start."""
    with pytest.raises(ConfigError, match=r"no address that peers could reach"):
        advertise("0.0.0.0:8000", has_way_out=False)


def test_loopback_is_advertised_to_peers_on_loopback() -> None:
    """Several nodes on one machine."""
    assert "127.0.0.1:8000" == advertise("127.0.0.1:8000", "127.0.0.1:8001")
    assert "127.0.0.1:8000" == advertise("0.0.0.0:8000", "127.0.0.1:8001")


def test_loopback_is_advertised_to_a_peer_on_this_machines_own_address() -> None:
    """It is the same machine, whatever the address is called."""
    assert "127.0.0.1:8000" == advertise("127.0.0.1:8000", "self:8000")


@pytest.mark.parametrize("listening", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_loopback_is_not_advertised_to_a_peer_elsewhere(listening: str) -> None:
    """It would dial itself."""
    with pytest.raises(ConfigError, match=r"no address that the peer near:8000 could reach"):
        advertise(listening, "near:8000")


def test_every_interface_cannot_be_advertised_on_purpose_either() -> None:
    """0.0.0.0 is no address to dial."""
    with pytest.raises(ConfigError, match=r"mesh\.advertise_addr: 0\.0\.0\.0:1 is no address"):
        advertise("0.0.0.0:8000", advertise_addr="0.0.0.0:1")


@pytest.mark.parametrize("host", ["0", "0.0", "0x0", "*", "[::ffff:0.0.0.0]"])
def test_other_forms_of_every_interface_are_not_advertised_either(host: str) -> None:
    """Resolvers read them as 0.0.0.0, and so they are no address to dial."""
    with pytest.raises(ConfigError, match=r"is no address to dial"):
        advertise("0.0.0.0:8000", advertise_addr=f"{host}:8000")


@pytest.mark.parametrize("host", ["0", "0.0", "[::ffff:0.0.0.0]"])
def test_listening_on_other_forms_of_every_interface_advertises_a_real_address(host: str) -> None:
    """As for 0.0.0.0: the one towards the first peer, or the one on the IPv4 way out."""
    assert "10.0.0.5:8000" == advertise(f"{host}:8000", "near:8000")
    assert "10.0.0.7:8000" == advertise(f"{host}:8000")


@pytest.mark.parametrize(
    ("self_addr", "expected"),
    [
        ("0.0.0.0:8000", "127.0.0.1:8000"),
        ("0:8000", "127.0.0.1:8000"),
        ("[::ffff:0.0.0.0]:8000", "127.0.0.1:8000"),
        ("[::]:8000", "[::1]:8000"),
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("localhost:8000", "localhost:8000"),
    ],
)
def test_loopback_only_stays_on_loopback(self_addr: str, expected: str) -> None:
    """Without tokens, every interface means the loopback."""
    assert expected == listening_address(self_addr, is_loopback_only=True)


def test_loopback_only_refuses_another_interface() -> None:
    """Listening elsewhere than asked would surprise."""
    with pytest.raises(ConfigError, match=r"--insecure listens on loopback only"):
        listening_address("10.0.0.5:8000", is_loopback_only=True)


def test_with_tokens_the_address_is_listened_on_as_it_is() -> None:
    """Nothing is changed."""
    assert "0.0.0.0:8000" == listening_address("0.0.0.0:8000", is_loopback_only=False)


def test_the_way_to_this_machine_is_its_loopback() -> None:
    """Asked of the real routing table."""
    assert Way(local="127.0.0.1", remote="127.0.0.1") == find_way("127.0.0.1:9")


def test_there_is_no_way_to_a_name_that_does_not_resolve() -> None:
    """`.invalid` never does."""
    assert find_way("nowhere.invalid:9") is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("10.0.0.1", False), ("host", False)],
)  # fmt: skip
def test_loopback_is_known_by_its_address(host: str, expected: bool) -> None:
    """All of 127.0.0.0/8 is, and so is ::1."""
    assert expected == is_loopback(host)
