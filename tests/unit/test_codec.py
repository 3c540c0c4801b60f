"""Canonical bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.codec import check_encoded, decode_value, encode_value
from meshlib.errors import DecodeError, LocalError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-300, 300)
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(values)
@example("x" * 31)
@example("x" * 32)
@example("x" * 255)
@example("x" * 256)
@example(b"x" * 255)
@example(b"x" * 256)
def test_what_was_encoded_passes_the_check(value: object) -> None:
    """Every value's canonical bytes are told as such."""
    check_encoded(encode_value(value))


@given(st.binary(max_size=6) | st.builds(bytes.__add__, st.binary(max_size=2), st.just(b"a" * 40)))
@example(b"")
@example(b"\xd9\x01a")
@example(b"\xd9\x20" + b"a" * 32)
@example(b"\xa1\xff")
@example(b"\xc5\x00\x01a")
@example(b"\xcc\x01")
@example(b"\x82\x02\x01\x01\x01")
def test_the_check_agrees_with_decoding_and_encoding_again(data: bytes) -> None:
    """Bytes pass exactly when their value encodes to the same bytes."""
    try:
        is_canonical = encode_value(decode_value(data)) == data
    except (DecodeError, LocalError):
        is_canonical = False
    if is_canonical:
        check_encoded(data)
    else:
        with pytest.raises(DecodeError):
            check_encoded(data)
