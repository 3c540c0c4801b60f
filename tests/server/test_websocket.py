"""The transport of the server, dialling a WebSocket that the test serves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from meshlib.aio import LinkConfig, LinkFailure, LinkFault, refusal_word
from meshlib.errors import RejectReason
from meshlib_server.transports import MountedWebSockets

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_connection_that_nobody_acknowledges_is_broken_by_the_system() -> None:
    """A cut leaves no connection that sleeps for minutes; where the system can tell."""

    async def accept(connection: ServerConnection) -> None:
        await connection.wait_closed()

    transport = MountedWebSockets("127.0.0.1:1", token=None, links=LinkConfig(stall_s=7.5))
    async with serve(accept, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        connection = await transport._dial(f"127.0.0.1:{port}")
        dialled = connection._connection.transport.get_extra_info("socket")
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        bound_ms = option and dialled.getsockopt(socket.IPPROTO_TCP, option)
        await connection.close()

    assert (option and 7500) == bound_ms


class Heard:
    """A receiver that keeps why links were lost."""

    def __init__(self) -> None:
        self.failures: dict[str, LinkFailure | None] = {}
        self.signal = asyncio.Event()

    def frame_received(self, data: bytes, sender: str) -> bool:
        return True

    async def wait_for_room(self) -> None:
        return

    def connection_lost(self, address: str, failure: LinkFailure | None = None) -> None:
        self.failures[address] = failure
        self.signal.set()

    def link_busy(self, address: str, *, is_busy: bool) -> None:
        return

    def carrier_changed(self, *, is_up: bool) -> None:
        raise AssertionError("it has no carrier")


async def test_a_refused_token_is_told_as_that() -> None:
    """A peer that answers 401 asks for another one."""

    def refuse(connection: ServerConnection, _request: Request) -> Response:
        return connection.respond(HTTPStatus.UNAUTHORIZED, "no")

    async def accept(connection: ServerConnection) -> None:
        await connection.wait_closed()

    assert LinkFault.WRONG_TOKEN == await fault_of(accept, process_request=refuse)


async def test_the_reason_of_a_closing_is_told() -> None:
    """A peer of another cluster says so when it hangs up."""

    async def dismiss(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(1008, refusal_word(RejectReason.CLUSTER))

    assert LinkFault.WRONG_CLUSTER == await fault_of(dismiss)


async def fault_of(accept: Callable[[ServerConnection], Awaitable[None]], **kind: Any) -> LinkFault:
    """Send a frame to a peer, and return why the link to it was lost."""
    heard = Heard()
    transport = MountedWebSockets("127.0.0.1:1", token="token")
    await transport.start(heard)
    async with serve(accept, "127.0.0.1", 0, **kind) as server:
        address = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        assert transport.send(address, b"frame")
        async with asyncio.timeout(30):
            await heard.signal.wait()
    await transport.close(drain_s=0)
    failure = heard.failures[address]
    assert failure is not None
    return failure.fault
