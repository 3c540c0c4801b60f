"""The transport of the server, dialling a WebSocket that the test serves."""

from __future__ import annotations

import socket

import pytest
from websockets.asyncio.server import ServerConnection, serve

from meshlib.aio import LinkConfig
from meshlib_server.websocket import WebSocketTransport

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_connection_that_nobody_acknowledges_is_broken_by_the_system() -> None:
    """A cut leaves no connection that sleeps for minutes; where the system can tell."""

    async def accept(connection: ServerConnection) -> None:
        await connection.wait_closed()

    transport = WebSocketTransport("127.0.0.1:1", token=None, links=LinkConfig(stall_s=7.5))
    async with serve(accept, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        connection = await transport._dial(f"127.0.0.1:{port}")
        dialled = connection._connection.transport.get_extra_info("socket")
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        bound_ms = option and dialled.getsockopt(socket.IPPROTO_TCP, option)
        await connection.close()

    assert (option and 7500) == bound_ms
