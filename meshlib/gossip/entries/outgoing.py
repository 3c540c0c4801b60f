"""A state on its way to a peer: which pages were made, which have come, how many may be under way.

Rules this file owns:
- A page is kept until it is known to have come; together they are no more than
  `TRANSFER_WINDOW_BYTES_MAX`, and one page.
- As much is on its way as the way holds without making what comes behind it wait.

Source: a window that follows delay, as of TCP Vegas (Brakmo and Peterson, 1995), in small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from meshlib.gossip.messages.kinds import TransferPageMessage
from meshlib.invariants import require
from meshlib.limits import TRANSFER_WINDOW_BYTES_MAX
from meshlib.replication import TransferPage, TransferPages

__all__ = ["OutgoingState", "SentPage"]

RESEND_S = 0.2
"""How long a page is not sent again, in seconds, beside what it takes on a slow link, when it was
sent once; twice as long after each time: who asks again may only have a slower one."""

SLOW_BYTES_PER_S = 50_000
"""The slowest link on which no page is sent twice that was not lost."""

QUEUED_S_MAX = 0.2
"""How much longer than the quickest a page may take before less is put on its way, in seconds: well
under what a probe may take."""

WINDOW_BYTES_MIN = 16 * 1024
"""What is put on a way of which nothing is known yet: some small pages, or one of any size."""

PAGE_COST_BYTES = 256
"""What a page counts for beside its content."""


@define(slots=True)
class SentPage:
    """A page that was made and is not known to have come.

    Args:
        message: the page.
        size: in bytes, its head aside.
        at: when it was sent last, in monotonic seconds.
        wait_s: how long after that it is not sent again, whoever asks for it.
        is_repeated: whether it was sent more than once.
    """

    message: TransferPageMessage
    size: int
    at: float
    wait_s: float
    is_repeated: bool = False


@define(slots=True)
class OutgoingState:
    """A state transfer that this node sends.

    Args:
        session: names it.
        address: where it goes.
        pages: what is sent, made as there is room for it.
        following: the page that is made next; None when all were made.
        made_count: how many were made.
        sent: those that are not known to have come, by index.
        cursor: the index that is sent next: pages behind one that was missed are sent again.
        way_bytes: of the pages that are on their way.
        window_bytes: how many may be.
        quickest_s: the shortest time after which a page was known to have come.
        shrunk_at: when the window was made smaller last because pages took longer.
        is_whole: whether the page with the vector was made.
        is_paced: whether more is sent with the next timer.
    """

    session: int
    address: str
    pages: TransferPages
    following: TransferPage | None = None
    made_count: int = 0
    sent: dict[int, SentPage] = field(factory=dict)
    cursor: int = 0
    way_bytes: int = 0
    window_bytes: int = WINDOW_BYTES_MIN
    quickest_s: float = math.inf
    shrunk_at: float = -math.inf
    given_up_at: float = 0.0
    is_whole: bool = False
    is_paced: bool = False

    @property
    def is_all_sent(self) -> bool:
        """Whether the last page was sent, and none is to be sent again as far as is known."""
        return self.is_whole and self.cursor == self.made_count

    def was_sent_before(self, at: float) -> bool:
        """Tell whether all of it was sent before a time: nobody says that the last page came."""
        return self.is_all_sent and all(page.at < at for page in self.sent.values())

    @property
    def has_room(self) -> bool:
        """Whether another page is sent now: one may be on its way whatever its size."""
        return not self.is_all_sent and (not self.way_bytes or self.way_bytes < self.window_bytes)

    def next_page(self, now: float) -> SentPage:
        """Return the page that is sent next, made if need be, and count it as on its way."""
        known = self.sent.get(self.cursor)
        if known is None:
            known = self.sent[self.cursor] = self._make(now)
        else:
            known.at = now
            known.wait_s *= 2
            known.is_repeated = True
        self.cursor += 1
        self.way_bytes += known.size
        return known

    def _make(self, now: float) -> SentPage:
        """Make the next page; the last one carries the vector."""
        page, self.following = self.following, next(self.pages, None)
        self.is_whole = self.following is None
        message = TransferPageMessage(
            self.session,
            self.made_count,
            page.document if page is not None else "",
            page.state if page is not None else b"",
            self.pages.vector if self.is_whole else None,
        )
        self.made_count += 1
        size = PAGE_COST_BYTES + len(message.state)
        return SentPage(message, size, now, RESEND_S + size / SLOW_BYTES_PER_S)

    def note_arrived(self, index: int, now: float) -> bool:
        """Count what came before a page as arrived, and learn how much the way holds.

        The more is on its way the longer a page takes, once the way is full; and what waits there
        keeps probes and entries waiting too. So the window grows while pages take about as long as
        the quickest did, and shrinks when they take longer, once for all that were on their way.

        Returns:
            whether this was not known before.
        """
        arrived = [known for known in self.sent if known < index]
        for each in arrived:
            page = self.sent.pop(each)
            if each < self.cursor:
                self.way_bytes -= page.size
            if page.is_repeated:
                continue  # nobody knows which of them came
            took_s = now - page.at
            self.quickest_s = min(self.quickest_s, took_s)
            waited_s = took_s - self.quickest_s
            if waited_s > QUEUED_S_MAX and page.at >= self.shrunk_at:
                self.shrink()
                self.shrunk_at = now  # what was sent before says nothing of it
            elif waited_s < QUEUED_S_MAX / 4:
                self.window_bytes = min(TRANSFER_WINDOW_BYTES_MAX, self.window_bytes + page.size)
        self.cursor = max(self.cursor, index)
        return bool(arrived)

    def go_back(self) -> None:
        """Send again what was not taken: of pages out of order only the first missing is kept."""
        self.cursor = min(self.sent)
        self.way_bytes = 0
        self.shrink()

    def shrink(self) -> None:
        """Let half as much be on its way, one page at least."""
        self.window_bytes = max(WINDOW_BYTES_MIN, self.window_bytes // 2)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how far it has come."""
        return {
            "session": self.session,
            "made_count": self.made_count,
            "cursor": self.cursor,
            "way_bytes": self.way_bytes,
            "window_bytes": self.window_bytes,
            "given_up_at": self.given_up_at,
        }

    def _check(self) -> None:
        """Assert that the pages on their way are those that were sent and did not come."""
        sent, cursor = self.sent, self.cursor
        is_in_order = list(sent) == list(range(self.made_count - len(sent), self.made_count))
        require(self, is_in_order, "a page is missing among those that were made")
        require(self, 0 <= cursor <= self.made_count, "a page is sent before it is made")
        way_bytes = sum(page.size for index, page in sent.items() if index < cursor)
        require(self, way_bytes == self.way_bytes, "bytes on their way are miscounted")
        held_bytes = sum(page.size for page in sent.values())
        largest = max((page.size for page in sent.values()), default=0)
        is_bounded = held_bytes <= TRANSFER_WINDOW_BYTES_MAX + largest
        require(self, is_bounded, "too much is on its way")
        for page in sent.values():
            message = page.message
            require(self, message.session == self.session, "a page is of another transfer")
            is_last = self.is_whole and message.index == self.made_count - 1
            require(self, (message.vector is not None) == is_last, "a vector is not with the end")
