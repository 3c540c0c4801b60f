"""uvicorn's server over bounded connections, without its signals, and with a bounded end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from meshlib.limits import FRAME_BYTES_MAX
from meshlib_server.access.tls import Tls
from meshlib_server.http.accepting import Acceptor
from meshlib_server.http.gate import Gate, HttpSettings
from meshlib_server.http.gossip import GossipProtocol
from meshlib_server.http.protocol import BoundedConfig, BoundedProtocol

__all__ = ["HttpServer"]

CLOSE_TIMEOUT_S: Final = 1.0
"""For requests that are still being answered, and for callers to read their answers."""

_LAST_WORDS_S: Final = 0.25
"""For handlers that were cut off to say so."""

_POLL_S: Final = 0.02


class HttpServer(uvicorn.Server):
    """Serves one application on one socket.

    Args:
        app: the application.
        settings: what callers are granted.
        connections_max: connections of callers, as the descriptors allow.
        tls: what connections are shown; None: there is no TLS.
    """

    def __init__(
        self, app: Any, *, settings: HttpSettings, connections_max: int, tls: Tls | None = None
    ) -> None:
        self._tls = tls
        self._head_timeout_s = settings.head_timeout_s
        self.gate = Gate(settings, connections_max=connections_max)
        self._acceptors: list[Acceptor] = []
        self._is_hurried = False
        config = BoundedConfig(
            app,
            gate=self.gate,
            http=BoundedProtocol,
            ws=GossipProtocol,
            ws_max_size=FRAME_BYTES_MAX,
            ws_per_message_deflate=False,  # frames are small or already dense
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=math.ceil(settings.idle_timeout_s),
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: uvicorn would end the process with a signal's code."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections from now on; uvicorn calls it."""
        await self.lifespan.startup()
        self.servers = []  # uvicorn's own
        self._acceptors = [
            Acceptor(
                listener,
                gate=self.gate,
                make_protocol=self._make_protocol,
                tls=None if self._tls is None else self._shown,
                handshake_timeout_s=self._head_timeout_s,
            )
            for listener in sockets or []
        ]
        self.started = True

    def begin_draining(self) -> None:
        """Go on answering, each time with `Connection: close`. Idempotent."""
        self.gate.begin_draining()

    def hurry(self) -> None:
        """End without waiting for anybody. Idempotent."""
        self._is_hurried = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        """Answer what has come, let callers read it, and close; uvicorn calls it."""
        for acceptor in self._acceptors:
            acceptor.close()
        self.gate.begin_draining()
        await asyncio.sleep(0)  # for connections taken just now
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_for_end(CLOSE_TIMEOUT_S)
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS_S)
            await self._wait_for_end(_LAST_WORDS_S)
        self.gate.close()

    def _shown(self) -> ssl.SSLContext:
        """Return what a connection is shown that is accepted now."""
        assert self._tls is not None
        return self._tls.server

    def _make_protocol(self) -> BoundedProtocol:
        assert isinstance(self.config, BoundedConfig)
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state)

    async def _wait_for_end(self, limit_s: float) -> None:
        """Wait until every connection has ended, or for so long."""
        ends_at = asyncio.get_running_loop().time() + limit_s
        while self.gate or self.server_state.tasks:
            if self._is_hurried or asyncio.get_running_loop().time() >= ends_at:
                return
            await asyncio.sleep(_POLL_S)
