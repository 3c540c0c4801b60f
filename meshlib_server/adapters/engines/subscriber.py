"""Listens to one engine's publisher: a socket for what it says, and one for what was missed.

Rule: only this file needs pyzmq; what a message means is decided in `feed.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final, Self

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from meshlib_server.adapters.engines.feed import EngineFeed

__all__ = ["EngineSubscriber"]

SEQUENCE_BYTES: Final = 8
END: Final = (1 << 64) - 1
"""The number that ends a replay: -1, in eight bytes."""

RECEIVED_MAX: Final = 100_000
"""Messages that wait in the socket; what comes beyond is lost, and asked for again."""

REPLAY_TIMEOUT_S: Final = 2.0
"""How long nothing may come of a replay, before it is asked for anew."""

REPLAYS_MAX: Final = 3
"""How often that is done before what was lost is given up."""

TICK_S: Final = 0.5
STEP_MESSAGES: Final = 16
"""Messages between two turns of the event loop: each may have thousands of tokens."""


class EngineSubscriber:
    """Follows the cache of one engine, vLLM's or SGLang's, with a feed.

        index = BlockIndex(is_by_block=True)
        feed = EngineFeed(EngineCache(index, worker_id="w1"))
        async with EngineSubscriber(feed, endpoint="tcp://w1:5557", replay="tcp://w1:5558"):
            ...

    The engine may start later, and anew; it is dialled again and again.

    Args:
        feed: what the messages are given to.
        endpoint: where the engine publishes.
        replay: where it answers who missed something; None: what is missed is lost.
        topic: what is subscribed to; empty for everything.
    """

    def __init__(
        self, feed: EngineFeed, *, endpoint: str, replay: str | None = None, topic: str = ""
    ) -> None:
        self.feed = feed
        self._endpoint, self._replay_endpoint, self._topic = endpoint, replay, topic
        self._context: zmq.asyncio.Context | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ask = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._context = zmq.asyncio.Context()
        live = self._socket(zmq.SUB)
        live.set_hwm(RECEIVED_MAX)
        live.subscribe(self._topic.encode())
        # Its own end is bound before the engine is dialled: the first connection is news too.
        monitor = live.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        live.connect(self._endpoint)
        for work in (self._follow(live), self._watch(monitor), self._make_good()):
            self._tasks.append(asyncio.create_task(work))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._context is not None
        self._context.destroy(linger=0)

    def _socket(self, kind: int) -> Any:
        assert self._context is not None
        socket = self._context.socket(kind)
        socket.linger = 0
        return socket

    async def _follow(self, live: Any) -> None:
        while True:
            for _ in range(STEP_MESSAGES):
                parts = await live.recv_multipart()
                if len(parts) == 3 and len(parts[1]) == SEQUENCE_BYTES:
                    number = int.from_bytes(parts[1], "big")
                    self.feed.receive(number, parts[2], now=time.monotonic())
                else:
                    self.feed.strange_count += 1
                self._look()
            await asyncio.sleep(0)

    async def _watch(self, monitor: Any) -> None:
        while True:
            await recv_monitor_message(monitor)
            self.feed.connected()
            self._look()

    def _look(self) -> None:
        if self.feed.is_asking:
            self._ask.set()

    async def _make_good(self) -> None:
        """Ask for what was missed, whenever there is something; give up what is expected."""
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._ask.wait()
            self.feed.cache.tick(time.monotonic())
            self._ask.clear()
            if not self.feed.is_asking:
                failures = 0
            elif self._replay_endpoint is None:
                self.feed.replay_failed(now=time.monotonic())
            elif await self._replay(self._replay_endpoint):
                failures = 0
            else:
                failures += 1
                if failures >= REPLAYS_MAX:
                    failures = 0
                    self.feed.replay_failed(now=time.monotonic())
            self._look()

    async def _replay(self, endpoint: str) -> bool:
        """Ask once; a socket of its own, so that no answer is taken for another's."""
        socket = self._socket(zmq.DEALER)
        try:
            socket.connect(endpoint)
            start = self.feed.begin_replay().to_bytes(SEQUENCE_BYTES, "big")
            await socket.send_multipart([b"", start])
            while True:
                async with asyncio.timeout(REPLAY_TIMEOUT_S):
                    parts = await socket.recv_multipart()
                if len(parts) < 2 or len(parts[-2]) != SEQUENCE_BYTES:
                    self.feed.strange_count += 1
                    continue
                number = int.from_bytes(parts[-2], "big")
                if number == END or not parts[-1]:
                    self.feed.replay_ended(now=time.monotonic())
                    return True
                self.feed.replayed(number, parts[-1], now=time.monotonic())
                await asyncio.sleep(0)
        except TimeoutError:
            return False
        finally:
            socket.close()
