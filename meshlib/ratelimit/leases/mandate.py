"""Whether a node may decide as an owner: the votes of a majority that it has, and for how long.

Rule: a mandate counts from when its votes were asked for. What was counted under it is good as
long as a majority has voted for nothing else in between; windows in which others may have
granted are closed otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import evolve, frozen

from meshlib.identity import ActorId
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.leases.votes import HeldCount, Vote

__all__ = ["Mandate"]

ROUNDS_MAX: Final = 64
"""Questions for votes that may be answered late; older ones are not counted any more."""

PASSED_VIEWS_MAX: Final = 8
"""Views that are remembered one by one; beyond it all keys count as not owned before."""

HANDOVER_WAIT_S: Final = 0.1
"""How long an owner that begins waits for the votes that it does not need, for what they hand over
and remember."""


@frozen(slots=True)
class _Round:
    asked_at: float
    view_id: int
    number_max: int


@frozen(slots=True)
class _Received:
    asked_at: float
    number_max: int
    vote: Vote


class Mandate:
    """The asking side: whether this node may decide now, and for which keys.

    A mandate is continuous while a majority answers that it voted for nothing else in between;
    what is known of keys is good as long as it is. Otherwise it is a new one under a new epoch,
    and windows in which others may have granted are closed.

    Args:
        name: this node.
        mandate_s: how long a vote counts, from when it was asked for.
    """

    def __init__(self, name: str, *, mandate_s: float) -> None:
        self.epoch = 0
        self.view: View | None = None
        """The view that the majority voted for; None before the first time."""
        self.valid_until = -math.inf
        self.number_max = -1
        """The highest window in which to grant."""
        self.prior_view_id = 0
        """The view before it: what was counted in it may be handed on to this one."""
        self.is_continuous = False
        """Whether what was known of keys before the mandate began is still good."""
        self._name = name
        self._mandate_s = mandate_s
        self._round_number = 0
        self._rounds: dict[int, _Round] = {}
        self._received: dict[str, _Received] = {}
        self._records: dict[str, tuple[ActorId, int, int]] = {}
        self._passed: list[tuple[View | None, int]] = []
        self._first_asked_at = -math.inf
        self._first_asked_view = -1

    def is_valid(self, now: float) -> bool:
        """Tell whether this node may decide."""
        return now < self.valid_until

    @property
    def asked_at(self) -> float:
        """When votes were last asked for."""
        last = self._rounds.get(self._round_number)
        return -math.inf if last is None else last.asked_at

    def ask(self, view: View, *, number_max: int, now: float) -> int:
        """Begin a round, and return its number: the others and this node are to be asked."""
        if self.asked_at < self.valid_until <= now:
            self._first_asked_at = now  # it has lapsed: who remembers it is to be heard first
        self._round_number += 1
        self._rounds[self._round_number] = _Round(now, view.view_id, number_max)
        if len(self._rounds) > ROUNDS_MAX:
            del self._rounds[min(self._rounds)]
        if self._first_asked_view != view.view_id:
            self._first_asked_view, self._first_asked_at = view.view_id, now
            self._received.clear()
        return self._round_number

    def pass_view(self, view: View) -> None:
        """Learn that this node's view is another one now: what it does not own is not known."""
        if self.view is not None:
            self._close(view, self.number_max)

    def closed_until(self, key: str) -> int:
        """Return the last window in which another node may have granted units of a key.

        For keys of which nothing was handed on. O(views passed).
        """
        closed = -1
        for view, number in self._passed:
            if number > closed and (view is None or view.owner(key) != self._name):
                closed = number
        return closed

    def forget_passed(self, number: int) -> None:
        """Drop what only closes windows that are over."""
        if self._passed:
            self._passed = [passed for passed in self._passed if passed[1] >= number]

    def _close(self, view: View | None, number: int) -> None:
        self._passed.append((view, number))
        if len(self._passed) > PASSED_VIEWS_MAX:
            self._passed = [(None, max(number for _, number in self._passed))]

    def receive(self, name: str, vote: Vote, *, view: View, number: int, now: float) -> bool:
        """Take a vote; tell whether this began a mandate, rather than renewing one.

        Args:
            name: the voter.
            vote: its vote.
            view: this node's view now.
            number: the window now.
            now: monotonic seconds.
        """
        asked = self._rounds.get(vote.round_number)
        if (
            asked is None
            or not vote.view_id == asked.view_id == view.view_id
            or name not in view.names
        ):
            return False
        known = self._received.get(name)
        if known is not None and known.asked_at > asked.asked_at and known.vote.actor == vote.actor:
            return False
        self._received[name] = _Received(asked.asked_at, asked.number_max, _joined(known, vote))
        return self.settle(view, number=number, now=now)

    def settle(self, view: View, *, number: int, now: float) -> bool:
        """Count the votes; tell whether a mandate began. O(members log members).

        This node's own vote counts as any other: where the others are a majority it is not needed,
        and it has none to give shortly after its start.
        """
        valid = {
            name: received
            for name, received in self._received.items()
            if received.vote.view_id == view.view_id and now < received.asked_at + self._mandate_s
        }
        if not view.is_majority(len(valid)):
            return False
        is_same_view = self.view is not None and self.view.view_id == view.view_id
        matching = {name for name, received in valid.items() if self._matches(name, received.vote)}
        is_continuous = self.view is not None and view.is_majority(len(matching))
        is_beginning = not (is_same_view and is_continuous)
        if (
            is_beginning
            and len(valid) < len(view.names)
            and now < self._first_asked_at + HANDOVER_WAIT_S
        ):
            return False
        if is_beginning:
            self._begin(view, valid, is_continuous=is_continuous, number=number)
        self.view = view
        newest = sorted(valid.values(), key=lambda received: received.asked_at, reverse=True)
        counted = newest[: view.member_count // 2 + 1]
        self.valid_until = min(received.asked_at for received in counted) + self._mandate_s
        self.number_max = max(self.number_max, min(received.number_max for received in counted))
        for name, received in valid.items():
            vote = received.vote
            self._records[name] = (vote.actor, vote.serial, vote.view_id)
        if len(self._records) > 2 * len(view.names):
            self._records = {name: self._records[name] for name in valid}
        return is_beginning

    def _matches(self, name: str, vote: Vote) -> bool:
        """Tell whether a voter voted for nothing but this node's views since its last vote."""
        record = self._records.get(name)
        if record is None or record[0] != vote.actor:
            return False
        _, serial, view_id = record
        return vote.serial == serial or (
            vote.serial == serial + 1 and vote.previous_view_id == view_id
        )

    def _begin(
        self, view: View, valid: Mapping[str, _Received], *, is_continuous: bool, number: int
    ) -> None:
        votes = [received.vote for received in valid.values()]
        closed = max(vote.number_max for vote in votes)
        started = [vote.started_number_max for vote in votes]
        if not view.is_majority(sum(number_max < number for number_max in started)):
            # Every majority that voted before shares one with any majority of voters who remember;
            # without such a one, what nobody remembers may be what somebody was voted for.
            closed = max(closed, *started)
        self.epoch = 1 + max(self.epoch, *(vote.epoch for vote in votes))
        if is_continuous:
            assert self.view is not None
            self.prior_view_id = self.view.view_id
            self._close(self.view, closed)
        else:
            self.prior_view_id = _common_previous(votes, view)
            self._passed = [(None, max(closed, self.number_max))]
            self.number_max = -1
        self.is_continuous = is_continuous

    def counts_to_take(self) -> list[HeldCount]:
        """Return what the votes hand over that may be gone on from."""
        return [
            count
            for received in self._received.values()
            for count in received.vote.counts
            if count.view_id == self.prior_view_id
        ]


def _joined(known: _Received | None, vote: Vote) -> Vote:
    """Return a vote with what the same voter said first, while it stayed with this view.

    What it has promised since is this owner's own doing, or that of owners of other keys.
    """
    if known is None:
        return vote
    first = known.vote
    if (first.actor, first.serial, first.view_id) != (vote.actor, vote.serial, vote.view_id):
        return vote
    counts = {count.key: count for count in (*first.counts, *vote.counts)}
    return evolve(vote, number_max=first.number_max, counts=tuple(counts.values()))


def _common_previous(votes: Sequence[Vote], view: View) -> int:
    """Return the view that a majority voted for before, directly; 0 when there is none."""
    tally: dict[int, int] = {}
    for vote in votes:
        tally[vote.previous_view_id] = tally.get(vote.previous_view_id, 0) + 1
    for view_id, count in tally.items():
        if view_id and view.is_majority(count):
            return view_id
    return 0
