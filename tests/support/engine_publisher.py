"""A publisher of cache events, written from the documented format of vLLM's.

Three frames for each message: the topic, its number in eight bytes, and msgpack of `[time, events,
rank]`. A ROUTER socket answers an empty frame and a number with the messages from there on, and
ends with -1 and an empty frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from collections import OrderedDict, deque
from typing import Any, Self

import msgpack
import zmq
import zmq.asyncio

from meshlib.prefix import token_chain

__all__ = ["BLOCK", "Publisher", "two_ports"]

BLOCK = 4
"""Tokens of a block."""


def two_ports() -> tuple[int, int]:
    """Return two ports that nobody listens on."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


class Publisher:
    """An engine's cache, and the sockets by which it tells of it.

    `truth` is what it holds: the blocks as `meshlib` names them, by the engine's own names.

    Args:
        ports: of the publishing socket and of the replay socket.
        buffer_steps: messages that are kept.
        seed: of the names of blocks: another start has others.
    """

    def __init__(self, ports: tuple[int, int], *, buffer_steps: int = 1000, seed: str = "") -> None:
        self.ports = ports
        self.truth: OrderedDict[bytes, int] = OrderedDict()
        self.asked: list[int] = []
        self._seed = seed
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=buffer_steps)
        self._number = 0
        self._context = zmq.asyncio.Context()
        self._live: Any = self._context.socket(zmq.PUB)
        self._replay: Any = self._context.socket(zmq.ROUTER)
        self._task: asyncio.Task[None] | None = None

    @property
    def sent_count(self) -> int:
        """How many messages there were."""
        return self._number

    @property
    def endpoints(self) -> tuple[str, str]:
        """Where both sockets are reached."""
        return f"tcp://127.0.0.1:{self.ports[0]}", f"tcp://127.0.0.1:{self.ports[1]}"

    @property
    def blocks(self) -> frozenset[int]:
        """What it holds, as `meshlib` names it."""
        return frozenset(self.truth.values())

    async def __aenter__(self) -> Self:
        for bound, endpoint in zip((self._live, self._replay), self.endpoints, strict=True):
            bound.linger = 0
            bound.bind(endpoint)
        self._task = asyncio.create_task(self._answer())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._context.destroy(linger=0)

    async def _answer(self) -> None:
        while True:
            client, empty, start = await self._replay.recv_multipart()
            first = int.from_bytes(start, "big")
            self.asked.append(first)
            for number, payload in list(self._kept):
                if number >= first:
                    await self._replay.send_multipart(
                        [client, empty, number.to_bytes(8, "big"), payload]
                    )
            end = (-1).to_bytes(8, "big", signed=True)
            await self._replay.send_multipart([client, empty, end, b""])

    def _name(self, tokens: list[int]) -> bytes:
        return hashlib.sha256(f"{self._seed}{tokens}".encode()).digest()

    async def store(self, tokens: list[int], *, is_lost: bool = False) -> None:
        """Cache the blocks of a prompt, and tell of those that are new."""
        chain = token_chain(tokens, block_tokens=BLOCK)
        names = [self._name(tokens[: (n + 1) * BLOCK]) for n in range(len(chain))]
        known = sum(1 for name in names if name in self.truth)
        assert all(name in self.truth for name in names[:known])
        self.truth.update(zip(names, chain, strict=True))
        if known < len(names):
            parent = names[known - 1] if known else None
            told = tokens[known * BLOCK : len(names) * BLOCK]
            event = ["BlockStored", names[known:], parent, told, BLOCK, None, "GPU"]
            await self.publish([event], is_lost=is_lost)

    async def evict(self, count: int, *, is_lost: bool = False) -> None:
        """Evict the blocks that were stored last, ends of chains first."""
        gone = [self.truth.popitem()[0] for _ in range(min(count, len(self.truth)))]
        await self.publish([["BlockRemoved", gone, "GPU"]], is_lost=is_lost)

    async def evict_first(self, count: int) -> None:
        """Evict the blocks that were stored first."""
        gone = [self.truth.popitem(last=False)[0] for _ in range(min(count, len(self.truth)))]
        await self.publish([["BlockRemoved", gone, "GPU"]])

    async def clear(self, *, is_lost: bool = False) -> None:
        """Evict everything."""
        self.truth.clear()
        await self.publish([["AllBlocksCleared"]], is_lost=is_lost)

    async def publish(self, events: list[Any], *, is_lost: bool = False) -> None:
        """Send a message; one that is lost is kept like any other."""
        payload = msgpack.packb([time.time(), events, 0])
        number, self._number = self._number, self._number + 1
        if not is_lost:
            await self._live.send_multipart([b"kv", number.to_bytes(8, "big"), payload])
        self._kept.append((number, payload))
