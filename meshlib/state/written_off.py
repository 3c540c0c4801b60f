"""Members that an operator has written off: they are Down, and do not come back.

Rule: a name counts as written off in one incarnation only. Whoever comes back has a higher one,
is a member like any other, and must be written off anew. Nothing else follows from it: what
tombstones and rejoining wait for, they wait for as before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

from meshlib.errors import InvalidTypeError, UnknownKeyError
from meshlib.invariants import require
from meshlib.replication import WriteReceipt
from meshlib.state.documents import Documents, RecordTable

__all__ = ["WRITTEN_OFF_DOCUMENT", "WrittenOff"]

WRITTEN_OFF_DOCUMENT: Final = "members:written_off"


class _Incarnate(Protocol):
    """What is asked of a member's record."""

    @property
    def name(self) -> str:
        """The node's name."""
        ...

    @property
    def incarnation(self) -> int:
        """Which start of it, and which refutation."""
        ...


class WrittenOff:
    """Names that were written off, each with the incarnation that it had.

    Args:
        documents: where they are kept, in `members:written_off`.
    """

    __slots__ = ("_documents", "_incarnations", "revision")

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._incarnations: dict[str, int] = {}
        self.revision = 0
        """Grows with every change: for caches."""

    def __contains__(self, member: _Incarnate) -> bool:
        """Tell whether a member is written off as it is now. O(1)."""
        return member.incarnation <= self._incarnations.get(member.name, -1)

    def follow(self) -> None:
        """Read what is stored, after a change of the document. O(names)."""
        self._incarnations = self._stored()
        self.revision += 1

    def _stored(self) -> dict[str, int]:
        try:
            self._documents.replica.get(WRITTEN_OFF_DOCUMENT)
        except UnknownKeyError:
            return {}
        table = self._opened()
        names = [name for name in table.map if isinstance(name, str)]
        stored = {name: table.get(name) for name in names}
        return {name: value for name, value in stored.items() if value is not None}

    def _opened(self) -> RecordTable[int]:
        return RecordTable(self._documents, WRITTEN_OFF_DOCUMENT, what="member", thaw=_thaw)

    def add(self, member: _Incarnate, *, known: Collection[str]) -> WriteReceipt:
        """Write a member off, everywhere, and drop the names that nobody knows any more. O(n).

        Seeds stay, by their addresses: each node was told of others.

        Args:
            member: who; a seed that is not awaited any longer has the incarnation 0.
            known: the names of all members.
        """
        table = self._opened()
        for name in [name for name in table.map if name not in known and table.get(name) != 0]:
            table.remove(name)
        receipt = table.put(member.name, member.incarnation)
        self.follow()
        return receipt

    def diagnostics(self) -> Mapping[str, Any]:
        """Show who is written off: a view of live state. O(1)."""
        return {"incarnations": self._incarnations, "revision": self.revision}

    def _check(self) -> None:
        """Assert that what is stored is what is followed: BrokenInvariant. O(names)."""
        is_same = self._stored() == self._incarnations
        require(self, is_same, "what was written was not followed")


def _thaw(_key: str, value: Any, _version: int) -> int:
    if type(value) is not int:
        raise InvalidTypeError("no incarnation")
    return value
