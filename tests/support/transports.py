"""What tests of the asyncio room share: a receiver that records, and polling with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from meshlib.aio import LinkFailure, TcpTransport


class Recorder:
    """A receiver that keeps what it hears, and that can ask for a pause."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.senders: list[str] = []
        self.lost: list[str] = []
        self.failures: list[LinkFailure | None] = []
        self.busy: list[tuple[str, bool]] = []
        self.carrier: list[bool] = []
        self.room = asyncio.Event()
        self.room.set()

    def frame_received(self, data: bytes, sender: str) -> bool:
        self.frames.append(data)
        self.senders.append(sender)
        return self.room.is_set()

    async def wait_for_room(self) -> None:
        await self.room.wait()

    def connection_lost(self, address: str, failure: LinkFailure | None = None) -> None:
        self.lost.append(address)
        self.failures.append(failure)

    def link_busy(self, address: str, *, is_busy: bool) -> None:
        self.busy.append((address, is_busy))

    def carrier_changed(self, *, is_up: bool) -> None:
        self.carrier.append(is_up)


async def poll_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return once the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


class Eventually(Protocol):
    """Returns once a condition holds, as `poll_until` does."""

    async def __call__(self, condition: Callable[[], object], timeout_s: float = ...) -> None: ...


class NewTcp(Protocol):
    """Makes a TCP transport that is closed at the end of the test."""

    def __call__(self, listen: str = ..., **settings: Any) -> TcpTransport: ...
