"""Golden bytes of the messages about rate limits: what nodes of this version say to each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshlib.identity import actor_id
from meshlib.ratelimit.leases.calls import Call, Farewell, decode_vote, encode_vote
from meshlib.ratelimit.leases.kept.messages import Ceiling, Keep, Kept, Recall, Recalled
from meshlib.ratelimit.leases.questions import AnswerPart, Answers, QuestionPart, Questions
from meshlib.ratelimit.leases.votes import HeldCount, Vote
from meshlib.ratelimit.leases.wire import FORMAT_VERSION
from meshlib.ratelimit.slots.wire import Grants, Report, SlotGrant, SlotReport

PATH = Path(__file__).with_name("rate_limit.json")
SECTION = f"rate limit {FORMAT_VERSION}"
ALICE, BOB = actor_id("alice", 7), actor_id("bob", 1 << 40)

COUNT = HeldCount((1 << 64) - 1, "user:ann", 1_750_000_000, 300, 12)
CEILING = Ceiling("user:ann", 29_166_666, 1_750_000_019, 300, 12)
MESSAGES: dict[str, Any] = {
    "questions": Questions(
        ALICE,
        (
            QuestionPart("global", 1, 0, (1, 300), 20, 0, 0, 0, 0),
            QuestionPart("user:ann", 2, 3, (), 0, 7, 5, 1_750_000_000, 4),
            QuestionPart("user:bob", 3, 0, (), 0, 1, 0, 0, 0),
        ),
    ),
    "no questions": Questions(ALICE, ()),
    "answers": Answers(
        BOB,
        ALICE,
        3,
        (
            AnswerPart(1, 2, 1_750_000_000, 0.25, (True, False), 5, 0.0, 10, 290),
            AnswerPart(2, 0, 1_750_000_000, 0.25, (), 0, 0.0, 9, 1),
            AnswerPart(4, 0, 29_166_666, 20.25, (), 0, 20.25, 0, 1),
        ),
    ),
    "call": Call(BOB, 9, (1 << 64) - 1, 3, 1_750_000_001),
    "vote": Vote(ALICE, 9, (1 << 64) - 1, 2, 5, 3, -1, -1),
    "vote that hands on": Vote(ALICE, 9, 1, 2, 5, 3, 1_750_000_000, 1_750_000_002, (COUNT,)),
    "farewell": Farewell(BOB, (COUNT,)),
    "keep": Keep(ALICE, 12, (CEILING,)),
    "kept": Kept(BOB, ALICE, 12, is_whole=True, before=(CEILING,)),
    "recall": Recall(ALICE, "user:ann"),
    "recalled": Recalled(BOB, ALICE, "user:ann", is_whole=False, is_last=True, ceilings=(CEILING,)),
    "report of slots": Report(
        ALICE, (SlotReport("parallel:ann", 7, 4, 2, 3), SlotReport("chat", 8, 1_000_000, 0, 0))
    ),
    "grants of slots": Grants(
        BOB,
        ALICE,
        (SlotGrant("parallel:ann", 7, 3, 4, 0.0, True), SlotGrant("chat", 8, 0, 0, 1.75, False)),
    ),
}
DECODE: dict[type, Callable[[bytes], Any]] = {
    Questions: Questions.decode,
    Answers: Answers.decode,
    Call: Call.decode,
    Vote: decode_vote,
    Farewell: Farewell.decode,
    Keep: Keep.decode,
    Kept: Kept.decode,
    Recall: Recall.decode,
    Recalled: Recalled.decode,
    Report: Report.decode,
    Grants: Grants.decode,
}

WRITTEN: dict[str, dict[str, str]] = json.loads(PATH.read_text()) if PATH.exists() else {}


def written(name: str) -> str:
    """Return the bytes of a message as they are written today."""
    message = MESSAGES[name]
    data = encode_vote(message) if isinstance(message, Vote) else message.encode()
    return bytes(data).hex()


@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_change_only_with_the_version(name: str) -> None:
    """A change lets FORMAT_VERSION of leases/wire.py grow, and writes a new section."""
    assert WRITTEN[SECTION][name] == written(name), f"run `python {Path(__file__).name}`"


def test_nothing_is_kept_that_is_no_longer_said() -> None:
    """A message that is gone is a change of the format too."""
    assert set(MESSAGES) == set(WRITTEN[SECTION])


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_messages_are_read_as_what_they_were(name: str) -> None:
    """Every field comes back from the bytes."""
    message = MESSAGES[name]

    assert message == DECODE[type(message)](bytes.fromhex(WRITTEN[SECTION][name]))


if __name__ == "__main__":
    WRITTEN[SECTION] = {name: written(name) for name in MESSAGES}
    PATH.write_text(json.dumps(WRITTEN, indent=1) + "\n")
