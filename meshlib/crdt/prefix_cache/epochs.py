"""What the number of an epoch says: when a tenant was removed, and whether it is shut.

Rule: how an epoch is made of a stamp, and read, must live in this file; the lattice knows only
which of two is higher.

An epoch is the millisecond of a stamp and, below it, 15 bits that order what it holds, with one
bit above those. Counted from one, two nodes that both remove a worker at the same time would share
an epoch, and what one of them placed after its own removal would outlive the other's.

The bit says that the tenant's worker was removed, or serves another model since, by a write of
that stamp or of one before it: such an epoch is *shut*. Whoever knows it, and of the worker only
what was written before, has not heard of the removal yet, and places nothing: nobody else could
tell such a text from one that was put there on purpose, and he may be gone before he has heard.
Releases that do not know the bit read a higher number, which is all they ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshlib.clock import Stamp
from meshlib.crdt.lattice import NOBODY

__all__ = ["open_epoch", "restamped_epoch", "shut_epoch", "shut_through", "stamp_of_epoch"]

_WALL_SHIFT: Final = 16
_SHUT: Final = 1 << 15
_LOW_MAX: Final = _SHUT - 1


def open_epoch(stamp: Stamp, *, above: int) -> int:
    """Return the epoch of a removal after which the tenant goes on. O(1).

    Args:
        stamp: of now.
        above: the tenant's epoch so far; what comes back is higher.
    """
    following = above + 1
    if following & _SHUT:
        following = ((following >> _WALL_SHIFT) + 1) << _WALL_SHIFT
    return max((stamp.wall_ms << _WALL_SHIFT) | min(stamp.logical, _LOW_MAX), following)


def shut_epoch(stamp: Stamp | None, *, above: int) -> int:
    """Return the epoch of a removal that names what it removes. O(1).

    Args:
        stamp: of the write by which the worker went; None: what `above` names goes on.
        above: the tenant's epoch so far; what comes back is higher.
    """
    following = above + 1
    if not following & _SHUT:
        following = (following >> _WALL_SHIFT << _WALL_SHIFT) | _SHUT
    if stamp is None:
        return following
    return max((stamp.wall_ms << _WALL_SHIFT) | _SHUT | (stamp.logical >> 1), following)


def shut_through(epoch: int) -> tuple[int, int] | None:
    """Return up to which millisecond and logical part writes are removed; None of an open one."""
    return stamp_of_epoch(epoch) if epoch & _SHUT else None


def restamped_epoch(epoch: int, change: Callable[[Stamp], Stamp]) -> int:
    """Return the epoch as its stamp is changed, by whole milliseconds. O(1).

    Args:
        epoch: of a removal; 0 stays so.
        change: see `meshlib.crdt.lattice.Restampable`.
    """
    wall_ms = epoch >> _WALL_SHIFT
    if not wall_ms:
        return epoch
    changed = change(Stamp(*stamp_of_epoch(epoch), NOBODY))
    return epoch + ((changed.wall_ms - wall_ms) << _WALL_SHIFT)


def stamp_of_epoch(epoch: int) -> tuple[int, int]:
    """Return the millisecond and the logical part at or after those an epoch was made of. O(1)."""
    low = epoch & _LOW_MAX
    return epoch >> _WALL_SHIFT, 2 * low + 1 if epoch & _SHUT else low
