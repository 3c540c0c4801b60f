"""What a part of a node shows of its state, and what it asserts of it.

Rule this file owns: whatever keeps state shows it by `diagnostics()`, and asserts by `_check()`
what must hold of it between any two calls; what does not hold is one error, which shows the state.
A check changes nothing. Nobody calls one but the tests and the simulator, after whatever happens.
Source: sortedcontainers' `_check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from meshlib.errors import BrokenInvariant

__all__ = ["Diagnostics", "Inspectable", "check_parts", "require"]


class Inspectable(Protocol):
    """A part that can be looked into."""

    def diagnostics(self) -> Mapping[str, Any]:
        """Return what it keeps, by name. Views of live state: to be read at once."""
        ...

    def _check(self) -> None:
        """Assert its invariants: BrokenInvariant."""


def require(part: Inspectable, holds: object, what: str) -> None:
    """Refuse a state in which something does not hold. O(1) when it does.

    Args:
        part: whose state it is.
        holds: whether all is well.
        what: what is not so then, for a reader.

    Raises:
        BrokenInvariant: it does not hold.
    """
    if not holds:
        raise BrokenInvariant(type(part).__name__, what, state=dict(part.diagnostics()))


def check_parts(parts: Mapping[str, Inspectable], *, turn: int | None = None) -> None:
    """Have every part assert its invariants, or one of them in its turn.

    Args:
        parts: by name.
        turn: counts on from call to call, and picks one part; None: all of them.

    Raises:
        BrokenInvariant: one of them found itself broken.
    """
    asked = list(parts.values())
    if turn is not None:
        asked = [asked[turn % len(asked)]]
    for part in asked:
        part._check()  # noqa: SLF001 - that is what it is for


class Diagnostics(Mapping[str, Mapping[str, Any]]):
    """What several parts show of their state, each when it is asked for.

    Args:
        parts: by name.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Inspectable]) -> None:
        self._parts: Final = parts

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        """Return what one part shows."""
        return self._parts[name].diagnostics()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the parts."""
        return iter(self._parts)

    def __len__(self) -> int:
        """Return how many parts there are."""
        return len(self._parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"
