"""Questions, answers, calls and votes as bytes, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest
from support.limit_lab import LimitLab

from meshlib.codec import pack
from meshlib.errors import LimitExceeded, RemoteError, VersionMismatch
from meshlib.identity import actor_id
from meshlib.ratelimit.leases.calls import (
    CALL_DOCUMENT,
    FAREWELL_DOCUMENT,
    VOTE_DOCUMENT,
    Call,
    Farewell,
    decode_vote,
    encode_vote,
)
from meshlib.ratelimit.leases.kept.messages import (
    KEEP_DOCUMENT,
    KEPT_DOCUMENT,
    RECALL_DOCUMENT,
    RECALLED_DOCUMENT,
    Ceiling,
    Keep,
    Kept,
    Recall,
    Recalled,
)
from meshlib.ratelimit.leases.questions import (
    ANSWER_DOCUMENT,
    QUESTION_DOCUMENT,
    AnswerPart,
    Answers,
    QuestionPart,
    Questions,
)
from meshlib.ratelimit.leases.votes import HeldCount, Vote
from meshlib.ratelimit.leases.wire import FORMAT_VERSION

ACTOR = actor_id("m1", 1)
COUNT = HeldCount(7, "k", 5, 3, 1)
QUESTION = QuestionPart("k", 1, 0, (1, 2), 3, 4, 2, 5, 0)
CEILING = Ceiling("k", 5, 10, 3, 1)
ANSWER = AnswerPart(1, 0, 9, 0.5, (True, False), 3, 0.25, 10, 7)

GOOD = {
    QUESTION_DOCUMENT: Questions(ACTOR, (QUESTION,)).encode(),
    ANSWER_DOCUMENT: Answers(ACTOR, actor_id("m0", 1), 3, (ANSWER,)).encode(),
    CALL_DOCUMENT: Call(ACTOR, 1, 7, 2, 9).encode(),
    VOTE_DOCUMENT: encode_vote(Vote(ACTOR, 1, 7, 1, 0, 2, -1, -1, (COUNT,))),
    FAREWELL_DOCUMENT: Farewell(ACTOR, (COUNT,)).encode(),
    KEEP_DOCUMENT: Keep(ACTOR, 3, (CEILING,)).encode(),
    KEPT_DOCUMENT: Kept(ACTOR, actor_id("m0", 1), 3, True, (CEILING,)).encode(),
    RECALL_DOCUMENT: Recall(ACTOR, "").encode(),
    RECALLED_DOCUMENT: Recalled(ACTOR, actor_id("m0", 1), "j", True, False, (CEILING,)).encode(),
}

BAD_QUESTIONS = {
    "too many items": (FORMAT_VERSION, ACTOR, 0, [], 1),
    "a cost of nothing": (FORMAT_VERSION, ACTOR, 0, [("k", 1, (0,))]),
    "a negative lease": (FORMAT_VERSION, ACTOR, 0, [("k", 1, (), 0, 0, -1)]),
    "an empty key": (FORMAT_VERSION, ACTOR, 0, [("", 1, (1,))]),
    "more answered than taken": (FORMAT_VERSION, ACTOR, 0, [("k", 1, (), 1, 2)]),
    "a bool for a number": (FORMAT_VERSION, ACTOR, 0, [("k", True, (1,))]),
    "a bool for no costs": (FORMAT_VERSION, ACTOR, 0, [("k", 1, False)]),
    "a bool for what is left out": (FORMAT_VERSION, ACTOR, 0, [("k", 1, (), False)]),
    "no number": (FORMAT_VERSION, ACTOR, 0, [("k",)]),
    "a row too long": (FORMAT_VERSION, ACTOR, 0, [("k", 1, (), 0, 0, 0, 0, 0, 0, 0)]),
    "a number that is no more": (FORMAT_VERSION, ACTOR, (1 << 63) - 1, [("k", 1, (1,))]),
    "a short actor": (FORMAT_VERSION, b"x", 0, []),
}


def limiter_of() -> Any:
    lab = LimitLab(1, count=2, faults=False)
    lab.duration_s = 0.0
    lab.run()
    return lab.machines["m0"].limiter


def test_what_is_written_is_read_again() -> None:
    """Each kind of message."""
    assert (QUESTION,) == Questions.decode(GOOD[QUESTION_DOCUMENT]).parts
    assert (ANSWER,) == Answers.decode(GOOD[ANSWER_DOCUMENT]).parts
    assert 9 == Call.decode(GOOD[CALL_DOCUMENT]).number_max
    assert (COUNT,) == decode_vote(GOOD[VOTE_DOCUMENT]).counts
    assert (COUNT,) == Farewell.decode(GOOD[FAREWELL_DOCUMENT]).counts
    assert (CEILING,) == Keep.decode(GOOD[KEEP_DOCUMENT]).ceilings
    assert (CEILING,) == Kept.decode(GOOD[KEPT_DOCUMENT]).before
    assert "" == Recall.decode(GOOD[RECALL_DOCUMENT]).after
    assert (CEILING,) == Recalled.decode(GOOD[RECALLED_DOCUMENT]).ceilings


@pytest.mark.parametrize("what", BAD_QUESTIONS)
def test_a_bad_question_is_refused(what: str) -> None:
    """With an error of the peer's kind, and nothing is owned for it."""
    limiter = limiter_of()
    before = set(limiter._owner.keys)
    payload = pack(BAD_QUESTIONS[what])
    with pytest.raises(RemoteError):
        limiter.receive_volatile(QUESTION_DOCUMENT, payload, sender="m1", now=5000.0)
    assert before == set(limiter._owner.keys)


@pytest.mark.parametrize("document", GOOD)
def test_damaged_bytes_are_refused_or_understood(document: str) -> None:
    """Every message cut short is an error of the peer's kind, and no other."""
    limiter = limiter_of()
    for size in range(len(GOOD[document])):
        with pytest.raises(RemoteError):
            limiter.receive_volatile(document, GOOD[document][:size], sender="m1", now=5000.0)


@pytest.mark.parametrize("document", GOOD)
def test_who_speaks_for_another_is_refused(document: str) -> None:
    """The actor in a message is its sender's."""
    with pytest.raises(RemoteError, match="another writer"):
        limiter_of().receive_volatile(document, GOOD[document], sender="m2", now=5000.0)


def test_another_version_is_refused_as_that() -> None:
    """Before anything else of it is read."""
    with pytest.raises(VersionMismatch):
        Questions.decode(pack((FORMAT_VERSION + 1, "new")))


def test_a_message_of_too_many_keys_is_refused() -> None:
    """A frame could hold many more, and each costs memory."""
    with pytest.raises(LimitExceeded):
        Questions.decode(pack((FORMAT_VERSION, ACTOR, 0, [()] * 257)))
