"""Length-prefixed frames and the hello, still without IO.

A connection carries frames of 4 bytes big-endian length and that many bytes. The first is the
hello: `mesh`, one byte of version, then the token in UTF-8 (none: nothing). No answer comes
back: the dialling side sends, the accepting side receives. Only when it is about to close may the
accepting side say why, in one frame: `mesh` and a word of `transport.LinkFault`.

Rule: no more than the limit of the frame that is due is ever kept of what a peer sends.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterator
from struct import Struct
from typing import Protocol

from meshlib.errors import ConfigError, DecodeError, LimitExceeded, RejectReason, VersionMismatch
from meshlib.limits import FRAME_BYTES_MAX, HELLO_BYTES_MAX

__all__ = [
    "FrameDecoder",
    "TokenCheck",
    "TokenJudge",
    "check_hello",
    "encode_frame",
    "encode_hello",
    "encode_refusal",
    "read_refusal",
]

MAGIC = b"mesh"
HELLO_VERSION = 1
REFUSAL_BYTES_MAX = 64
_LENGTH = Struct(">I")
_HELLO_HEADER_BYTES = len(MAGIC) + 1


def encode_frame(data: bytes) -> bytes:
    """Put a frame's length before it. O(size). The caller has checked the size."""
    return _LENGTH.pack(len(data)) + data


def encode_hello(token: str | None) -> bytes:
    """Make the hello, as a whole frame.

    Raises:
        ConfigError: an empty token, or one that does not fit.
    """
    if token is not None and not token:
        raise ConfigError("a peer token must not be empty")
    secret = _encoded(token or "")
    if len(secret) > HELLO_BYTES_MAX - _HELLO_HEADER_BYTES:
        raise ConfigError(f"a peer token may have {HELLO_BYTES_MAX - _HELLO_HEADER_BYTES} bytes")
    return encode_frame(MAGIC + bytes([HELLO_VERSION]) + secret)


def _encoded(token: str) -> bytes:
    try:
        return token.encode()
    except UnicodeEncodeError:
        raise ConfigError("a peer token cannot be encoded as UTF-8") from None


def encode_refusal(word: str) -> bytes:
    """Make the last frame of an accepting side, which says why it closes. O(size)."""
    return encode_frame(MAGIC + word.encode())


def read_refusal(data: bytes) -> str:
    """Return the word of a refusal; empty for anything else. O(1)."""
    data = data[: _LENGTH.size + REFUSAL_BYTES_MAX]
    frame = data[_LENGTH.size :]
    if data[: _LENGTH.size] != _LENGTH.pack(len(frame)) or not frame.startswith(MAGIC):
        return ""
    return frame[len(MAGIC) :].decode("ascii", "replace")


class TokenJudge(Protocol):
    """Tells which tokens of peers are accepted."""

    def accepts(self, token: bytes) -> bool:
        """Tell whether a token is accepted, in a time that tells nothing about it."""
        ...


class TokenCheck:
    """Compares tokens in a time that tells nothing about them; keeps only their digests.

    Args:
        tokens: those accepted, several while they are being rotated; none: only a hello
            without a token is accepted, so that a half-configured cluster fails visibly.

    Raises:
        ConfigError: one that cannot be encoded.
    """

    __slots__ = ("_digests",)

    def __init__(self, tokens: Collection[str]) -> None:
        self._digests = tuple(_digest(_encoded(token)) for token in tokens) or (_digest(b""),)

    def accepts(self, token: bytes) -> bool:
        """Tell whether a token is one of those accepted. O(tokens), always all of them."""
        given = _digest(token)
        is_accepted = False
        for expected in self._digests:
            is_accepted |= hmac.compare_digest(given, expected)
        return is_accepted


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def check_hello(frame: bytes, tokens: TokenJudge) -> None:
    """Check the first frame of an accepted connection.

    Raises:
        DecodeError: no hello of ours, or (reason `identity`) a token that is not accepted.
        VersionMismatch: a hello of another version.
    """
    if len(frame) < _HELLO_HEADER_BYTES or not frame.startswith(MAGIC):
        raise DecodeError("the connection does not begin with a hello")
    version = frame[len(MAGIC)]
    if version != HELLO_VERSION:
        raise VersionMismatch("hello", ours=HELLO_VERSION, theirs=version)
    if not tokens.accepts(frame[_HELLO_HEADER_BYTES:]):
        raise DecodeError("the peer token is not accepted", reason=RejectReason.IDENTITY)


class FrameDecoder:
    """Cuts a stream of bytes into frames. Begins with the limit of a hello.

    Once `feed` has raised, the stream cannot be read on: close the connection.
    """

    __slots__ = ("_buffer", "bytes_max")

    def __init__(self, *, bytes_max: int = HELLO_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._buffer = bytearray()

    def expect_frames(self) -> None:
        """Raise the limit from that of a hello to that of a frame."""
        self.bytes_max = FRAME_BYTES_MAX

    @property
    def pending_bytes(self) -> int:
        """Bytes kept of a frame that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that `data` completes. O(size).

        The limit may be changed between two frames; it holds from the next one on.

        Raises:
            DecodeError: a frame of no bytes.
            LimitExceeded: a frame over `bytes_max`.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length == 0:
                    raise DecodeError("a frame of no bytes")
                if length > self.bytes_max:
                    raise LimitExceeded("frame bytes", size=length, limit=self.bytes_max)
                end = start + _LENGTH.size + length
                if end > len(buffer):
                    return
                frame = bytes(memoryview(buffer)[start + _LENGTH.size : end])
                start = end
                yield frame
        finally:
            del buffer[:start]
