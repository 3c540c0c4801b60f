"""What else decides: counters in one process, and counters behind a socket.

The token bucket and the window are the least that a limit of one process costs: a dictionary, and
no other process knows of it. `limits` is the library that Python programs pick; with Redis it holds
for several processes, as this package does, and each decision is a round trip to the server. Redis
is started here, from `redis-server` on the path or the file that REDIS_SERVER names; without one,
or without the libraries, its rows are left out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

__all__ = ["rival_rows"]

KEYS: Final = 1_000
ADMITTING: Final = 10**9
ROUNDS: Final = 3

Decide = Callable[[str], bool]


def _token_bucket(limit: int) -> Decide:
    levels: dict[str, tuple[float, float]] = {}

    def decide(key: str) -> bool:
        now = time.monotonic()
        level, at = levels.get(key, (float(limit), now))
        level = min(limit, level + (now - at) * limit)
        is_allowed = level >= 1
        levels[key] = (level - is_allowed, now)
        return is_allowed

    return decide


def _window(limit: int) -> Decide:
    counts: dict[tuple[str, int], int] = {}

    def decide(key: str) -> bool:
        window = (key, int(time.time()))
        count = counts.get(window, 0)
        if count < limit:
            counts[window] = count + 1
            return True
        return False

    return decide


def _of_library(limit: int, storage_uri: str) -> Decide:
    from limits import RateLimitItemPerSecond
    from limits.storage import storage_from_string
    from limits.strategies import FixedWindowRateLimiter

    limiter = FixedWindowRateLimiter(storage_from_string(storage_uri))
    item = RateLimitItemPerSecond(limit)
    return lambda key: limiter.hit(item, key)


def _per_call_us(decide: Decide, count: int, clock: Callable[[], float]) -> float:
    keys = [f"user:{number}" for number in range(KEYS)]
    best = float("inf")
    for _ in range(ROUNDS):
        begin = clock()
        for number in range(count):
            decide(keys[number % KEYS])
        best = min(best, (clock() - begin) / count * 1e6)
    return best


def _row(
    name: str,
    make: Callable[[int], Decide],
    count: int,
    *,
    clock: Callable[[], float] = time.thread_time,
) -> dict[str, Any]:
    admitted = _per_call_us(make(ADMITTING), count, clock)
    refused = _per_call_us(make(1), count, clock)
    return {
        "who": name,
        "admitted_us": round(admitted, 2),
        "refused_us": round(refused, 2),
        "admitted_per_s": round(1e6 / admitted),
    }


@contextlib.contextmanager
def _redis() -> Iterator[tuple[int, str] | None]:
    """Start a server that keeps nothing; None where there is none."""
    command = os.environ.get("REDIS_SERVER") or shutil.which("redis-server")
    if command is None:
        yield None
        return
    about = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    directory = tempfile.mkdtemp(prefix="meshlib-bench-")
    settings = ["--port", str(port), "--save", "", "--dir", directory, "--bind", "127.0.0.1"]
    with Path(os.devnull).open("wb") as nothing:
        process = subprocess.Popen([command, *settings], stdout=nothing)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port, about.stdout.split()[2]
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def rival_rows(is_quick: bool) -> Iterator[dict[str, Any]]:
    """Make decisions on 1,000 keys by each of the others, in one thread.

    By the processor time of that thread, as this package's own; over Redis by the wall clock.
    """
    count = 5_000 if is_quick else 100_000
    yield _row("token bucket in a dictionary", _token_bucket, count)
    yield _row("window in a dictionary", _window, count)
    try:
        name = f"limits {version('limits')}"
    except PackageNotFoundError:
        return
    yield _row(f"{name}, in memory", lambda limit: _of_library(limit, "memory://"), count // 5)
    with _redis() as server:
        if server is None:
            return
        port, redis_version = server
        uri = f"redis://127.0.0.1:{port}"
        what = f"{name}, Redis {redis_version.removeprefix('v=')} on this machine"
        make = lambda limit: _of_library(limit, uri)  # noqa: E731
        yield _row(what, make, count // 20, clock=time.perf_counter)
