"""Connections are taken a batch at a time, and never more than there is room for.

asyncio's own server takes as many as have come, and logs a line for each that it has no descriptor
for. Here room is made before a connection becomes anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from meshlib_server.http.gate import ACCEPT_BATCH, Gate
from meshlib_server.http.protocol import BoundedProtocol
from meshlib_server.logs import quiet_warning

__all__ = ["Acceptor"]

_RETRY_S: Final = 0.1


class Acceptor:
    """Takes connections from one listening socket.

    Args:
        listener: bound and listening; closed at the end.
        gate: says who may come.
        make_protocol: makes what serves a connection.
    """

    def __init__(
        self, listener: socket.socket, *, gate: Gate, make_protocol: Callable[[], BoundedProtocol]
    ) -> None:
        self._listener = listener
        self._gate = gate
        self._make_protocol = make_protocol
        self._connecting: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept_all())

    async def close(self) -> None:
        """Take what has come by now, which would be reset otherwise, and close the socket."""
        self._accepting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._accepting
        self._accept_batch(ACCEPT_BATCH)
        self._listener.close()

    async def _accept_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listener)
            except ConnectionError:
                continue  # it was gone before it was taken
            except OSError as error:
                # No descriptors are left, as a rule; those that close make room.
                quiet_warning("cannot accept a connection", str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            self._take(accepted, address[0])
            self._accept_batch(ACCEPT_BATCH - 1)
            await asyncio.sleep(0)  # one turn for everything else, however many wait here

    def _accept_batch(self, count: int) -> None:
        """Take what has come, without waiting for more."""
        for _ in range(count):
            try:
                accepted, address = self._listener.accept()
            except OSError:
                return  # nothing is left, or `sock_accept` will say what is wrong
            self._take(accepted, address[0])

    def _take(self, accepted: socket.socket, host: str) -> None:
        gate = self._gate
        if not gate.make_room(host):
            accepted.close()
            quiet_warning("too many connections", f"{len(gate):,} are open, one from {host} is not")
            return
        accepted.setblocking(False)
        protocol = self._make_protocol()
        gate.enter(protocol, host)
        task = asyncio.get_running_loop().create_task(self._connect(protocol, accepted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, protocol: BoundedProtocol, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted)
        except OSError:  # it has gone already
            self._gate.leave(protocol)
            accepted.close()
