"""Workers that keep a cache of blocks, as engines do, behind HTTP; in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

BLOCK = 64
"""Characters of a block."""


class MockWorker:
    """One worker: it says of each prompt how many blocks it had, and keeps the prompt's.

    A prompt with `stream` is answered with an event at once, and with the last one when
    `may_finish` is set.
    """

    def __init__(self) -> None:
        self.blocks: set[str] = set()
        self.hits = self.asked = self.requests = 0
        self.may_finish = asyncio.Event()
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def take(self, prompt: str) -> None:
        """Prefill a prompt: count the blocks that were there, and keep all."""
        prefixes = [prompt[:end] for end in range(BLOCK, len(prompt) + 1, BLOCK)]
        self.requests += 1
        self.asked += len(prefixes)
        for prefix in prefixes:
            if prefix not in self.blocks:
                break
            self.hits += 1
        self.blocks.update(prefixes)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                body = json.loads(await _read_request(reader))
                self.take(body["prompt"])
                if body.get("stream"):
                    await self._stream(writer)
                else:
                    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                    answer = json.dumps({"port": self.port, "usage": usage}).encode()
                    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\n\r\n"
                    writer.write(head.encode() + answer)

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await self.may_finish.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    @contextlib.asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Serve inside the block."""
        self.port = port
        server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            closed: list[Any] = [writer.wait_closed() for writer in self._writers]
            await asyncio.gather(*closed, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    """Return the body of the next request, in one piece or in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" not in head:
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return await reader.readexactly(length)
    body = b""
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        body += (await reader.readexactly(size + 2))[:size]
        if not size:
            return body
