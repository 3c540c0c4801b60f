"""What lets a node decide as an owner: the votes of a majority, for a while.

Rule: at any time the owners that may decide all stand in one view of the membership, so no key
has two of them. A node votes for its own view only, and for no other one until its last vote
for the former has certainly run out: a voter counts from when it heard, an owner from when it
asked. A node that has just started may have voted before it did, and waits as long.
Source: leases, Gray and Cheriton, SOSP 1989; the intersection of majorities, as in Paxos.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import evolve, frozen

from meshlib.identity import ActorId
from meshlib.limits import MEMBERS_MAX
from meshlib.ratelimit.leases.views import View

__all__ = ["HeldCount", "Mandate", "Vote", "Voter"]

CLOCK_RATE_MARGIN: Final = 1.1
"""How much longer a voter keeps a promise than an owner uses it: clocks run at their own pace."""

ROUNDS_MAX: Final = 64
"""Questions for votes that may be answered late; older ones are not counted any more."""

PASSED_VIEWS_MAX: Final = 8
"""Views that are remembered one by one; beyond it all keys count as not owned before."""

START_WINDOWS: Final = 2
"""Windows that an earlier start of a voter may have voted for beyond the one in which it starts:
one for a vote that reaches into the next, one for an owner's clock that is a second ahead."""

HANDOVER_WAIT_S: Final = 0.1
"""How long a new owner waits for the votes that it does not need, for what they hand over."""


@frozen(slots=True)
class HeldCount:
    """What an owner hands to the next one of a key.

    Args:
        view_id: the view in which it decided.
        key: the rate-limit key.
        number: the window it decided in last; nothing was granted in a later one.
        used: units granted in it.
        debt: units admitted on credit that later windows have to repay.
    """

    view_id: int
    key: str
    number: int
    used: int
    debt: int


@frozen(slots=True)
class Vote:
    """One node's promise to one owner.

    Args:
        actor: the voter, in this start.
        round_number: the question that it answers.
        view_id: for which view.
        serial: how often this voter has gone from one view to another.
        previous_view_id: the view it voted for before this one; 0 when none.
        epoch: the highest that it has heard of.
        number_max: the highest window number in which anyone whom it voted for before may have
            granted the asker's keys: in another view, or as an earlier start of the asker.
        counts: what it hands over of keys that are the asker's now.
    """

    actor: ActorId
    round_number: int
    view_id: int
    serial: int
    previous_view_id: int
    epoch: int
    number_max: int
    counts: tuple[HeldCount, ...] = ()


@frozen(slots=True)
class _Promise:
    actor: ActorId
    view_id: int
    until: float


class Voter:
    """The voting side of one node.

    Args:
        actor: this node, in this start.
        mandate_s: how long a vote counts for its owner.
    """

    __slots__ = (
        "_actor",
        "_keep_s",
        "_may_vote_at",
        "_promises",
        "_started_number_max",
        "_this_view",
        "epoch",
        "number_max",
        "previous_view_id",
        "serial",
        "view_id",
    )

    def __init__(self, actor: ActorId, *, mandate_s: float) -> None:
        self._actor = actor
        self._keep_s = mandate_s * CLOCK_RATE_MARGIN
        self._may_vote_at: float | None = None
        self._promises: dict[str, _Promise] = {}
        self.view_id = self.previous_view_id = 0
        self.serial = self.epoch = 0
        self.number_max = -1
        self._started_number_max = -1
        self._this_view: dict[str, tuple[ActorId, int]] = {}

    def start(self, now: float, *, number: int) -> None:
        """Learn when this start of the node was, and in which window."""
        self.may_vote(now)
        self._started_number_max = number + START_WINDOWS

    def may_vote(self, now: float, *, is_alone: bool = False) -> bool:
        """Tell whether the promises of an earlier start have run out. Counts from the first call.

        A node that is a cluster of its own has promised nothing to anybody else.
        """
        if self._may_vote_at is None:
            self._may_vote_at = now + self._keep_s
        return is_alone or now >= self._may_vote_at

    def may_vote_in_s(self, now: float) -> float:
        """Return in how many seconds this node may vote; 0 when it may."""
        return 0.0 if self._may_vote_at is None else max(0.0, self._may_vote_at - now)

    def vote(
        self,
        name: str,
        *,
        actor: ActorId,
        round_number: int,
        view: View,
        epoch: int,
        number_max: int,
        now: float,
    ) -> Vote | None:
        """Promise a view to an owner, unless another promise forbids it. O(promises).

        Args:
            name: the owner.
            actor: the owner, in its start.
            round_number: its question's number.
            view: this node's own view; the owner's is the same.
            epoch: the owner's.
            number_max: the highest window that it will grant in on the strength of this vote.
            now: monotonic seconds.

        Returns:
            The vote, or None: ask again.
        """
        is_alone = view.names == (name,) and view.member_count == 1
        if not self.may_vote(now, is_alone=is_alone):
            return None
        promises = self._promises = {
            other: promise for other, promise in self._promises.items() if promise.until > now
        }
        for other, promise in promises.items():
            is_same_start = other == name and promise.actor == actor
            if not is_same_start and (promise.view_id != view.view_id or other == name):
                return None
        if len(promises) >= MEMBERS_MAX and name not in promises:
            return None
        if self.view_id != view.view_id:
            self.previous_view_id, self.view_id = self.view_id, view.view_id
            self.serial += 1
            self.number_max = max(self.number_max, *(n for _, n in self._this_view.values()), -1)
            self._this_view.clear()
        before = self._this_view.get(name)
        closed = max(self.number_max, -1 if is_alone else self._started_number_max)
        if before is not None and before[0] != actor:
            closed = self.number_max = max(closed, before[1])
        vote = Vote(
            self._actor,
            round_number,
            view.view_id,
            self.serial,
            self.previous_view_id,
            self.epoch,
            closed,
        )
        promises[name] = _Promise(actor, view.view_id, now + self._keep_s)
        self.epoch = max(self.epoch, epoch)
        highest = number_max
        if before is not None and before[0] == actor:
            highest = max(highest, before[1])
        self._this_view[name] = (actor, highest)
        return vote

    def release(self, name: str, *, actor: ActorId) -> None:
        """Let an owner go that will decide nothing more: its promise holds nobody up."""
        promise = self._promises.get(name)
        if promise is not None and promise.actor == actor:
            del self._promises[name]

    def note_epoch(self, epoch: int) -> None:
        """Learn of an epoch that an owner has begun."""
        self.epoch = max(self.epoch, epoch)


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

    def receive(self, name: str, vote: Vote, *, view: View, now: float) -> bool:
        """Take a vote; tell whether this began a mandate, rather than renewing one.

        Args:
            name: the voter.
            vote: its vote.
            view: this node's view now.
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
        return self.settle(view, now)

    def settle(self, view: View, now: float) -> bool:
        """Count the votes; tell whether a mandate began. O(members log members)."""
        valid = {
            name: received
            for name, received in self._received.items()
            if received.vote.view_id == view.view_id and now < received.asked_at + self._mandate_s
        }
        if self._name not in valid or not view.is_majority(len(valid)):
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
            self._begin(view, valid, is_continuous=is_continuous)
        self.view = view
        used = sorted(
            (r for name, r in valid.items() if name != self._name),
            key=lambda received: received.asked_at,
            reverse=True,
        )
        needed = view.member_count // 2  # beside this node's own
        counted = [valid[self._name], *used[:needed]]
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

    def _begin(self, view: View, valid: Mapping[str, _Received], *, is_continuous: bool) -> None:
        votes = [received.vote for received in valid.values()]
        closed = max(vote.number_max for vote in votes)
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
