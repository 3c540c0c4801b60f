"""Messages about members: probes, joins, news, conflicts.

A message is packed as a list: its code, then its fields in the order declared here, each as its
kind says (`fields.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from attrs import field, frozen

from meshlib.gossip.messages.fields import (
    ADDRESS,
    INCARNATION,
    MEMBER,
    MEMBERS,
    NAME,
    NAME_OR_EMPTY,
    NAME_OR_NONE,
    NUMBER,
    WALL_MS,
    list_of,
    record_from_wire,
    record_to_wire,
)
from meshlib.limits import MEMBERS_MAX, NODE_NAME_BYTES_MAX
from meshlib.membership import MemberRecord
from meshlib.reading import read_rows, read_text

__all__ = [
    "ConflictNotice",
    "IndirectPingFailed",
    "IndirectPingRequest",
    "JoinRequest",
    "JoinResponse",
    "MemberNews",
    "MemberUpdates",
    "PingRequest",
    "PingResponse",
    "SeedAnswer",
    "SeedQuestion",
    "table_pages",
]


@frozen(slots=True)
class PingRequest:
    """Ask a member for a sign of life; carries the asker's own record.

    Args:
        sequence: names the probe in the answer.
        target: the name that is meant: another node at the same address does not answer.
        sender: the asker, so that one it has not met learns of it.
    """

    code: ClassVar[int] = 1
    sequence: int = field(metadata=NUMBER)
    target: str = field(metadata=NAME)
    sender: MemberRecord = field(metadata=MEMBER)


@frozen(slots=True)
class PingResponse:
    """The sign of life, or one that a helper got in our stead.

    Args:
        sequence: of the question.
        wall_ms: what the wall clock of who answers shows, in milliseconds since 1970; 0 from a
            helper, and from one whose clock cannot be read.
    """

    code: ClassVar[int] = 2
    sequence: int = field(metadata=NUMBER)
    wall_ms: int = field(default=0, metadata=WALL_MS)


@frozen(slots=True)
class IndirectPingRequest:
    """Ask a member to probe another one in our stead."""

    code: ClassVar[int] = 3
    sequence: int = field(metadata=NUMBER)
    target: str = field(metadata=NAME)


@frozen(slots=True)
class IndirectPingFailed:
    """A helper has no answer either, but is itself alive (Lifeguard's nack)."""

    code: ClassVar[int] = 4
    sequence: int = field(metadata=NUMBER)


@frozen(slots=True)
class JoinRequest:
    """Ask to be let in, with one's own record."""

    code: ClassVar[int] = 5
    sender: MemberRecord = field(metadata=MEMBER)


@frozen(slots=True)
class JoinResponse:
    """Let a node in: every member that the answerer knows, itself included, page by page.

    Each page speaks for a range of names, so that a receiver can tell which of its own members
    the answerer does not know, and no page depends on another one having arrived.

    Args:
        members: sorted by name.
        after: the page speaks of names after this one; empty on the first page.
        until: and up to this one; None on the last page: of all that follow.
    """

    code: ClassVar[int] = 6
    members: tuple[MemberRecord, ...] = field(metadata=MEMBERS)
    after: str = field(default="", metadata=NAME_OR_EMPTY)
    until: str | None = field(default=None, metadata=NAME_OR_NONE)

    def speaks_of(self, name: str) -> bool:
        """Tell whether a name is in this page's range."""
        return self.after < name and (self.until is None or name <= self.until)


RECORD_OVERHEAD_BYTES = 64
"""The most that a record needs on the wire beside its texts."""


def table_pages(members: Iterable[MemberRecord], *, bytes_max: int) -> Iterator[JoinResponse]:
    """Yield a table as pages of a bounded size, at least one. O(n).

    Args:
        members: sorted by name.
        bytes_max: of a page's records; a single one may be over it.
    """
    page: list[MemberRecord] = []
    after, size = "", 0
    for member in members:
        texts = (member.name, member.address, member.region, member.zone)
        record_size = RECORD_OVERHEAD_BYTES + sum(len(text.encode()) for text in texts)
        if page and size + record_size > bytes_max:
            yield JoinResponse(tuple(page), after, page[-1].name)
            after, page, size = page[-1].name, [], 0
        page.append(member)
        size += record_size
    yield JoinResponse(tuple(page), after)


@frozen(slots=True)
class SeedQuestion:
    """Ask whoever is reached at a seed's address to say so; beside a join request.

    Args:
        address: as it was dialled: the member may advertise another one.
    """

    code: ClassVar[int] = 19
    address: str = field(metadata=ADDRESS)


@frozen(slots=True)
class SeedAnswer:
    """Say that it is this node that is reached at a seed's address."""

    code: ClassVar[int] = 20
    address: str = field(metadata=ADDRESS)


@frozen(slots=True)
class ConflictNotice:
    """Refuse a join: a live node has that name.

    Args:
        name: the name that both claim.
        address: where the live one is reached.
        incarnation: the refused node's incarnation, so that the notice reaches no other start.
    """

    code: ClassVar[int] = 7
    name: str = field(metadata=NAME)
    address: str = field(metadata=ADDRESS)
    incarnation: int = field(metadata=INCARNATION)


@frozen(slots=True)
class MemberNews:
    """One piece of membership news: a record, and for a suspicion who suspects."""

    record: MemberRecord
    suspector: str = ""


def _news_to_wire(piece: MemberNews) -> tuple[Any, ...]:
    return (record_to_wire(piece.record), piece.suspector)


def _news_from_wire(wire: Any) -> MemberNews:
    record, suspector = read_rows(wire, "a piece of news", count=2)
    who = read_text(suspector, "who suspects", bytes_max=NODE_NAME_BYTES_MAX)
    return MemberNews(record_from_wire(record), who)


NEWS = list_of(_news_from_wire, _news_to_wire, what="news", count_max=MEMBERS_MAX)


@frozen(slots=True)
class MemberUpdates:
    """Membership news."""

    code: ClassVar[int] = 8
    news: tuple[MemberNews, ...] = field(metadata=NEWS)
