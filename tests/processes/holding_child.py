"""Clients that hold a server: silent ones, slow ones, and such as send bodies that are refused.

    python holding_child.py silent PORT COUNT SECONDS
    python holding_child.py slow PORT COUNT SECONDS
    python holding_child.py bodies PORT COUNT SECONDS BYTES

In the end it prints one line of JSON: how often each thing happened.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import sys
import threading
import time
import urllib.error
import urllib.request

HOST = "127.0.0.1"
HEAD = b"POST /mesh/config HTTP/1.1\r\nHost: mesh\r\nContent-Length: 100000\r\n\r\n"
PAUSE_S = 0.5
"""A client that was closed comes back after this; a slow one sends a byte as often."""


async def hold(port: int, until: float, counts: collections.Counter[str], *, is_slow: bool) -> None:
    """Keep one connection open for as long as the server lets it, and open another one then."""
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            counts["refused"] += 1
            await asyncio.sleep(PAUSE_S)
            continue
        counts["opened"] += 1
        with contextlib.suppress(OSError):
            if is_slow:
                writer.write(HEAD)
            while time.monotonic() < until and not reader.at_eof():
                if is_slow:
                    writer.write(b"x")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_S):
                        await reader.read(4096)
        writer.close()
        await asyncio.sleep(PAUSE_S)


async def hold_many(port: int, count: int, seconds: float, *, is_slow: bool) -> dict[str, int]:
    """Hold many connections at once."""
    counts: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + seconds
    await asyncio.gather(*(hold(port, until, counts, is_slow=is_slow) for _ in range(count)))
    return dict(counts)


def send_bodies(port: int, count: int, seconds: float, size: int) -> dict[str, int]:
    """Send bodies that are too large, one after the other, and read what is answered."""
    counts: collections.Counter[str] = collections.Counter()
    until, body = time.monotonic() + seconds, b"a" * size
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send() -> None:
        while time.monotonic() < until:
            request = urllib.request.Request(f"http://{HOST}:{port}/mesh/config", data=body)
            try:
                opener.open(request, timeout=60).close()
                counts["taken"] += 1
            except urllib.error.HTTPError as refusal:
                refusal.read()
                refusal.close()
                counts[f"answered {refusal.status}"] += 1
            except OSError as error:
                counts[f"lost: {error!r}"] += 1

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return dict(counts)


def main() -> None:
    """Do what the arguments say."""
    kind, port, count, seconds = sys.argv[1], *map(int, sys.argv[2:5])
    if kind == "bodies":
        counts = send_bodies(port, count, seconds, int(sys.argv[5]))
    else:
        counts = asyncio.run(hold_many(port, count, seconds, is_slow=kind == "slow"))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
