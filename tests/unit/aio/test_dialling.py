"""How the addresses of one host are dialled, and when a dial counts as refused."""

from __future__ import annotations

import socket

import pytest

from meshlib.aio import LinkFailure, LinkFault, dialled_socket, tcp

pytestmark = pytest.mark.anyio

UNREACHABLE = "255.255.255.255"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every host have these addresses."""

    async def found(_host: str, _port: int) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

    monkeypatch.setattr(tcp, "_addresses", found)


async def fault_of_dial() -> LinkFault:
    with pytest.raises(OSError) as caught:
        await dialled_socket("host", 1)
    return LinkFailure.of(caught.value).fault


async def test_a_host_that_refuses_on_every_address_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `localhost` does, which has one of each family."""
    port = free_port()
    resolve_to(monkeypatch, ("127.0.0.1", port), ("127.0.0.2", port))

    assert LinkFault.REFUSED == await fault_of_dial()


async def test_one_address_that_is_out_of_reach_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody may listen there, whatever the others say."""
    port = free_port()
    for addresses in (("127.0.0.1", UNREACHABLE), (UNREACHABLE, "127.0.0.1")):
        resolve_to(monkeypatch, *((address, port) for address in addresses))

        assert LinkFault.OTHER == await fault_of_dial()


async def test_the_first_address_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before it may refuse."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        resolve_to(monkeypatch, ("127.0.0.2", port), ("127.0.0.1", port))
        with await dialled_socket("host", port) as sock:
            assert ("127.0.0.1", port) == sock.getpeername()


async def test_a_name_that_nobody_knows_is_no_refusal() -> None:
    """Nothing is known of what it may stand for."""
    with pytest.raises(OSError) as caught:
        await dialled_socket("no-such-host.invalid", 1)

    assert LinkFault.UNRESOLVABLE is LinkFailure.of(caught.value).fault


def test_a_peer_that_speaks_cannot_say_that_nobody_is_there() -> None:
    """Only why it refuses: its token, its cluster, its version."""
    said = {LinkFailure.told(str(fault)).fault for fault in LinkFault}

    assert {"wrong token", "wrong cluster", "wrong version", "closed"} == said
