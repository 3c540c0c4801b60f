"""In which format this node speaks to whom, and what all members speak.

Rules this file owns:
- What is sent to a peer is in a format that the peer has said it reads. What it reads is told by
  each of its frames, and by its record before any came. Who has said nothing, or whose link has
  broken since, is spoken to in the oldest format: it may have begun again as an older one.
- A newer format is spoken once every member speaks it, and no sooner. Who is Down counts until it
  is forgotten. When one that is older comes, all speak its format again from then on.
- Two that share no format refuse each other, and both tell their operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from meshlib.gossip.messages.dialects import DIALECTS, Dialect
from meshlib.gossip.messages.kinds import JoinRequest, Message
from meshlib.invariants import require
from meshlib.limits import MEMBERS_MAX
from meshlib.membership import MemberRecord, MemberTable

__all__ = ["Speech"]

Formats = tuple[int, int]
"""The oldest and the newest format that somebody speaks."""

STRANGERS_NEWEST_EVERY: Final = 4
"""Of so many requests to join that go to somebody who was never heard, one is in the newest
format: it may be one that speaks no older one."""

LOOK_S: Final = 1.0
"""How often it is seen whether one that is Down was written off meanwhile."""

REFUSED_MAX: Final = 4
REFUSED_KEPT_S: Final = 120.0
"""For how long after its last frame a peer is told of with which no format is shared."""


class Speech:
    """What this node speaks.

    Args:
        formats: the oldest and the newest format that it speaks.
    """

    __slots__ = (
        "_firsts",
        "_heard",
        "_looked_at",
        "_newest",
        "_newest_dialect",
        "_oldest",
        "_refused",
        "_seen",
        "formats",
        "has_choice",
        "spoken",
    )

    def __init__(self, formats: Formats) -> None:
        self.formats: Final = formats
        self._oldest, self._newest = formats
        self.spoken = self._oldest
        """The newest format that all members speak, as far as this node knows."""
        self.has_choice: Final = formats[0] < formats[1]
        """Whether it speaks more than one."""
        self._newest_dialect = DIALECTS[formats[1]]
        self._heard: dict[str, Formats] = {}
        self._firsts = 0
        self._seen: tuple[int, bool] | None = None
        self._looked_at = -math.inf
        self._refused: dict[Formats, tuple[str, float]] = {}

    # To whom in what

    def to(self, address: str, message: Message) -> Dialect:
        """Return the dialect in which a message is said to an address. O(1)."""
        if not self.has_choice:
            return self._newest_dialect
        heard = self._heard.get(address)
        if heard is None:
            return DIALECTS[self._newest if self._is_try(message) else self._oldest]
        return DIALECTS[max(min(self.spoken, heard[1]), heard[0])]

    def _is_try(self, message: Message) -> bool:
        if type(message) is not JoinRequest:
            return False
        self._firsts += 1
        return self._firsts % STRANGERS_NEWEST_EVERY == 0

    def hear(self, address: str, formats: Formats, *, is_current: bool) -> None:
        """Take note of what the sender of a frame speaks. O(1).

        Args:
            address: the sender's.
            formats: what the frame says.
            is_current: whether it is of the sender's start that is known. Frames of others may
                come late, and are believed only where they say that it speaks less.
        """
        known = self._heard.get(address)
        if known != formats and (known is None or is_current or formats[1] < known[1]):
            self._note(address, formats)

    def learn(self, record: MemberRecord) -> None:
        """Take note of a member of which others have told, unless it was heard itself. O(1)."""
        self._note(record.address, record.formats)

    def _note(self, address: str, formats: Formats) -> None:
        if self.has_choice:
            self._heard.pop(address, None)
            while len(self._heard) >= MEMBERS_MAX:
                del self._heard[next(iter(self._heard))]
            self._heard[address] = formats

    def doubt(self, address: str) -> None:
        """Take note that a link broke: who speaks next at its end may be an older one. O(1)."""
        self._heard.pop(address, None)

    # What all speak

    def look(
        self,
        members: MemberTable,
        *,
        is_ready: bool,
        is_written_off: Callable[[MemberRecord], bool],
        now: float,
    ) -> int | None:
        """Look what all members speak by now; O(1) while they stay the same.

        Args:
            members: all that are known, this node among them.
            is_ready: whether this node is ready: before, it may not have met those who are there.
            is_written_off: see `MemberTable.shared_format`.
            now: monotonic seconds.

        Returns:
            what was spoken before, when that has changed; None otherwise.
        """
        if not self.has_choice:
            return None
        seen = members.revision, is_ready
        if seen == self._seen and now - self._looked_at < LOOK_S:
            return None
        self._seen, self._looked_at = seen, now
        before = self.spoken
        shared = members.shared_format(is_written_off) if is_ready else self._oldest
        self.spoken = min(max(shared, self._oldest), self._newest)
        return before if before != self.spoken else None

    # Those that are refused

    def shares(self, formats: Formats) -> bool:
        """Tell whether there is a format that this node and somebody else both speak. O(1)."""
        return formats[0] <= self._newest and formats[1] >= self._oldest

    def refuse(self, who: str, formats: Formats, now: float) -> None:
        """Take note of a peer with which no format is shared. O(1)."""
        self._refused.pop(formats, None)
        self._refused[formats] = who, now
        if len(self._refused) > REFUSED_MAX:
            del self._refused[next(iter(self._refused))]

    def problems(self, now: float) -> list[str]:
        """Say who was refused of late, in one line each."""
        return [
            f"{who} speaks formats {formats[0]} to {formats[1]} and this node "
            f"{self._oldest} to {self._newest}: it is refused; take one release after the other"
            for formats, (who, at) in self._refused.items()
            if now - at < REFUSED_KEPT_S
        ]

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what is spoken, what others speak, and who was refused."""
        return {
            "formats": self.formats,
            "spoken": self.spoken,
            "heard": MappingProxyType(self._heard),
            "refused": MappingProxyType(self._refused),
        }

    def _check(self) -> None:
        """Assert the invariants of what is spoken."""
        is_known = self._oldest <= self.spoken <= self._newest
        require(self, is_known, "a format is spoken that this node does not know")
        require(self, len(self._heard) <= MEMBERS_MAX, "too many addresses were heard")
        require(self, len(self._refused) <= REFUSED_MAX, "too many refused peers are kept")
