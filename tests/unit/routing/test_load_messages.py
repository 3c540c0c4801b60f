"""What routers tell each other of their load: as bytes, and of whom they are."""

from __future__ import annotations

from typing import Any

import pytest
from support.load_routers import Routers

from meshlib.codec import pack
from meshlib.errors import DecodeError, LimitExceeded, RemoteError, VersionMismatch
from meshlib.identity import actor_id
from meshlib.limits import LOAD_ROWS_PER_MESSAGE_MAX
from meshlib.routing.load import LoadMessage, LoadRow


@pytest.fixture
def routers() -> Routers:
    return Routers("a", "b", "c")


ROW = LoadRow("w1", 1, 2, 3, 4, 5, 6)


def message(actor: Any = None, sequence: Any = 0, rows: Any = ()) -> bytes:
    data: bytes = pack((1, actor_id("b", 1) if actor is None else actor, sequence, True, rows))
    return data


GOOD_ROW = ("w1", 0, 1, 10, 0, 0, 0)

BAD = {
    "no array": pack("load"),
    "empty": pack(()),
    "a version alone": pack((1,)),
    "no actor": message(actor=b"short"),
    "a negative sequence": message(sequence=-1),
    "a row that is short": message(rows=[GOOD_ROW[:-1]]),
    "no worker": message(rows=[("", 0, 1, 1, 0, 0, 0)]),
    "a negative count": message(rows=[("w1", 0, -1, 1, 0, 0, 0)]),
    "a count that is true": message(rows=[("w1", 0, True, 1, 0, 0, 0)]),
    "a huge prefill": message(rows=[("w1", 0, 1, 1 << 60, 0, 0, 0)]),
    "negative decoded tokens": message(rows=[("w1", 0, 1, 1, 0, 0, -1)]),
    "a wait that is no integer": message(rows=[("w1", 0, 1, 1, float("nan"), 0, 0)]),
    "a worker of over 1 KiB": message(rows=[("w" * 1025, 0, 1, 1, 0, 0, 0)]),
    "no message": b"\xc1",
}


@pytest.mark.parametrize("what", BAD)
def test_a_malformed_message_is_refused(routers: Routers, what: str) -> None:
    """Whole: the good row before the bad one counts for nothing."""
    with pytest.raises(RemoteError):
        routers.loads["a"].receive(BAD[what], sender="b", now=0.0)
    assert 0 == routers.loads["a"].request_count("w1")


def test_a_good_row_before_a_bad_one_is_not_taken(routers: Routers) -> None:
    """A message is taken whole or not at all."""
    with pytest.raises(DecodeError):
        routers.loads["a"].receive(message(rows=[GOOD_ROW, GOOD_ROW[:-1]]), sender="b", now=0.0)
    assert 0 == routers.loads["a"].request_count("w1")


def test_too_many_rows_are_refused(routers: Routers) -> None:
    """A message has a bound."""
    rows = [GOOD_ROW] * (LOAD_ROWS_PER_MESSAGE_MAX + 1)
    with pytest.raises(LimitExceeded):
        routers.loads["a"].receive(message(rows=rows), sender="b", now=0.0)


def test_a_later_version_is_refused(routers: Routers) -> None:
    """It is another document's business."""
    with pytest.raises(VersionMismatch):
        routers.loads["a"].receive(pack((2, "new")), sender="b", now=0.0)


def test_nobody_speaks_for_another_router(routers: Routers) -> None:
    """The actor must be one of the sender's name."""
    with pytest.raises(DecodeError):
        routers.loads["a"].receive(message(rows=[GOOD_ROW]), sender="c", now=0.0)
    assert 0 == routers.loads["a"].request_count("w1")


def test_a_message_that_comes_late_or_twice_changes_nothing(routers: Routers) -> None:
    """Each start numbers its messages."""
    load = routers.loads["a"]
    load.receive(message(sequence=5, rows=[("w1", 0, 3, 0, 0, 0, 0)]), sender="b", now=0.0)
    load.receive(message(sequence=4, rows=[("w1", 0, 9, 0, 0, 0, 0)]), sender="b", now=0.0)
    load.receive(message(sequence=5, rows=[("w1", 0, 9, 0, 0, 0, 0)]), sender="b", now=0.0)

    assert 3 == load.request_count("w1")


def test_the_bytes_are_these() -> None:
    """Of version 1, for as long as it is spoken."""
    data = LoadMessage(actor_id("b", 1), 7, False, (ROW,)).encode()

    assert LoadMessage.decode(data).rows == [ROW]
    assert pack((1, actor_id("b", 1), 7, False, (("w1", 1, 2, 3, 4, 5, 6),))) == data


def test_many_workers_travel_in_several_messages(routers: Routers) -> None:
    """None has more rows than may be, and none is forgotten."""
    load = routers.loads["a"]
    count = LOAD_ROWS_PER_MESSAGE_MAX + 5
    for number in range(count):
        load.begin(f"w{number}", now=0.0)
    routers.run(0.02)

    assert count == sum(routers.loads["b"].counts.values())
