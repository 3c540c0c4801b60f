"""A state on its way to a peer: which pages were made, which have come, how many may be under way.

Rules this file owns:
- A page is kept until it is known to have come; together they are no more than
  `TRANSFER_WINDOW_BYTES_MAX`, and one page.
- Pages are made no larger than half of what the way holds (`ways.py`), so that on a slow link
  probes find their place between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from meshlib.gossip.entries.ways import FIRST_BYTES, RESEND_S, Way
from meshlib.gossip.messages.kinds import TransferPageMessage
from meshlib.invariants import require
from meshlib.limits import TRANSFER_WINDOW_BYTES_MAX
from meshlib.replication import TransferPage, TransferPages

__all__ = ["PAGE_COST_BYTES", "OutgoingState", "SentPage"]

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
        ahead_bytes: what the way had to carry until it had come, itself included.
        is_repeated: whether it was sent more than once.
    """

    message: TransferPageMessage
    size: int
    at: float
    wait_s: float = RESEND_S
    ahead_bytes: int = 0
    is_repeated: bool = False


@define(slots=True)
class OutgoingState:
    """A state transfer that this node sends.

    Args:
        session: names it.
        address: where it goes.
        pages: what is sent, made as there is room for it.
        way: how much may be on its way there.
        following: the page that is made next; None when all were made.
        made_count: how many were made.
        sent: those that are not known to have come, by index.
        cursor: the index that is sent next: pages behind one that was missed are sent again.
        way_bytes: of the pages that are on their way.
        is_whole: whether the page with the vector was made.
        is_paced: whether more is sent with the next timer.
    """

    session: int
    address: str
    pages: TransferPages
    way: Way = field(factory=Way)
    following: TransferPage | None = None
    made_count: int = 0
    sent: dict[int, SentPage] = field(factory=dict)
    cursor: int = 0
    way_bytes: int = 0
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
        if self.is_all_sent:
            return False
        return not self.way_bytes or self.way_bytes + self.next_bytes <= self.way.window_bytes

    @property
    def next_bytes(self) -> int:
        """How many bytes the page that is sent next counts for."""
        known = self.sent.get(self.cursor)
        if known is not None:
            return known.size
        return PAGE_COST_BYTES + (0 if self.following is None else len(self.following.state))

    def begin(self) -> None:
        """Have the first page made."""
        self.set_page_bytes()
        self.following = next(self.pages, None)

    def next_page(self, now: float) -> SentPage:
        """Return the page that is sent next, made if need be, and count it as on its way."""
        known = self.sent.get(self.cursor)
        if known is None:
            known = self.sent[self.cursor] = self._make(now)
        else:
            known.at = now
            known.is_repeated = True
        self.cursor += 1
        self.way_bytes += known.size
        # Of those that are sent together each comes by itself: a small one before a large one.
        known.ahead_bytes = self.way_bytes
        return known

    def note_step(self, pages: Sequence[SentPage]) -> None:
        """Take note that these pages were sent together: none is missing before the last came."""
        wait_s = self.way.wait_s(self.way_bytes)
        for page in pages:
            page.wait_s = max(2 * page.wait_s, wait_s) if page.is_repeated else wait_s

    def _make(self, now: float) -> SentPage:
        """Make the next page; the last one carries the vector."""
        self.set_page_bytes()
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
        return SentPage(message, PAGE_COST_BYTES + len(message.state), now)

    def set_page_bytes(self) -> None:
        """Have pages made of the size that is right for the way."""
        self.pages.set_page_bytes(max(FIRST_BYTES, self.way.window_bytes // 2))

    def note_arrived(self, index: int, now: float) -> bool:
        """Count what came before a page as arrived, and learn how much the way holds.

        Returns:
            whether this was not known before.
        """
        arrived = [known for known in self.sent if known < index]
        best: tuple[int, float] | None = None
        for each in arrived:
            page = self.sent.pop(each)
            if each < self.cursor:
                self.way_bytes -= page.size
            if page.is_repeated:
                continue  # nobody knows which of them came
            took_s = now - page.at
            if best is None or page.ahead_bytes * best[1] > best[0] * took_s:
                best = page.ahead_bytes, took_s
        if best is not None:
            self.way.note_come(*best)
        self.cursor = max(self.cursor, index)
        return bool(arrived)

    def go_back(self) -> None:
        """Send again what was not taken: of pages out of order only the first missing is kept."""
        self.cursor = min(self.sent)
        self.way_bytes = 0
        self.way.note_lost()

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how far it has come."""
        return {
            "session": self.session,
            "made_count": self.made_count,
            "cursor": self.cursor,
            "way_bytes": self.way_bytes,
            "window_bytes": self.way.window_bytes,
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
