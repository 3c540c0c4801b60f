"""Reports and answers as bytes, and what is refused of them."""

from __future__ import annotations

import pytest
from support.limiters import RateCluster

from meshlib.codec import pack
from meshlib.errors import DecodeError, LimitExceeded, VersionMismatch
from meshlib.identity import actor_id
from meshlib.ratelimit.messages import (
    ANSWER_DOCUMENT,
    REPORT_DOCUMENT,
    Answer,
    KeyAnswer,
    KeyReport,
    RateCounter,
    Report,
)

BAD_REPORTS = {
    "not msgpack": b"\xc1",
    "empty": b"",
    "another shape": pack((1, 2)),
    "no array": pack(7),
    "a short actor": pack((1, b"x", 1, [])),
    "a negative demand": pack((1, bytes(16), 1, [("k", -1.0, (0, ()))])),
    "an infinite demand": pack((1, bytes(16), 1, [("k", float("inf"), (0, ()))])),
    "a demand that is no number": pack((1, bytes(16), 1, [("k", True, (0, ()))])),
    "an empty key": pack((1, bytes(16), 1, [("", 1.0, (0, ()))])),
    "a key of bytes": pack((1, bytes(16), 1, [(b"k", 1.0, (0, ()))])),
    "counts of somebody else": pack(
        (1, bytes(16), 1, [("k", 1.0, (5, ((b"y" * 16, (0, 1, 0)),)))])
    ),
}


@pytest.mark.parametrize("what", BAD_REPORTS)
def test_a_bad_report_is_refused_and_changes_nothing(
    rate_cluster: type[RateCluster], what: str
) -> None:
    """With an error of the peer's kind."""
    limiter = rate_cluster(2).limiters["node1"]
    with pytest.raises(DecodeError):
        limiter.receive_volatile(REPORT_DOCUMENT, BAD_REPORTS[what], sender="node2", now=0.0)
    assert 0 == len(limiter.store)


def test_a_report_of_another_version_is_refused(rate_cluster: type[RateCluster]) -> None:
    """And says which one."""
    limiter = rate_cluster(2).limiters["node1"]
    with pytest.raises(VersionMismatch):
        limiter.receive_volatile(REPORT_DOCUMENT, pack((2, "new")), sender="node2", now=0.0)


def test_a_report_with_too_many_keys_is_refused(rate_cluster: type[RateCluster]) -> None:
    """A frame could hold many more, and each would cost memory."""
    limiter = rate_cluster(2).limiters["node1"]
    parts = tuple(KeyReport(f"k{number}", 1.0, RateCounter()) for number in range(257))
    payload = Report(actor_id("node2", 1), 1, parts).encode()
    with pytest.raises(LimitExceeded):
        limiter.receive_volatile(REPORT_DOCUMENT, payload, sender="node2", now=0.0)
    assert 0 == len(limiter.store)


@pytest.mark.parametrize("document", [REPORT_DOCUMENT, ANSWER_DOCUMENT])
def test_nobody_speaks_for_another_node(rate_cluster: type[RateCluster], document: str) -> None:
    """The writer must be one of the sender's name."""
    limiter = rate_cluster(3).limiters["node1"]
    payload = Report(actor_id("node3", 1), 1, (KeyReport("global", 1.0, RateCounter()),)).encode()
    if document == ANSWER_DOCUMENT:
        payload = Answer(actor_id("node3", 1), 1, (KeyAnswer("global", 1.0, 1, ()),)).encode()
    with pytest.raises(DecodeError):
        limiter.receive_volatile(document, payload, sender="node2", now=0.0)
    assert 0 == len(limiter.store)


def test_another_document_is_refused(rate_cluster: type[RateCluster]) -> None:
    """The limiter reads its own two only."""
    limiter = rate_cluster(2).limiters["node1"]
    with pytest.raises(DecodeError):
        limiter.receive_volatile("weather", b"", sender="node2", now=0.0)


def test_an_answer_about_a_key_that_is_not_tracked_is_passed_over(
    rate_cluster: type[RateCluster],
) -> None:
    """It may have been dropped meanwhile."""
    limiter = rate_cluster(2).limiters["node1"]
    payload = Answer(actor_id("node2", 1), 1, (KeyAnswer("other", 1.0, 1, ()),)).encode()

    assert [] == limiter.receive_volatile(ANSWER_DOCUMENT, payload, sender="node2", now=0.0)


def test_messages_read_back_as_they_were_written() -> None:
    """Reports and answers."""
    actor = actor_id("node2", 1)
    counter = RateCounter()
    counter.absorb(counter.record(3, window=9, by=actor))
    told = Report(actor, 5, (KeyReport("a/ü", 1.5, counter), KeyReport("b", 0.0, RateCounter())))
    answered = Answer(actor, 6, (KeyAnswer("a/ü", 2.5, 3, ((8, 1), (9, 3))),))

    assert told == Report.decode(told.encode())
    assert answered == Answer.decode(answered.encode())
