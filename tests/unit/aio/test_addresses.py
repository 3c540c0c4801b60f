"""Addresses, and the log that cannot be flooded."""

from __future__ import annotations

import logging

import pytest

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
def test_an_address_is_host_and_port(address, parts):
    """Splitting and joining are inverse to each other."""
    assert parts == split_address(address)
    assert address == join_address(*parts)


@pytest.mark.parametrize(
    "address",
    ["", "host", ":80", "host:", "host:http", "host:65536", "host:-1", "::1:80", "host:²", "[]:1"],
)
def test_what_is_no_address_is_refused(address):
    """A local error names what is wrong."""
    with pytest.raises(ConfigError):
        split_address(address)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("0.0.0.0", True), ("::", True), ("127.0.0.1", False), ("example", False)],
)
def test_hosts_that_nobody_can_dial_are_told(host, expected):
    """Only the unspecified addresses are."""
    assert expected == is_unspecified(host)


def test_a_kind_of_warning_is_logged_once_an_interval(caplog):
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


def test_kinds_of_warning_do_not_silence_each_other(caplog):
    """Each kind has its own minute."""
    log = QuietLog(logging.getLogger("meshlib.test"), clock=lambda: 0.0)

    log.tell("one", "x")
    log.tell("other", "x")

    assert 2 == len(caplog.messages)
