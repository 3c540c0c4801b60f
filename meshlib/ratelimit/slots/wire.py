"""Reports of holders and grants of owners, as bytes.

Rule: their bytes are written and read in this file alone; reading raises `RemoteError`s and
nothing else, before anything has changed.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from meshlib.codec import pack
from meshlib.identity import ActorId
from meshlib.limits import SLOTS_MAX
from meshlib.ratelimit.leases.wire import (
    FORMAT_VERSION,
    read_body,
    read_key,
    read_parts,
    read_seconds,
)
from meshlib.reading import read_actor, read_bool, read_integer, read_rows

__all__ = [
    "GRANT_DOCUMENT",
    "REPORT_DOCUMENT",
    "Grants",
    "Report",
    "SlotGrant",
    "SlotReport",
]

REPORT_DOCUMENT: Final = "rate_limit:slots"
GRANT_DOCUMENT: Final = "rate_limit:slots_granted"


@frozen(slots=True)
class SlotReport:
    """What a node says of one key.

    Args:
        key: the slots' key.
        number: of this report; later ones of a node have higher ones.
        limit: slots of the whole cluster, as this node was told.
        used: how many it uses.
        wanted: how many more it has requests for.
    """

    key: str
    number: int
    limit: int
    used: int
    wanted: int


@frozen(slots=True)
class SlotGrant:
    """What an owner answers.

    Args:
        key: the slots' key.
        number: of the report.
        total: how many the node may use, those that it uses included.
        used: how many are granted on all nodes.
        closed_s: seconds until the owner grants any; 0 when it does.
        is_contended: whether other nodes wait for slots.
    """

    key: str
    number: int
    total: int
    used: int
    closed_s: float
    is_contended: bool


@frozen(slots=True)
class Report:
    """What a node says of its slots to one owner."""

    actor: ActorId
    parts: tuple[SlotReport, ...]

    def encode(self) -> bytes:
        """Write the report."""
        rows = [(p.key, p.number, p.limit, p.used, p.wanted) for p in self.parts]
        data: bytes = pack((FORMAT_VERSION, self.actor, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Report:
        """Read a report.

        Raises:
            RemoteError: not what it should be.
        """
        actor, rows = read_body(data, 3)
        return cls(read_actor(actor), read_parts(rows, _read_report))


@frozen(slots=True)
class Grants:
    """What an owner answers to one node.

    Args:
        actor: the owner.
        asker: the node that it answers, in its start.
        parts: one for each key.
    """

    actor: ActorId
    asker: ActorId
    parts: tuple[SlotGrant, ...]

    def encode(self) -> bytes:
        """Write the answer."""
        rows = [(p.key, p.number, p.total, p.used, p.closed_s, p.is_contended) for p in self.parts]
        data: bytes = pack((FORMAT_VERSION, self.actor, self.asker, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Grants:
        """Read an answer.

        Raises:
            RemoteError: not what it should be.
        """
        actor, asker, rows = read_body(data, 4)
        return cls(read_actor(actor), read_actor(asker), read_parts(rows, _read_grant))


def _read_report(row: Any) -> SlotReport:
    key, number, limit, used, wanted = read_rows(row, "a report of slots", count=5)
    return SlotReport(
        read_key(key),
        read_integer(number, "a report's number"),
        read_integer(limit, "a limit of slots", minimum=1, maximum=SLOTS_MAX),
        read_integer(used, "slots in use"),
        read_integer(wanted, "slots that are wanted"),
    )


def _read_grant(row: Any) -> SlotGrant:
    key, number, total, used, closed_s, is_contended = read_rows(row, "a grant of slots", count=6)
    return SlotGrant(
        read_key(key),
        read_integer(number, "a report's number"),
        read_integer(total, "slots that may be used"),
        read_integer(used, "slots that are used"),
        read_seconds(closed_s),
        read_bool(is_contended, "whether others wait"),
    )
