"""Nodes in processes of their own, told what to do by lines on their standard input."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Child", "Start"]


class Child:
    """A process with one node in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.address = ""
        self._turn = asyncio.Lock()

    async def ask(self, **order: Any) -> Any:
        """Send one line and return the answer to it."""
        assert self.process.stdin is not None
        async with self._turn:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            return await self.read()

    async def read(self) -> Any:
        """Return the next line of the process."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            line = await self.process.stdout.readline()
        assert line, "the node's process has ended"
        return json.loads(line)

    async def until(self, condition: Callable[[Any], bool], **order: Any) -> Any:
        """Ask again and again until the answer is right; fail after half a minute."""
        async with asyncio.timeout(30):
            while True:
                answer = await self.ask(**order)
                if condition(answer):
                    return answer
                await asyncio.sleep(0.01)

    async def leave(self) -> int:
        """Let the node leave, and return the exit code of its process."""
        assert self.process.stdin is not None
        self.process.stdin.write(b'{"leave": 1}\n')
        async with asyncio.timeout(10):
            return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)


class Start(Protocol):
    """Starts a node by its name; the seeds are nodes that run already."""

    async def __call__(
        self,
        name: str,
        *seeds: Child,
        listen: str = ...,
        file: str | Path = ...,
        is_next: bool = ...,
    ) -> Child: ...
