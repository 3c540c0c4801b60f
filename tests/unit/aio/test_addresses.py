"""Addresses, and the log that cannot be flooded."""

from __future__ import annotations

import logging
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.aio import QuietLog, is_unspecified, join_address, split_address
from meshlib.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("router-node-2:80", ("router-node-2", 80)),
        ("[::1]:7946", ("::1", 7946)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_is_host_and_port(address: str, parts: tuple[str, int]) -> None:
    """Splitting and joining are inverse to each other."""
    assert parts == split_address(address)
    assert address == join_address(*parts)


@pytest.mark.parametrize(
    "address",
    ["", "host", ":80", "host:", "host:http", "host:65536", "host:-1", "::1:80", "host:²", "[]:1"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """A local error names what is wrong."""
    with pytest.raises(ConfigError):
        split_address(address)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", True), ("0", True), ("0.0", True), ("0x0", True), ("00.0x00.0", True),
        ("::", True), ("0:0:0:0:0:0:0:0", True), ("::0.0.0.0", True), ("::%lo", True),
        ("::ffff:0.0.0.0", True), ("::FFFF:0:0", True), ("*", True), ("", True), (" 0", True),
        ("\uff10", True), ("0\u3002\uff10", True), ("0\u200b", True),
        ("127.0.0.1", False), ("0.0.0.1", False), ("::1", False), ("::ffff:127.0.0.1", False),
        ("example", False), ("0.example", False), ("n0", False), ("\u00e9", False), ("10", False),
    ],
)  # fmt: skip
def test_hosts_that_nobody_can_dial_are_told(host: str, expected: bool) -> None:
    """Only the unspecified addresses are, in every form that resolvers read."""
    assert expected == is_unspecified(host)


@given(st.text(alphabet="0x.1a", min_size=1, max_size=9))
def test_what_the_operating_system_reads_as_zero_is_told(host: str) -> None:
    """No shorthand of 0.0.0.0 is missed, and no other address is taken for it."""
    try:
        packed = socket.inet_aton(host)
    except OSError:
        return  # no literal

    assert (packed == bytes(4)) == is_unspecified(host)


def test_a_kind_of_warning_is_logged_once_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    """Repetitions are counted and told with the next line."""
    now = 0.0
    log = QuietLog(logging.getLogger("meshlib.test"), interval_s=60.0, clock=lambda: now)

    for _ in range(5):
        log.tell("bad frame", "from there")
    now = 61.0
    log.tell("bad frame", "from there")

    assert [
        "bad frame: from there",
        "bad frame: from there (4 more since the last such line)",
    ] == caplog.messages


def test_kinds_of_warning_do_not_silence_each_other(caplog: pytest.LogCaptureFixture) -> None:
    """Each kind has its own minute."""
    log = QuietLog(logging.getLogger("meshlib.test"), clock=lambda: 0.0)

    log.tell("one", "x")
    log.tell("other", "x")

    assert 2 == len(caplog.messages)
