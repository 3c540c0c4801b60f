"""Clients that hold a server: silent ones, slow ones, and such as send bodies that are refused.

    python holding_child.py PORT SECONDS KIND:COUNT[:BYTES] ...

A kind is `silent`, `slow` or `bodies`. In the end it prints one line of JSON: for each kind how
often each thing happened, and the processor time that all of it took.

They are one thread that waits for many sockets and leaves the bytes of bodies to the kernel, and
give way to everybody else: what is measured beside them is the server, not how fast they are.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable

HOST = "127.0.0.1"
SLOW_HEAD = b"POST /mesh/config HTTP/1.1\r\nHost: mesh\r\nContent-Length: 100000\r\n\r\n"
BODY_HEAD = (
    b"POST /mesh/config HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
)
PAUSE_S = 0.5
"""A client that was closed comes back after this; a slow one sends a byte as often."""

BEGINNING_S = 2.0
"""The clients of a kind come within so long, one after the other."""

PIECE_BYTES = 256 * 1024
ANSWER_BYTES_MAX = 65536


class Crowd:
    """All clients, and when each of them has something to do."""

    def __init__(self, port: int, until: float) -> None:
        self.address = (HOST, port)
        self.until = until
        self.selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def later(self, at: float, do: Callable[[], None]) -> None:
        """Do something at some time."""
        heapq.heappush(self._due, (at, next(self._number), do))

    def run(self) -> None:
        """Let all of them do what they do until the time is over."""
        while (now := time.monotonic()) < self.until:
            wait_s = min(self.until, self._due[0][0] if self._due else self.until) - now
            for key, _ in self.selector.select(max(0.0, wait_s)):
                key.data()
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()


class Client:
    """One client: it connects, does its part, and comes back when it was closed."""

    def __init__(self, crowd: Crowd, counts: collections.Counter[str]) -> None:
        self.crowd, self.counts = crowd, counts
        self.link = socket.socket()

    def begin(self) -> None:
        """Connect."""
        self.link = socket.socket()
        self.link.setblocking(False)
        error = self.link.connect_ex(self.crowd.address)
        self.counts["opened"] += 1
        self.wait(selectors.EVENT_WRITE, self.connected)
        del error  # told where the connection is made, or is not

    def wait(self, events: int, then: Callable[[], None]) -> None:
        """Call something when the connection can be read, or written."""
        if self.link.fileno() in self.crowd.selector.get_map():
            self.crowd.selector.modify(self.link, events, then)
        else:
            self.crowd.selector.register(self.link, events, then)

    def connected(self) -> None:
        """Go on once the connection is made."""
        if self.link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.counts["refused"] += 1
            self.end(PAUSE_S)
            return
        self.wait(selectors.EVENT_READ, self.heard)

    def heard(self) -> None:
        """Throw away what is said, and come back after its end."""
        try:
            if self.link.recv(ANSWER_BYTES_MAX):
                return
        except OSError:
            pass  # closed by a reset: so are those that are silent
        self.end(PAUSE_S)

    def end(self, pause_s: float) -> None:
        """Close, and begin again after a while."""
        self.crowd.selector.unregister(self.link)
        self.link.close()
        self.crowd.later(time.monotonic() + pause_s, self.begin)


class SlowClient(Client):
    """Sends the head of a request, and of its body a byte now and then."""

    def connected(self) -> None:
        super().connected()
        self.send(self.link, SLOW_HEAD)

    def send(self, link: socket.socket, data: bytes) -> None:
        """Send, as long as it is the same connection."""
        if link is not self.link or link.fileno() < 0:
            return
        try:
            link.send(data)
        except OSError:
            return  # `heard` is told
        self.crowd.later(time.monotonic() + PAUSE_S, lambda: self.send(link, b"x"))


class BodyClient(Client):
    """Sends a body that is refused, reads what is answered, and sends the next one at once."""

    def __init__(
        self, crowd: Crowd, counts: collections.Counter[str], *, file: int, size: int
    ) -> None:
        super().__init__(crowd, counts)
        self._file, self._size = file, size
        self._head = BODY_HEAD % size
        self._sent = 0
        self._answer = b""

    def begin(self) -> None:
        self._sent, self._answer = 0, b""
        super().begin()
        del self.counts["opened"]

    def connected(self) -> None:
        super().connected()
        if self.link.fileno() < 0:
            return
        try:
            self.link.sendall(self._head)
        except OSError as error:
            self.lost(error)
            return
        self.wait(selectors.EVENT_WRITE, self.writable)

    def writable(self) -> None:
        """Send a piece; the answer is read once all is sent, as most clients do it."""
        try:
            size = min(PIECE_BYTES, self._size - self._sent)
            self._sent += os.sendfile(self.link.fileno(), self._file, self._sent, size)
        except BlockingIOError:
            return
        except OSError as error:
            self.lost(error)
            return
        if self._sent == self._size:
            self.wait(selectors.EVENT_READ, self.heard)

    def heard(self) -> None:
        try:
            data = self.link.recv(ANSWER_BYTES_MAX)
        except OSError as error:
            self.lost(error)
            return
        if data:
            self._answer += data
            return
        words = self._answer.split(None, 2)
        self.counts[f"answered {words[1].decode()}" if len(words) > 1 else "lost: no answer"] += 1
        self.end(0.0)

    def lost(self, error: OSError) -> None:
        """Take down that no answer could be read."""
        self.counts[f"lost: {error!r}"] += 1
        self.end(0.0)


def main() -> None:
    """Do what the arguments say."""
    os.nice(19)
    port, seconds, *kinds = sys.argv[1:]
    now = time.monotonic()
    crowd = Crowd(int(port), now + float(seconds))
    counted = []
    for words in kinds:
        kind, count, *rest = words.split(":")
        counts: collections.Counter[str] = collections.Counter()
        counted.append(counts)
        file, size = -1, int(rest[0]) if rest else 0
        if kind == "bodies":
            file = os.memfd_create("body")
            os.ftruncate(file, size)
        for index in range(int(count)):
            client: Client
            if kind == "bodies":
                client = BodyClient(crowd, counts, file=file, size=size)
            else:
                client = (SlowClient if kind == "slow" else Client)(crowd, counts)
            crowd.later(now + BEGINNING_S * index / int(count), client.begin)
    crowd.run()
    print(json.dumps({"counts": counted, "processor_s": round(time.process_time(), 2)}))


if __name__ == "__main__":
    main()
