"""Tables of members that differ: found by a hash, and mended by sending the whole table.

Rule this file owns: tables are compared only once both have been still for a while, since news
that is on its way would make any two of them differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from meshlib.codec import pack
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.messages.kinds import table_pages
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.view import MembershipView
from meshlib.hashing import hash64
from meshlib.invariants import require

__all__ = ["TableComparison"]

QUIET_S = 3.0
"""Tables are compared only when they have been still for this long: news is not yet everywhere."""


class TableComparison:
    """Compares this node's table with those of others.

    Args:
        config: the settings.
        view: has the table.
        outbox: takes its pages.
    """

    __slots__ = ("_changed_at", "_config", "_hash", "_outbox", "_revision", "_view")

    def __init__(self, config: GossipConfig, *, view: MembershipView, outbox: Outbox) -> None:
        self._config = config
        self._view = view
        self._outbox = outbox
        self._changed_at = -math.inf
        self._hash = 0
        self._revision = -1

    def note_change(self, now: float) -> None:
        """Take note that there was news: the table is not still. O(1)."""
        self._changed_at = now

    def hash(self, now: float) -> int:
        """Hash the members in reach; 0 while news may still be on its way. O(n) after a change."""
        if now - self._changed_at < QUIET_S:
            return 0
        members = self._view.members
        if self._revision != members.revision:
            self._hash = self._hash_now()
            self._revision = members.revision
        return self._hash

    def _hash_now(self) -> int:
        rows = [
            (member.name, member.incarnation, member.status.value, member.version)
            for member in self._view.members.reachable()
        ]
        return hash64(pack(rows)) or 1

    def compare(self, their_hash: int, address: str, now: float) -> None:
        """Send the whole table to a peer whose quiet table differs from this quiet one."""
        own_hash = self.hash(now)
        if their_hash and own_hash and their_hash != own_hash:
            self.send(address)

    def send(self, address: str) -> None:
        """Send all that is known of the members, in as many messages as it takes. O(members)."""
        for page in table_pages(self._view.members, bytes_max=self._config.packet_bytes_max):
            self._outbox.send(address, page)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show the hash that others are told, and of which table it is."""
        return {"hash": self._hash, "revision": self._revision, "changed_at": self._changed_at}

    def _check(self) -> None:
        """Assert that the hash is that of the table."""
        if self._revision == self._view.members.revision:
            require(self, self._hash == self._hash_now(), "the hash is not that of the table")
