"""What one node keeps for the owners of keys: up to what they may grant, in long windows.

Rule: what was kept is forgotten when its window is over, and never made less before. A node that
has started anew asks the others what they keep, and says until it knows that it has forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import define
from sortedcontainers import SortedDict

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import RATE_CEILINGS_MAX, RATE_KEYS_PER_MESSAGE_MAX
from meshlib.ratelimit.leases.kept.messages import (
    KEPT_DOCUMENT,
    RECALL_DOCUMENT,
    RECALLED_DOCUMENT,
    Ceiling,
    Keep,
    Kept,
    Recall,
    Recalled,
    decode_rows,
    encode_rows,
)
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.records import RateMessage

__all__ = ["Keeper"]

KEPT_LONGER_S: Final = 60
"""How much longer than its window a ceiling is kept, in seconds: clocks differ."""

SWEPT_PER_KEY: Final = 2
"""Ceilings that are looked at, and forgotten when they are old, for each new one."""

RECALL_PAUSE_S: Final = 0.2
"""After how long a page is asked for again."""

RECALL_PATIENCE_S: Final = 3.0
"""For how long a node that has started waits for those to answer that are out of reach, in
seconds; then it counts from what those in reach remember."""


@define(slots=True)
class _Told:
    """How far one other keeper has told what it keeps."""

    actor: ActorId
    after: str = ""
    is_done: bool = False
    is_whole: bool = False


class Keeper:
    """The ceilings that one node keeps.

    Args:
        name: this node.
        actor: this node, in this start.
        view: the members as this node sees them.
    """

    def __init__(self, name: str, actor: ActorId, *, view: View) -> None:
        self.is_whole = False
        """Whether this node remembers all that it was ever given to keep."""
        self.revision = 0
        """Another number whenever something is kept that was not."""
        self._name = name
        self._actor = actor
        self._view = view
        self._ceilings: Any = SortedDict()  # of ceilings, by key
        self._swept_to = ""
        self._told: dict[str, _Told] = {}
        self._may_give_up_at = math.inf
        self._ask_at = math.inf

    def __len__(self) -> int:
        return len(self._ceilings)

    def get(self, key: str) -> Ceiling | None:
        """Return what is kept of a key; None when nothing is. O(1)."""
        kept: Ceiling | None = self._ceilings.get(key)
        return kept

    def keep(self, ceiling: Ceiling, *, second: int) -> bool:
        """Keep a ceiling beside what is kept; False: there is no room. O(log keys).

        Args:
            ceiling: what an owner says.
            second: the second now, by which old ones are known.
        """
        known = self._ceilings.get(ceiling.key)
        if known is None and not self._make_room(second):
            return False
        joined = ceiling.joined(known)
        if joined != known:
            self._ceilings[ceiling.key] = joined
            self.revision += 1
        return True

    def _make_room(self, second: int) -> bool:
        ceilings = self._ceilings
        for _ in range(SWEPT_PER_KEY):
            if not ceilings:
                return True
            place = ceilings.bisect_right(self._swept_to)
            key = ceilings.keys()[place % len(ceilings)]
            self._swept_to = key
            if _is_over(ceilings[key], second):
                del ceilings[key]
        return len(ceilings) < RATE_CEILINGS_MAX

    def receive_keep(self, name: str, message: Keep, *, second: int) -> list[RateMessage]:
        """Keep what an owner says, and tell it what was kept before. O(keys log keys)."""
        before = []
        for ceiling in message.ceilings:
            known = self._ceilings.get(ceiling.key)
            if self.keep(ceiling, second=second):
                before.append(known or Ceiling(ceiling.key, 0, 0, 0, 0))
        kept = Kept(self._actor, message.actor, message.round_number, self.is_whole, tuple(before))
        return [RateMessage((name,), KEPT_DOCUMENT, kept.encode())]

    # After a start

    def set_view(self, view: View, *, is_ready: bool, now: float) -> None:
        """Take the members as they are now."""
        self._view = view
        if self.is_whole or not is_ready:
            return
        if self._may_give_up_at == math.inf:
            self._may_give_up_at = now + RECALL_PATIENCE_S
        self._ask_at = min(self._ask_at, now)
        self._look(now)

    def next_deadline(self) -> float:
        """Return when `tick` is due, in monotonic seconds; infinity when it is not."""
        return math.inf if self.is_whole else self._ask_at

    def tick(self, now: float) -> list[RateMessage]:
        """Ask the others for what they keep, when that is due."""
        if now < self.next_deadline():
            return []
        self._look(now)
        if self.is_whole:
            return []
        self._ask_at = now + RECALL_PAUSE_S
        messages = []
        for name in self._view.names:
            told = self._told.get(name)
            if name != self._name and (told is None or not told.is_whole):
                messages.append(self._ask(name, "" if told is None else told.after))
        return messages

    def _ask(self, name: str, after: str) -> RateMessage:
        return RateMessage((name,), RECALL_DOCUMENT, Recall(self._actor, after).encode())

    def receive_recall(self, name: str, message: Recall) -> list[RateMessage]:
        """Tell a keeper that has started anew a page of what is kept here. O(log keys + page)."""
        found = list(self.after(message.after))
        page = Recalled(
            self._actor,
            message.actor,
            message.after,
            self.is_whole,
            len(found) < RATE_KEYS_PER_MESSAGE_MAX,
            tuple(found),
        )
        return [RateMessage((name,), RECALLED_DOCUMENT, page.encode())]

    def receive_recalled(
        self, name: str, page: Recalled, *, second: int, now: float
    ) -> list[RateMessage]:
        """Take a page, and ask for the next one. O(page log keys)."""
        if self.is_whole or page.asker != self._actor or name not in self._view.names:
            return []
        told = self._told.get(name)
        if told is None or told.actor != page.actor:
            told = self._told[name] = _Told(page.actor)
        if page.after != told.after:
            return []  # an old one, or of another start of the same keeper
        for ceiling in page.ceilings:
            self.keep(ceiling, second=second)
        if not page.is_last:
            told.after = page.ceilings[-1].key
            return [self._ask(name, told.after)]
        # It may have been told more meanwhile by a third: it is asked anew until it is whole.
        told.after, told.is_done, told.is_whole = "", True, page.is_whole
        self._look(now)
        return []

    def _look(self, now: float) -> None:
        """See whether enough was told.

        What a majority keeps, this node among them, is known to one of any so many others. Where
        more have forgotten than that, all that is left is what those in reach remember.
        """
        view = self._view
        others = [name for name in view.names if name != self._name]
        done = [name for name in others if name in self._told and self._told[name].is_done]
        whole = sum(self._told[name].is_whole for name in done)
        wanted = view.member_count - view.member_count // 2
        all_in_reach = len(done) == len(others)
        if (
            whole >= wanted
            or (all_in_reach and len(view.names) == view.member_count)
            or (all_in_reach and now >= self._may_give_up_at)
        ):
            self.is_whole = True
            self._told.clear()

    # Beyond the end of the process

    def after(self, key: str, *, count_max: int = RATE_KEYS_PER_MESSAGE_MAX) -> Iterator[Ceiling]:
        """Go through what is kept of the keys after one. O(log keys + count)."""
        place = self._ceilings.bisect_right(key) if key else 0
        for found in self._ceilings.islice(place, place + count_max):
            yield self._ceilings[found]

    def pages(self) -> Iterator[bytes]:
        """Go through all that is kept as pages for a file, each O(page log keys).

        What is kept meanwhile may be left out, or be in it.
        """
        key = ""
        while page := tuple(self.after(key)):
            key = page[-1].key
            yield encode_rows(page)

    def restore(self, page: bytes, *, second: int) -> None:
        """Take back a page of what an earlier start of this node kept. It still asks the others.

        Raises:
            RemoteError: it is no page. Nothing was changed.
        """
        for ceiling in decode_rows(page):
            if not _is_over(ceiling, second):
                self.keep(ceiling, second=second)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps. O(1)."""
        return {"is_whole": self.is_whole, "ceilings": self._ceilings, "told": self._told}

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(ceilings)."""
        require(self, len(self._ceilings) <= RATE_CEILINGS_MAX, "more ceilings than are kept")
        for key, ceiling in self._ceilings.items():
            require(self, key == ceiling.key, f"the ceiling of another key is kept for {key!r}")


def _is_over(ceiling: Ceiling, second: int) -> bool:
    """Tell whether a ceiling says nothing any more; a debt is kept for one window more."""
    ends_at = ceiling.until + KEPT_LONGER_S
    if ceiling.debt:
        ends_at += max(0, ceiling.until - ceiling.number)
    return ends_at <= second
