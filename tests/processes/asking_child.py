"""Asks a server for its health, in a process of its own, and prints how long it took.

    python asking_child.py PORT SECONDS TOKEN

One connection a question, 20 a second. In the end it prints one line of JSON: how many were
asked, and of their times in milliseconds the median, 99 of 100, and the longest.
"""

from __future__ import annotations

import json
import socket
import sys
import time

QUESTION = (
    "GET /mesh/health HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\n"
    "Authorization: Bearer {}\r\n\r\n"
)
PAUSE_S = 0.05


def ask(port: int, question: bytes) -> float:
    """Return how long an answer took, in milliseconds.

    Raises:
        OSError: there was none.
    """
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=30.0) as link:
        link.sendall(question)
        answer = b""
        while data := link.recv(65536):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise OSError(f"answered {answer[:40]!r}")
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Do what the arguments say."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    question = QUESTION.format(sys.argv[3]).encode()
    took_ms: list[float] = []
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        took_ms.append(ask(port, question))
        time.sleep(PAUSE_S)
    took_ms.sort()
    count = len(took_ms)
    of_each = {"p50": took_ms[count // 2], "p99": took_ms[int(count * 0.99)], "max": took_ms[-1]}
    print(json.dumps({"count": count, **{name: round(ms, 1) for name, ms in of_each.items()}}))


if __name__ == "__main__":
    main()
