"""`WindowCounter`: counts that expire by themselves, for rate limits.

Rule: there is no reset. A window is a number (seconds since 1970 divided by the length, say), the
newest few are kept, and time passing is the reset; so nothing can be subtracted twice and a
count cannot be negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

from meshlib.crdt.registry import register, register_family
from meshlib.crdt.wire import cannot_join, check_actor, check_amount, wire_digest
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    LimitExceeded,
)
from meshlib.identity import ActorId
from meshlib.limits import ACTORS_MAX, WINDOWS_MAX
from meshlib.reading import COUNT_MAX, read_actor, read_integer, read_rows, require

__all__ = ["WindowCounter"]

_new = object.__new__
_NOTHING = (0, 0)

_sized: dict[int, type[WindowCounter]] = {}

Slot = tuple[int, int]
"""What one actor added in one window, and what of it was given back."""


class WindowCounter:
    """Counts for each window and actor, of which the newest windows are kept. A container.

    The join takes the larger of each number, then drops what is older than the newest window
    by `windows_kept` or more: a growing floor, so it stays a lattice. Actors that are gone
    leave with their windows; nothing has to be pruned.

    A window far ahead would push everything else out. Whoever absorbs a peer's state first
    splits it with `clamp(local window + 1)` and holds what is ahead until its time.
    """

    __slots__ = ("_nets", "_windows")

    windows_kept: ClassVar[int] = 8
    """How many windows are kept, the newest included; another number by `of`."""

    def __init__(self) -> None:
        self._windows: dict[int, dict[ActorId, Slot]] = {}
        # Window -> sum over actors of what was added and not given back.
        self._nets: dict[int, int] = {}

    @classmethod
    def of(cls, windows_kept: int) -> type[WindowCounter]:
        """Return the type that keeps another number of windows; always the same class.

        Args:
            windows_kept: 1 to 64.

        Raises:
            InvalidValueError: out of range.
        """
        if type(windows_kept) is not int or not 1 <= windows_kept <= WINDOWS_MAX:
            raise InvalidValueError(f"windows_kept is 1 to {WINDOWS_MAX}, not {windows_kept!r}")
        if windows_kept == WindowCounter.windows_kept:
            return WindowCounter
        made = _sized.get(windows_kept)
        if made is None:
            contents = {"__slots__": (), "__doc__": cls.__doc__, "windows_kept": windows_kept}
            made = type(f"WindowCounter{windows_kept}", (WindowCounter,), contents)
            register(f"window_counter({windows_kept})", made)
            _sized[windows_kept] = made
        return made

    # Writes: pure, each returns its delta.

    def record(self, amount: int = 1, *, window: int, by: ActorId) -> Self:
        """Return the delta that adds to a window. O(1).

        In a window that is already dropped the delta is the bottom: it has expired.

        Args:
            amount: how much; 1 or more.
            window: the window's number; 0 or more.
            by: the writer, which must be the only one to use this id.

        Raises:
            InvalidTypeError: an amount or window that is no int, or an actor that is no bytes.
            InvalidValueError: one of them out of range.
            LimitError: the actor's total would be over 63 bits.
        """
        check_amount(amount)
        added, refunded = self._slot(window, by)
        if added + amount > COUNT_MAX:
            raise LimitError("a window's total", size=added + amount, limit=COUNT_MAX)
        return self._delta(window, by, (added + amount, refunded))

    def refund(self, amount: int = 1, *, window: int, by: ActorId) -> Self:
        """Return the delta that gives back what the same actor added; as `record`. O(1).

        Raises:
            InvalidValueError: more than the actor added and has not given back.
        """
        check_amount(amount)
        added, refunded = self._slot(window, by)
        if added == 0 and not self._is_kept(window):
            return type(self)()
        if refunded + amount > added:
            raise InvalidValueError(f"{amount} is more than the {added - refunded} added")
        return self._delta(window, by, (added, refunded + amount))

    def _slot(self, window: int, by: ActorId) -> Slot:
        if type(window) is not int:
            raise InvalidTypeError(f"a window is an int, not {type(window).__name__}")
        if not 0 <= window <= COUNT_MAX:
            raise InvalidValueError(f"a window is 0 to {COUNT_MAX:,}, not {window:,}")
        check_actor(by)
        return self._windows.get(window, {}).get(by, _NOTHING)

    def _delta(self, window: int, by: ActorId, slot: Slot) -> Self:
        delta = type(self)()
        if self._is_kept(window):
            delta._put(window, by, slot)
        return delta

    # Reads.

    @property
    def newest(self) -> int | None:
        """The newest window with a count; None without one."""
        return max(self._windows, default=None)

    def windows(self) -> list[int]:
        """Return the windows with a count, oldest first."""
        return sorted(self._windows)

    def total(self, window: int) -> int:
        """Return what was added in a window and not given back, by all. O(1)."""
        return self._nets.get(window, 0)

    def by_actor(self, window: int) -> dict[ActorId, int]:
        """Return what each actor added in a window and has not given back. O(actors)."""
        row = self._windows.get(window, {})
        return {actor: max(0, row[actor][0] - row[actor][1]) for actor in sorted(row)}

    @property
    def value(self) -> dict[int, int]:
        """Window -> total, oldest first."""
        return {window: self._nets[window] for window in sorted(self._windows)}

    def clamp(self, latest: int) -> tuple[Self, Self]:
        """Split off the windows after `latest`: returns what is not after it, and what is.

        O(size). Neither part shares anything with this state.
        """
        near, ahead = type(self)(), type(self)()
        for window, row in self._windows.items():
            part = ahead if window > latest else near
            part._windows[window] = row.copy()
            part._nets[window] = self._nets[window]
        return near, ahead

    # The lattice.

    def _is_kept(self, window: int) -> bool:
        newest = self.newest
        return newest is None or window > newest - self.windows_kept

    def _put(self, window: int, actor: ActorId, slot: Slot) -> None:
        row = self._windows.setdefault(window, {})
        held = row.get(actor, _NOTHING)
        net = max(0, slot[0] - slot[1]) - max(0, held[0] - held[1])
        row[actor] = slot
        self._nets[window] = self._nets.get(window, 0) + net

    def _truncate(self) -> None:
        for window in [w for w in self._windows if not self._is_kept(w)]:
            del self._windows[window]
            del self._nets[window]

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new. O(delta).

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
        """
        if delta.__class__ is not self.__class__:
            raise cannot_join(self, delta)
        new = type(self)()
        for window, row in delta._windows.items():
            if not self._is_kept(window):
                continue
            mine = self._windows.get(window, {})
            for actor, (added, refunded) in row.items():
                held = mine.get(actor, _NOTHING)
                if added > held[0] or refunded > held[1]:
                    new_added = added if added > held[0] else 0
                    new_refunded = refunded if refunded > held[1] else 0
                    new._put(window, actor, (new_added, new_refunded))
        for window, row in new._windows.items():
            mine = self._windows.get(window, {})
            for actor, (added, refunded) in row.items():
                held = mine.get(actor, _NOTHING)
                self._put(window, actor, (max(added, held[0]), max(refunded, held[1])))
        self._truncate()
        return new

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        joined = self.copy()
        joined.absorb(other)
        return joined

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        for window, row in self._windows.items():
            if not other._is_kept(window):
                continue
            theirs = other._windows.get(window, {})
            for actor, (added, refunded) in row.items():
                held = theirs.get(actor, _NOTHING)
                if added > held[0] or refunded > held[1]:
                    return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WindowCounter):
            return NotImplemented
        return type(self) is type(other) and self._windows == other._windows

    def is_bottom(self) -> bool:
        """Tell whether no window has a count."""
        return not self._windows

    def decompose(self) -> Iterator[Self]:
        """Yield one state for each window, actor and direction."""
        for window in sorted(self._windows):
            for actor in sorted(self._windows[window]):
                added, refunded = self._windows[window][actor]
                for slot in ((added, 0), (0, refunded)):
                    if slot != _NOTHING:
                        part = type(self)()
                        part._put(window, actor, slot)
                        yield part

    def copy(self) -> Self:
        """Return an independent copy. O(size)."""
        other: Self = _new(self.__class__)
        other._windows = {window: row.copy() for window, row in self._windows.items()}
        other._nets = self._nets.copy()
        return other

    def digest(self) -> int:
        """Hash the state to 64 bits. O(size)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return `(newest window, rows)`: an actor, and its windows' age and two numbers."""
        if not self._windows:
            return (0, ())
        newest = max(self._windows)
        rows: dict[ActorId, list[int]] = {}
        for window in sorted(self._windows, reverse=True):
            for actor, slot in self._windows[window].items():
                rows.setdefault(actor, []).extend((newest - window, *slot))
        return (newest, tuple((actor, tuple(rows[actor])) for actor in sorted(rows)))

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a counter that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: more than `ACTORS_MAX` actors.
        """
        newest_wire, rows = read_rows(wire, "a window counter", count=2)
        newest = read_integer(newest_wire, "a window")
        rows = read_rows(rows, "the rows of a window counter")
        if len(rows) > ACTORS_MAX:
            raise LimitExceeded("actors of a window counter", size=len(rows), limit=ACTORS_MAX)
        counter = cls()
        previous = b""
        for row in rows:
            actor_wire, numbers = read_rows(row, "an actor's row", count=2)
            actor = read_actor(actor_wire)
            if actor <= previous:
                raise DecodeError("the actors of a window counter must be sorted, each once")
            previous = actor
            counter._read_actor(actor, newest, read_rows(numbers, "an actor's windows"))
        require(counter.newest == newest or (counter.newest is None and newest == 0), "newest")
        return counter

    def _read_actor(self, actor: ActorId, newest: int, numbers: Sequence[Any]) -> None:
        require(len(numbers) > 0 and len(numbers) % 3 == 0, "windows must come in threes")
        previous = -1
        oldest_age = min(self.windows_kept - 1, newest)
        for age, added, refunded in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
            read_integer(age, "a window's age", minimum=previous + 1, maximum=oldest_age)
            slot = (read_integer(added, "a count"), read_integer(refunded, "a count"))
            require(slot != _NOTHING, "a window without a count")
            self._put(newest - age, actor, slot)
            previous = age

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value})"

    def _check(self) -> None:
        """Assert every invariant."""
        assert self._windows.keys() == self._nets.keys(), self
        for window, row in self._windows.items():
            assert row, self
            assert self._is_kept(window), self
            assert self._nets[window] == sum(self.by_actor(window).values()), self
            assert _NOTHING not in row.values(), self


def _make(parameters: Sequence[str]) -> type[Any]:
    if len(parameters) != 1 or not parameters[0].isdecimal() or len(parameters[0]) > 3:
        raise DecodeError("window_counter takes the number of windows")
    return WindowCounter.of(int(parameters[0]))


register("window_counter", WindowCounter)
register_family("window_counter", _make)
