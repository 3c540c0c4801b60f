"""Connections are taken a batch at a time, and never more than there is room for.

asyncio's own server takes as many as have come, and logs a line for each that it has no descriptor
for. Here room is made before a connection becomes anything.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from meshlib_server.http.gate import ACCEPT_BATCH, Gate
from meshlib_server.http.protocol import BoundedProtocol
from meshlib_server.logs import quiet_warning

__all__ = ["Acceptor"]

_RETRY_S: Final = 0.1

_WAITING_MAX: Final = 65_536
"""More than wait at one socket: what is taken at the end is all that has come."""


class Acceptor:
    """Takes connections from one listening socket.

    Args:
        listener: bound and listening; closed at the end.
        gate: says who may come.
        make_protocol: makes what serves a connection.
        tls: returns what a connection is shown; None: there is no TLS.
        handshake_timeout_s: how long it may take to agree on that.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        gate: Gate,
        make_protocol: Callable[[], BoundedProtocol],
        tls: Callable[[], ssl.SSLContext] | None = None,
        handshake_timeout_s: float = 10.0,
    ) -> None:
        self._listener = listener
        self._gate = gate
        self._make_protocol = make_protocol
        self._tls = tls
        self._handshake_timeout_s = handshake_timeout_s
        self._connecting: set[asyncio.Task[None]] = set()
        self._retrying: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listener, self._on_readable)

    def close(self) -> None:
        """Take whatever has come by now, which would be reset otherwise; close. Idempotent."""
        if self._listener.fileno() < 0:
            return
        if self._retrying is not None:
            self._retrying.cancel()
        else:
            self._loop.remove_reader(self._listener)
        try:
            self._accept_batch(_WAITING_MAX)
        except OSError as error:
            quiet_warning("cannot accept a connection", str(error))
        self._listener.close()

    def _on_readable(self) -> None:
        """Take some of what has come; the loop calls again, after a turn for everything else."""
        try:
            self._accept_batch(ACCEPT_BATCH)
        except OSError as error:
            # No descriptors are left, as a rule; those that close make room.
            quiet_warning("cannot accept a connection", str(error))
            self._loop.remove_reader(self._listener)
            self._retrying = self._loop.call_later(_RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retrying = None
        self._loop.add_reader(self._listener, self._on_readable)

    def _accept_batch(self, count: int) -> None:
        """Take what has come, without waiting for more.

        Raises:
            OSError: why no more can be taken, when anything waits.
        """
        for _ in range(count):
            try:
                accepted, address = self._listener.accept()
            except BlockingIOError:
                return  # nothing is left
            except ConnectionError:
                continue  # it was gone before it was taken
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
        tls = None
        if self._tls is not None:
            if protocol.is_aborted:
                accepted.close()
                return
            tls = self._tls()
            protocol.connecting = asyncio.current_task()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self._handshake_timeout_s,
            )
        except OSError as error:  # it has gone already, or speaks no TLS that is spoken here
            self._gate.leave(protocol)
            accepted.close()
            if isinstance(error, ssl.SSLError):
                quiet_warning("a TLS handshake failed", error.reason or "without a reason")
        except asyncio.CancelledError:  # its place was wanted, or it took too long
            self._gate.leave(protocol)
            accepted.close()
            raise
