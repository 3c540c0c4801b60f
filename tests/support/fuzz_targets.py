"""What is fed with bytes of anybody's: each decoder, and the HTTP layer, as one function each.

A target takes any bytes, and raises only what is a fault of this package: what a decoder refuses
by a `RemoteError` is no fault. `tools/fuzz.py` drives them by a fuzzer that watches which lines are
reached; what it found is in `tests/fuzz/corpus`, and each input there is tried by every run of the
tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.aio.framing import FrameDecoder, TokenCheck, check_hello, encode_hello
from meshlib.codec import decode_value, pack, unpack
from meshlib.crdt import registry
from meshlib.errors import DecodeError, RemoteError
from meshlib.gossip.messages.dialects import decode_message, encode_message
from meshlib.gossip.messages.frames import decode_frame
from meshlib.gossip.messages.kinds import TransferPageMessage, VolatileMessage
from meshlib.identity import actor_id
from meshlib.ratelimit.leases.calls import Call, Farewell, decode_vote
from meshlib.ratelimit.leases.questions import Answers, Questions
from meshlib.replication.page_content import PageContent
from meshlib.routing.leases import _read_renewals
from meshlib.routing.load.messages import LoadMessage, LoadRow
from meshlib.routing.requests import RequestWord, Word
from meshlib_server.app import build_app
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.http import HttpServer, HttpSettings
from meshlib_server.service import Service
from support.damage import seal

__all__ = ["CORPUS", "TARGETS", "read_corpus", "write_corpus"]

CORPUS: Final = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"


def values(data: bytes) -> None:
    """Any tree, and any value."""
    with contextlib.suppress(RemoteError):
        unpack(data)
    with contextlib.suppress(RemoteError):
        decode_value(data)


def lattices(data: bytes) -> None:
    """Any state or delta of a document: what is read is read again from what it is written as."""
    with contextlib.suppress(RemoteError):
        state = registry.decode(data)
        assert state == registry.decode(registry.encode(state))


def frames(data: bytes) -> None:
    """A frame as it comes, and one whose checksum is right."""
    for frame in (data, seal(data)):
        with contextlib.suppress(RemoteError):
            decode_frame(frame, cluster="mesh")


def messages(data: bytes) -> None:
    """One message of a frame: what is read is read again from what it is written as."""
    with contextlib.suppress(RemoteError):
        message = decode_message(data)
        assert message == decode_message(encode_message(message))


def pages(data: bytes) -> None:
    """A page of a transfer, which a file holds too."""
    with contextlib.suppress(RemoteError):
        PageContent.decode(data)


VOLATILE: Final[tuple[Callable[[bytes], object], ...]] = (
    Questions.decode, Answers.decode, Call.decode, decode_vote, Farewell.decode,
    LoadMessage.decode, RequestWord.decode, _read_renewals,
)  # fmt: skip


def volatile(data: bytes) -> None:
    """What limits, leases and loads say: the first byte chooses whose."""
    if data:
        with contextlib.suppress(RemoteError):
            VOLATILE[data[0] % len(VOLATILE)](data[1:])


def hello(data: bytes) -> None:
    """A stream of a stranger's, in two pieces; a hello is good when it holds the token."""
    for cut in (len(data), len(data) // 2):
        decoder, is_greeted = FrameDecoder(), False
        with contextlib.suppress(RemoteError):
            for piece in (data[:cut], data[cut:]):
                for frame in decoder.feed(piece):
                    if not is_greeted:
                        check_hello(frame, TokenCheck(["token"]))
                        is_greeted = True
                        decoder.expect_frames()
        assert decoder.pending_bytes <= len(data)
        assert not is_greeted or data.startswith(encode_hello("token"))


class _Wire(asyncio.Transport):
    """A connection that keeps what is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = b""
        self.is_closed = False
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: Any) -> None:
        self.answered += bytes(data)

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def write_eof(self) -> None:
        self.is_closed = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return

    def is_reading(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default


class _Server:
    """A server of one node, without a socket, on a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        self.mesh = MeshRuntime(
            MeshConfig(name="fuzzed"), transport=MemoryNetwork().transport("fuzzed:1")
        )
        await self.mesh.start()
        await self.mesh.wait_ready(10)
        secrets = Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None)
        app = build_app(Service(self.mesh, shut_down=lambda: None), secrets=secrets)
        self.server = HttpServer(app, settings=HttpSettings(), connections_max=64)
        self.server.config.load()
        self.server.lifespan = self.server.config.lifespan_class(self.server.config)

    async def answer(self, data: bytes) -> bytes:
        """Send bytes, and return what is answered until the caller hangs up."""
        protocol, wire = self.server._make_protocol(), _Wire()
        self.server.gate.enter(protocol, "127.0.0.1")
        wire.protocol = protocol
        protocol.connection_made(wire)
        protocol.data_received(data)
        for _ in range(20):
            await asyncio.sleep(0)
        wire.get_protocol().connection_lost(None)
        tasks = list(self.server.server_state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        return wire.answered

    def close(self) -> None:
        """End the node, and the loop."""
        self.server.gate.close()
        self.loop.run_until_complete(self.mesh.stop())
        self.loop.close()


_server: _Server | None = None


def http(data: bytes) -> None:
    """What a caller sends on one connection: whatever comes back is HTTP, and no defect."""
    global _server  # noqa: PLW0603 - one for all inputs: to start a node takes long
    if _server is None:
        _server = _Server()
    answered = _server.loop.run_until_complete(_server.answer(data))
    assert not answered or answered.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 500" not in answered


def close() -> None:
    """End what targets have begun."""
    global _server  # noqa: PLW0603
    if _server is not None:
        _server.close()
        _server = None


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    each.__name__: each
    for each in (values, lattices, frames, messages, pages, volatile, hello, http)
}


def read_corpus(target: str) -> list[bytes]:
    """Return the inputs that are kept for a target."""
    path = CORPUS / f"{target}.txt"
    return [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []


def write_corpus(target: str, inputs: Iterable[bytes]) -> None:
    """Keep inputs for a target, each as a line of hexadecimal digits."""
    lines = sorted({data.hex() for data in inputs if data}, key=lambda line: (len(line), line))
    (CORPUS / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))


def volatile_seeds() -> Iterator[bytes]:
    """Yield good inputs of `volatile`: one for each of its decoders at least."""
    actor = actor_id("a", 1)
    rows = [LoadRow("w", 5, 2, 1000, 40, 20_000, 300), LoadRow("v", 0, 0, 0, 0, 0)]
    golden = json.loads((CORPUS.parents[1] / "wire" / "rate_limit.json").read_text())
    payloads = [
        LoadMessage(actor, 7, True, rows).encode(),
        RequestWord(actor, Word.END, f"{actor.hex()}-1").encode(),
        pack((1, ["w", "v"])),
        *(bytes.fromhex(text) for text in texts_of(golden)),
    ]
    for payload in payloads:
        for index, decode in enumerate(VOLATILE):
            with contextlib.suppress(RemoteError):
                decode(payload)
                yield bytes([index]) + payload


def texts_of(tree: Any) -> Iterator[str]:
    """Yield every text of a tree that is hexadecimal."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from texts_of(each)
    elif isinstance(tree, str) and re.fullmatch(r"(?:[0-9a-f]{2})+", tree):
        yield tree


def parts_of(frames_seen: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield good inputs for the targets, out of good frames."""
    for data in frames_seen:
        try:
            frame = decode_frame(data, cluster="mesh")
        except DecodeError:
            continue
        yield "frames", data
        for message in frame.messages:
            yield "messages", encode_message(message)
            if isinstance(message, VolatileMessage):
                for index, decode in enumerate(VOLATILE):
                    with contextlib.suppress(RemoteError):
                        decode(message.payload)
                        yield "volatile", bytes([index]) + message.payload
            for entry in getattr(message, "entries", ()):
                yield "lattices", bytes(entry.delta)
                yield "values", bytes(entry.delta)
            if isinstance(message, TransferPageMessage):
                yield "pages", bytes(message.state)
