"""The connection to NATS: made, watched, and made again when it is lost.

Rule: each connection is a new client, and nothing of one is carried over to the next. What was on
its way when one was lost is lost with it: the links end, and gossip repairs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

try:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.errors import Error as NatsError
except ModuleNotFoundError as error:  # pragma: no cover - where the extra is not installed
    raise ModuleNotFoundError(
        "NATS needs the extra `nats`: pip install 'meshlib-crdt[nats]'", name=error.name
    ) from error

from meshlib.aio.nats.settings import NatsAccess, NatsConfig
from meshlib.aio.transport import (
    FRAME_OVERHEAD_BYTES,
    LinkFault,
    PeerRefusedError,
    QuietLog,
)

__all__ = ["Carrier", "Msg"]

_logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
"""How often a client is asked whether it is connected: not every loss is told."""

_CLOSE_S: Final = 1.0
_BATCH: Final = 32
"""Messages published before the rest of the program has its turn."""

_WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
_WAITING_MAX: Final = 65_536
"""What the client keeps of what was received, far over what links send; the rest is dropped."""

_HEADROOM_BYTES: Final = 64


class Carrier:
    """Publishes and hears, for as long as NATS can be reached.

    Args:
        access: where NATS is.
        config: how the connection is kept.
        handlers: a subject to what takes its messages; returns at once.
        changed: called with False when the connection is lost, and with True when it is back.
    """

    def __init__(
        self,
        access: NatsAccess,
        *,
        config: NatsConfig,
        handlers: Mapping[str, Callable[[Msg], None]],
        changed: Callable[[bool], None],
    ) -> None:
        self._access = access
        self._config = config
        self._handlers = dict(handlers)
        self._changed = changed
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._queue: deque[tuple[str, bytes, str]] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self._rng = random.Random()
        self._last_error = ""
        self._log = QuietLog(_logger)

    @property
    def is_up(self) -> bool:
        """Whether NATS can be reached, as far as is known."""
        return self._client is not None and self._client.is_connected

    @property
    def piece_bytes_max(self) -> int:
        """What one message may hold, as NATS allows."""
        limit = self._config.piece_bytes_max
        return (
            limit
            if self._client is None
            else min(limit, self._client.max_payload - _HEADROOM_BYTES)
        )

    async def open(self) -> None:
        """Connect and subscribe, and stay connected from now on.

        Raises:
            OSError: no server could be reached in time, or none let this node in.
        """
        self._take(await self._connect())
        self._keeper = asyncio.create_task(self._keep())

    async def subscribe(self, subject: str, handler: Callable[[Msg], None]) -> None:
        """Hear one more subject from now on, on every connection.

        Raises:
            OSError: the connection was lost meanwhile.
        """
        self._handlers[subject] = handler
        client = self._client
        try:
            if client is None:
                raise ConnectionResetError("the connection to NATS was lost")
            await self._subscribe(client, {subject: handler})
        except NatsError as error:
            raise ConnectionResetError(str(error)) from error

    async def publish(self, subject: str, payload: bytes, *, reply: str) -> None:
        """Publish once there is room; waits while NATS takes no more.

        Raises:
            PeerRefusedError: there is no connection.
        """
        while self.is_up and self._queued_bytes > self._config.queue_bytes_max:
            self._emptied.clear()
            await self._emptied.wait()
        if not self.post(subject, payload, reply=reply):
            raise PeerRefusedError(LinkFault.CARRIER, "the connection to NATS was lost")

    def post(self, subject: str, payload: bytes, *, reply: str = "") -> bool:
        """Publish soon, without waiting for room: what is small, and what follows from a message.

        Returns:
            False when there is no connection, or far too much waits for it.
        """
        if not self.is_up or self._queued_bytes > 8 * self._config.queue_bytes_max:
            return False
        self._queue.append((subject, payload, reply))
        self._queued_bytes += len(payload) + FRAME_OVERHEAD_BYTES
        self._filled.set()
        return True

    async def close(self) -> None:
        """Publish what was posted, for up to a second, and close. Idempotent."""
        for task in (self._keeper, self._pump):
            if task is not None:
                task.cancel()
        await asyncio.gather(
            *(task for task in (self._keeper, self._pump) if task is not None),
            return_exceptions=True,
        )
        self._keeper = self._pump = None
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(TimeoutError, NatsError, OSError):
                async with asyncio.timeout(_CLOSE_S):
                    while self._queue:
                        subject, payload, reply = self._queue.popleft()
                        await client.publish(subject, payload, reply=reply)
                    # NATS is to say at once that nobody is here any more, and not once it notices.
                    for heard in self._subscriptions:
                        await heard.unsubscribe()
                    await _flush(client)
            await self._discard(client)
        self._drop_queue()

    async def _connect(self) -> Client:
        """Connect to one of the servers and subscribe.

        Raises:
            OSError: within the time none could be reached, or none let this node in.
        """
        client = Client()
        self._last_error = ""
        self._subscriptions.clear()
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                await client.connect(**self._options())
                await self._subscribe(client, self._handlers)
        except (OSError, NatsError) as error:
            await self._discard(client)
            detail = self._last_error or str(error) or "no server answered"
            raise ConnectionError(f"cannot reach NATS: {detail}") from error
        except BaseException:
            await self._discard(client)
            raise
        return client

    async def _subscribe(
        self, client: Client, handlers: Mapping[str, Callable[[Msg], None]]
    ) -> None:
        """Subscribe, and return when NATS knows of it."""
        for subject, handler in handlers.items():
            heard = await client.subscribe(
                subject,
                cb=_as_coroutine(handler),
                pending_msgs_limit=_WAITING_MAX,
                pending_bytes_limit=_WAITING_BYTES_MAX,
            )
            self._subscriptions.append(heard)
        await _flush(client)

    def _options(self) -> dict[str, Any]:
        access, shown = self._access, self._access.credentials
        return {
            "servers": list(access.servers),
            "name": access.name,
            "tls": access.tls,
            "tls_hostname": access.tls_hostname,
            "user": shown.user,
            "password": shown.password,
            "token": shown.token,
            "user_credentials": shown.file,
            "nkeys_seed": shown.seed_file,
            "allow_reconnect": False,  # that is this class's part
            "max_reconnect_attempts": -1,
            "connect_timeout": self._config.connect_timeout_s,
            "reconnect_time_wait": self._config.retry_s,
            "ping_interval": self._config.ping_interval_s,
            "max_outstanding_pings": 1,
            "error_cb": self._on_error,
            "closed_cb": self._on_closed,
            "skip_subject_validation": True,  # they are made here
        }

    async def _on_error(self, error: Exception) -> None:
        told = str(error) or type(error).__name__
        # A server says why it closes a connection, and a broken connection is what comes of it.
        if not (self._last_error and isinstance(error, OSError)):
            self._last_error = told
        self._log.tell("NATS", told)

    async def _on_closed(self) -> None:
        self._lost.set()

    def _take(self, client: Client) -> None:
        self._client = client
        self._pump = asyncio.create_task(self._publish_all(client))

    async def _keep(self) -> None:
        """Watch the connection, and make another one when it is lost; for ever."""
        while True:
            client = self._client
            assert client is not None
            while client.is_connected:
                self._lost.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._lost.wait()
            self._log.tell("NATS", f"the connection was lost: {client.last_error or 'closed'}")
            await self._end(client)
            self._take(await self._connect_again())
            _logger.info("the connection to NATS is back")
            self._changed(True)

    async def _end(self, client: Client) -> None:
        self._client = None
        if self._pump is not None:
            self._pump.cancel()
        self._drop_queue()
        self._changed(False)
        await self._discard(client)

    async def _connect_again(self) -> Client:
        while True:
            try:
                return await self._connect()
            except OSError as error:
                self._log.tell("NATS", str(error))
            await asyncio.sleep(self._config.retry_s * self._rng.uniform(0.5, 1.0))

    async def _discard(self, client: Client) -> None:
        # A client waits for what it wrote to be taken, also by a server that takes nothing.
        with contextlib.suppress(TimeoutError, NatsError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await client.close()

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        self._emptied.set()

    async def _publish_all(self, client: Client) -> None:
        """Publish what is queued, in its order, until the connection is lost."""
        taken = 0
        try:
            while True:
                while self._queue:
                    subject, payload, reply = self._queue.popleft()
                    self._queued_bytes -= len(payload) + FRAME_OVERHEAD_BYTES
                    await client.publish(subject, payload, reply=reply)
                    self._emptied.set()
                    taken += 1
                    if taken % _BATCH == 0:
                        await asyncio.sleep(0)
                self._filled.clear()
                await self._filled.wait()
        except (OSError, NatsError) as error:
            self._log.tell("NATS", f"cannot publish: {error or type(error).__name__}")
            self._lost.set()
            await client.close()


async def _flush(client: Client) -> None:
    """Return when NATS has taken all that was said to it."""
    # The client's own question overtakes what it has not written yet.
    while client.is_connected and client.pending_data_size:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)
    await client.flush()


def _as_coroutine(handler: Callable[[Msg], None]) -> Callable[[Msg], Awaitable[None]]:
    """Return what the client asks for: a coroutine function."""

    async def heard(message: Msg) -> None:
        handler(message)

    return heard
