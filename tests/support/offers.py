"""Requests for rate-limit units over HTTP, at moments that are aligned to the windows."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from attrs import define, field

from support.processes import Cluster

__all__ = ["Answered", "Client", "confirm", "next_second"]


@define(slots=True)
class Answered:
    """What came of one request.

    Args:
        second: the second of the wall clock in which it was answered.
        is_allowed: whether it passed.
        is_confirmed: whether the owner said so.
        retry_after_s: when to come again.
    """

    second: int
    is_allowed: bool
    is_confirmed: bool
    retry_after_s: float


@define(slots=True)
class Client:
    """Connections to one node; each request takes one of its own, so that none waits for another.

    Args:
        node: where to.
    """

    node: Any
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(factory=list)

    async def open(self, count: int) -> None:
        """Open so many connections ahead of a burst."""
        for _ in range(count - len(self._idle)):
            self._idle.append(await asyncio.open_connection("127.0.0.1", self.node.port))

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self._idle:
            writer.close()

    async def acquire(self, key: str, cost: int = 1) -> Answered:
        """Ask for units."""
        if not self._idle:
            await self.open(1)
        reader, writer = self._idle.pop()
        body = json.dumps({"key": key, "cost": cost}).encode()
        writer.write(
            (
                "POST /mesh/rate-limit/acquire HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {self.node.token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        answer = json.loads(await reader.readexactly(length))
        second = int(time.time())
        self._idle.append((reader, writer))
        is_allowed = head.startswith(b"http/1.1 200")
        assert is_allowed or head.startswith(b"http/1.1 429"), (head, answer)
        assert answer["allowed"] is is_allowed
        return Answered(second, is_allowed, answer["confirmed"], answer["retry_after_s"])


async def next_second(into_s: float = 0.3) -> None:
    """Return so far into the next second of the wall clock: windows are its seconds."""
    await asyncio.sleep(1.0 - time.time() % 1.0 + into_s)


def confirm(cluster: Cluster, limit: int) -> None:
    """Set the global limit, and wait until its owner decides for every node."""
    cluster.nodes[0].do("POST", "/mesh/rate-limit", {"limit_per_second": limit})

    def is_confirmed() -> bool:
        return all(
            node.call("POST", "/mesh/rate-limit/acquire", {"key": "global", "cost": 1})[1].get(
                "confirmed", False
            )
            and node.get("/mesh/rate-limit") == {"limit_per_second": limit}
            for node in cluster.nodes
        )

    cluster.wait_until(is_confirmed, "the key's owner decides")
