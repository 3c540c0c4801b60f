"""The votes that let a node decide as an owner for a while, and who may give them.

Rule: at any time the owners that may decide all stand in one view of the membership, so no key
has two of them. A node votes for its own view only, and for no other one until its last vote
for the former has certainly run out: a voter counts from when it heard, an owner from when it
asked. A node that has just started may have voted before it did, and waits as long.
Source: leases, Gray and Cheriton, SOSP 1989; the intersection of majorities, as in Paxos.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from meshlib.identity import ActorId
from meshlib.limits import MEMBERS_MAX
from meshlib.ratelimit.leases.views import View

__all__ = ["CLOCK_RATE_MARGIN", "HeldCount", "Vote", "Voter"]

CLOCK_RATE_MARGIN: Final = 1.1
"""How much longer a voter keeps a promise than an owner uses it: clocks run at their own pace."""

START_WINDOWS: Final = 2
"""Windows that an earlier start of a voter may have voted for beyond the one in which it starts:
one for a vote that reaches into the next, one for an owner's clock that is a second ahead."""


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
        started_number_max: the highest window in which an owner may have granted on the strength
            of a vote of an earlier start of the voter, of which this one knows nothing.
        counts: what it hands over of keys that are the asker's now.
    """

    actor: ActorId
    round_number: int
    view_id: int
    serial: int
    previous_view_id: int
    epoch: int
    number_max: int
    started_number_max: int = -1
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
        closed = self.number_max
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
            -1 if is_alone else self._started_number_max,
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
