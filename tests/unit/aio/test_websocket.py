"""WebSockets of the library's own: who is let in, and what a stranger can hold."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme
from support.transports import Eventually, Recorder
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from meshlib.aio import LinkFault, ListenerConfig, WebSocketTransport
from meshlib.errors import ConfigError
from meshlib.limits import FRAME_BYTES_MAX

pytestmark = pytest.mark.anyio

NewWebSocket = Callable[..., WebSocketTransport]


@pytest.fixture
async def new_websocket(anyio_backend: str) -> AsyncIterator[NewWebSocket]:
    """Make transports on free ports of the loopback; all are closed at the end."""
    made: list[WebSocketTransport] = []

    def new(**settings: Any) -> WebSocketTransport:
        made.append(WebSocketTransport("127.0.0.1:0", **settings))
        return made[-1]

    yield new
    for transport in made:
        await transport.close(drain_s=0)


async def dial(transport: WebSocketTransport, path: str = "/mesh/gossip", **more: Any) -> Any:
    return await connect(f"ws://{transport.address}{path}", compression=None, proxy=None, **more)


async def status_of(transport: WebSocketTransport, path: str = "/mesh/gossip", **more: Any) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await dial(transport, path, **more)
    return int(caught.value.response.status_code)


async def code_of(connection: ClientConnection, message: bytes | str) -> int:
    await connection.send(message)
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(10):
            await connection.recv()
    assert connection.close_code is not None
    return connection.close_code


@pytest.mark.parametrize("shown", [None, "other", "", "token\u00e9".encode().decode("latin-1")])
async def test_a_peer_with_another_token_is_refused(
    new_websocket: NewWebSocket, shown: str | None
) -> None:
    """And nothing that it sends is read."""
    transport = new_websocket(token="token")
    await transport.start(Recorder())
    headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}

    assert 401 == await status_of(transport, additional_headers=headers)
    assert 1 == transport.counters.hellos_refused


async def test_two_tokens_at_once_are_none(new_websocket: NewWebSocket) -> None:
    """Who checks before may have looked at the other one."""
    transport = new_websocket(token="token")
    await transport.start(Recorder())
    headers = [("Authorization", "Bearer token"), ("Authorization", "Bearer other")]

    assert 401 == await status_of(transport, additional_headers=headers)


async def test_a_token_where_none_is_asked_for_is_refused(new_websocket: NewWebSocket) -> None:
    """A cluster of which one half was configured shows itself at once."""
    transport = new_websocket()
    await transport.start(Recorder())

    assert 401 == await status_of(transport, additional_headers={"Authorization": "Bearer token"})


async def test_a_token_that_is_being_changed_is_accepted(
    new_websocket: NewWebSocket, eventually: Eventually
) -> None:
    """The new one and those that are still about; what is presented can be changed too."""
    heard = Recorder()
    one, other = new_websocket(token="old"), new_websocket(token="new", accepted_tokens=["old"])
    await one.start(Recorder())
    await other.start(heard)
    one.send(other.address, b"with the old one")
    await eventually(lambda: heard.frames)
    one.present("new")
    one.drop_link(other.address)
    one.send(other.address, b"with the new one")
    await eventually(lambda: len(heard.frames) == 2)

    assert [b"with the old one", b"with the new one"] == heard.frames


async def test_a_refused_peer_is_told_that_it_is_the_token(
    new_websocket: NewWebSocket, eventually: Eventually
) -> None:
    """So that `diagnose` can say so."""
    heard = Recorder()
    one, other = new_websocket(token="wrong"), new_websocket(token="right")
    await one.start(heard)
    await other.start(Recorder())
    one.send(other.address, b"hello")
    await eventually(lambda: heard.failures)

    assert [LinkFault.WRONG_TOKEN] == [failure and failure.fault for failure in heard.failures]


async def test_nothing_is_at_another_path(new_websocket: NewWebSocket) -> None:
    """The port serves peers alone."""
    transport = new_websocket()
    await transport.start(Recorder())

    assert 404 == await status_of(transport, "/mesh/health")


async def test_a_page_in_a_browser_is_refused(new_websocket: NewWebSocket) -> None:
    """Any web page can dial this machine; its browser says where the page is from."""
    transport = new_websocket()
    await transport.start(Recorder())

    assert 403 == await status_of(transport, origin="http://elsewhere.example")


@pytest.mark.parametrize(
    ("message", "code"), [("a text", 1003), (b"", 1003), (b"x" * (FRAME_BYTES_MAX + 1), 1009)]
)
async def test_what_is_no_frame_closes_its_connection(
    new_websocket: NewWebSocket, eventually: Eventually, message: bytes | str, code: int
) -> None:
    """It is counted, and not delivered."""
    transport, heard = new_websocket(), Recorder()
    await transport.start(heard)
    connection = await dial(transport)

    assert code == await code_of(connection, message)
    await eventually(lambda: transport.counters.frames_malformed == 1)

    assert [] == heard.frames


async def test_connections_over_the_cap_are_closed(
    new_websocket: NewWebSocket, eventually: Eventually
) -> None:
    """And there is room again once one has gone."""
    transport, heard = new_websocket(listener=ListenerConfig(accepted_max=2)), Recorder()
    await transport.start(heard)
    first, _second = await dial(transport), await dial(transport)
    with pytest.raises((OSError, EOFError, InvalidHandshake)):
        await dial(transport)
    await first.close()
    await eventually(lambda: len(transport._listener._accepted) == 1)  # type: ignore[union-attr]
    third = await dial(transport)
    await third.send(b"frame")
    await eventually(lambda: heard.frames)

    assert 1 == transport.counters.connections_refused


async def test_strangers_cannot_lock_a_peer_out(
    new_websocket: NewWebSocket, eventually: Eventually
) -> None:
    """The oldest of those that say nothing makes room."""
    transport, heard = new_websocket(listener=ListenerConfig(strangers_max=3)), Recorder()
    await transport.start(heard)
    host, _, port = transport.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(10)]
    await eventually(lambda: transport.counters.hellos_timed_out == 7)
    peer = await dial(transport)
    await peer.send(b"frame")
    await eventually(lambda: heard.frames)
    for each in silent:
        each.close()

    assert [b"frame"] == heard.frames


async def test_a_silent_connection_is_closed(
    new_websocket: NewWebSocket, eventually: Eventually
) -> None:
    """Its host may be gone, and it counts."""
    transport = new_websocket()
    await transport.start(Recorder())
    assert transport._listener is not None
    transport._listener._config = ListenerConfig(silence_max_s=0.05)
    connection = await dial(transport)
    await eventually(lambda: not transport._listener._accepted)  # type: ignore[union-attr]
    await connection.wait_closed()


async def test_frames_pass_over_tls_with_both_certificates(
    new_websocket: NewWebSocket, eventually: Eventually
) -> None:
    """Who shows none is not let in."""
    authority = trustme.CA()
    server, client = (
        ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
    )
    shown = authority.issue_cert("127.0.0.1")
    for context in (server, client):
        shown.configure_cert(context)
        authority.configure_trust(context)
    server.verify_mode = ssl.CERT_REQUIRED
    heard = Recorder()
    one = new_websocket(server_tls=server, client_tls=client)
    other = new_websocket(server_tls=server, client_tls=client)
    await one.start(Recorder())
    await other.start(heard)
    one.send(other.address, b"hello")
    await eventually(lambda: heard.frames)
    bare = new_websocket()
    lost = Recorder()
    await bare.start(lost)
    bare.send(other.address, b"without")
    await eventually(lambda: lost.lost)

    assert [b"hello"] == heard.frames


@pytest.mark.parametrize(
    "settings",
    [
        {"token": ""}, {"token": "t\u00f6ken"}, {"token": "a\nb"}, {"token": "x" * 2000},
        {"advertise": "0.0.0.0:1"}, {"server_tls": ssl.create_default_context()},
        {"listener": ListenerConfig(silence_max_s=1)},
    ],
    ids=["empty", "no ASCII", "two lines", "long", "nowhere", "one way", "silence"],
)  # fmt: skip
async def test_what_cannot_be_is_refused_at_once(settings: dict[str, Any]) -> None:
    """Before anything listens."""
    with pytest.raises(ConfigError):
        WebSocketTransport("127.0.0.1:0", **settings)


def test_who_lacks_the_extra_is_told_which() -> None:
    """And has everything else of the room."""
    code = (
        "import sys; sys.modules['websockets'] = None; from meshlib.aio import TcpTransport\n"
        "from meshlib.aio import WebSocketTransport"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert "pip install 'meshlib-crdt[websocket]'" in result.stderr
