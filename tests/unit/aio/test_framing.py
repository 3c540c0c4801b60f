"""Frames and hellos, without IO."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.aio.framing import (
    FrameDecoder,
    TokenCheck,
    check_hello,
    encode_frame,
    encode_hello,
)
from meshlib.errors import ConfigError, DecodeError, LimitExceeded, RejectReason, VersionMismatch
from meshlib.limits import FRAME_BYTES_MAX, HELLO_BYTES_MAX


def ready_decoder() -> FrameDecoder:
    """Return a decoder that is past the hello."""
    decoder = FrameDecoder()
    decoder.expect_frames()
    return decoder


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.data())
def test_frames_come_out_however_the_stream_is_cut(
    frames: list[bytes], data: st.DataObject
) -> None:
    """Any chunking of the stream gives the same frames."""
    stream = b"".join(map(encode_frame, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = ready_decoder()

    bounds = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(bounds)]
    decoded = [frame for chunk in chunks for frame in decoder.feed(chunk)]

    assert frames == decoded
    assert 0 == decoder.pending_bytes


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    """The header alone is enough."""
    decoder = ready_decoder()

    with pytest.raises(LimitExceeded):
        list(decoder.feed((FRAME_BYTES_MAX + 1).to_bytes(4)))


def test_a_frame_of_no_bytes_is_refused() -> None:
    """Length 0 says nothing and is no frame."""
    with pytest.raises(DecodeError):
        list(ready_decoder().feed(bytes(4)))


def test_the_first_frame_is_bounded_as_a_hello() -> None:
    """A stranger cannot make us keep a megabyte."""
    with pytest.raises(LimitExceeded):
        list(FrameDecoder().feed((HELLO_BYTES_MAX + 1).to_bytes(4)))


def test_frames_before_a_bad_one_are_delivered() -> None:
    """What was whole and right before the error counts."""
    decoder = ready_decoder()
    stream = decoder.feed(encode_frame(b"good") + bytes(4))

    assert b"good" == next(stream)
    with pytest.raises(DecodeError):
        next(stream)


def hello_payload(token: str | None) -> bytes:
    """Return a hello without its length."""
    return encode_hello(token)[4:]


def test_a_hello_with_the_token_is_accepted() -> None:
    """The right token raises nothing."""
    check_hello(hello_payload("secret"), TokenCheck(["secret"]))


@pytest.mark.parametrize("token", ["old", "new"])
def test_each_of_several_tokens_is_accepted(token: str) -> None:
    """Two tokens are valid at once while they are rotated."""
    check_hello(hello_payload(token), TokenCheck(["old", "new"]))


@pytest.mark.parametrize("token", [None, "", "secre", "secret2", "Secret", "sécret"])
def test_a_hello_with_another_token_is_refused(token: str | None) -> None:
    """Nothing but the exact token passes, and the reason is the identity."""
    payload = hello_payload(None) if token in (None, "") else hello_payload(token)

    with pytest.raises(DecodeError) as refused:
        check_hello(payload, TokenCheck(["secret"]))

    assert RejectReason.IDENTITY == refused.value.reason


def test_a_refusal_does_not_tell_the_token() -> None:
    """Neither the given nor the expected token is in the error."""
    with pytest.raises(DecodeError) as refused:
        check_hello(hello_payload("given-token"), TokenCheck(["expected-token"]))

    assert "given-token" not in str(refused.value)
    assert "expected-token" not in str(refused.value)


def test_a_token_for_a_node_that_has_none_is_refused() -> None:
    """A half-configured cluster fails in both directions, not in one."""
    with pytest.raises(DecodeError):
        check_hello(hello_payload("secret"), TokenCheck([]))


def test_nodes_without_tokens_accept_each_other() -> None:
    """No token is right where none is asked for."""
    check_hello(hello_payload(None), TokenCheck([]))


def test_a_hello_of_another_version_is_refused_as_that() -> None:
    """The version is looked at before the token."""
    with pytest.raises(VersionMismatch):
        check_hello(b"mesh\x02whatever", TokenCheck(["secret"]))


@given(st.binary(max_size=64).filter(lambda data: not data.startswith(b"mesh\x01")))
def test_anything_else_is_no_hello(data: bytes) -> None:
    """Whatever does not begin as a hello does is refused with a remote error."""
    with pytest.raises((DecodeError, VersionMismatch)):
        check_hello(data, TokenCheck(["secret"]))


@pytest.mark.parametrize("token", ["", "x" * HELLO_BYTES_MAX])
def test_a_token_that_cannot_be_sent_is_a_configuration_error(token: str) -> None:
    """Empty or oversized tokens are refused before anything is started."""
    with pytest.raises(ConfigError):
        encode_hello(token)


def test_the_hello_has_its_golden_bytes() -> None:
    """The format of version 1 does not change."""
    assert bytes.fromhex("0000000a 6d657368 01 6162636465") == encode_hello("abcde")
