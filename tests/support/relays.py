"""A relay of TCP that is cut, slow, or lossy as a link is under TCP: what is lost comes late."""

from __future__ import annotations

import asyncio
import contextlib
import random

__all__ = ["Relay"]

PIECE_BYTES = 16 * 1024
RESENT_S = (0.2, 0.4)
"""How late a lost packet comes: after the shortest times of TCP to send it again."""


class Relay:
    """Forwards connections from a port of its own to another one.

    Args:
        target: the port on this machine.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.delay_s = 0.0
        self.loss = 0.0
        self.bytes_carried = 0
        self._is_cut = False
        self._rng = random.Random(1)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all connections, and listen no more."""
        self.cut()
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections, and take none until `mend`."""
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut = False

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, onward}
        for source, sink in ((reader, onward), (there, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Carry bytes one way, each piece after its delay and in order."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            with contextlib.suppress(OSError):  # either end may be gone: then so is the other
                while True:
                    at, data = await pieces.get()
                    await asyncio.sleep(max(0.0, at - loop.time()))
                    if not data:
                        break
                    self.bytes_carried += len(data)
                    sink.write(data)
                    await sink.drain()

        async def read() -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(PIECE_BYTES):
                    late_s = self._rng.uniform(*RESENT_S) if self._rng.random() < self.loss else 0.0
                    pieces.put_nowait((loop.time() + self.delay_s + late_s, data))
            pieces.put_nowait((0.0, b""))

        try:
            await asyncio.gather(read(), write())
        finally:
            sink.transport.abort()
            self._open.discard(sink)
