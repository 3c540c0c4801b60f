"""Registers: one value, and a rule for which one stays.

Values are frozen into canonical bytes when they are written and thawed at each read, so no
later change of an object that was put, or of one that was read, reaches a peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar, cast

from meshlib.clock import Stamp
from meshlib.codec import decode_value, encode_value
from meshlib.crdt.causal.context import Dot
from meshlib.crdt.causal.dotted import PlainDottedState
from meshlib.crdt.ordered import MaxRegister, MinRegister
from meshlib.crdt.registry import register
from meshlib.crdt.wire import check_stamp, wire_digest
from meshlib.errors import InvalidValueError
from meshlib.reading import read_payload, read_rows, read_stamp

__all__ = ["LWWRegister", "MVRegister", "MaxRegister", "MinRegister"]

V = TypeVar("V")

_new = object.__new__


class LWWRegister(Generic[V]):
    """A register in which the latest write stays. Frozen.

    Writes are ordered by their stamp, and by their value's bytes should two stamps be equal,
    so the order is total and every replica picks the same one.
    Source: Shapiro et al., INRIA RR-7506, 2011, specification 8; stamps of `meshlib.clock`.
    """

    __slots__ = ("_payload", "_stamp")

    def __init__(self) -> None:
        self._stamp: Stamp | None = None
        self._payload = b""

    def set(self, value: V, *, stamp: Stamp) -> Self:
        """Return the delta that writes a value. O(size of the value).

        Args:
            value: what `codec.encode_value` takes.
            stamp: the write's place in the order, later than that of the value held.

        Raises:
            InvalidTypeError: a value that cannot be kept, or no stamp.
            InvalidValueError: a value that cannot be kept, or a stamp not later than what is
                held: such a write would be lost without a word.
            LimitError: the value is over 256 KiB.
        """
        payload = encode_value(value)
        check_stamp(stamp)
        if self._stamp is not None and stamp <= self._stamp:
            raise InvalidValueError(f"{stamp} is not later than {self._stamp}")
        delta: Self = _new(self.__class__)
        delta._stamp = stamp
        delta._payload = payload
        return delta

    @property
    def value(self) -> V | None:
        """The value, thawed afresh; None when none was written. O(size of the value)."""
        return None if self._stamp is None else cast(V, decode_value(self._payload))

    @property
    def stamp(self) -> Stamp | None:
        """The stamp of the write that stays; None when none was made."""
        return self._stamp

    @property
    def payload(self) -> bytes:
        """The value's canonical bytes; empty when none was written."""
        return self._payload

    def latest_stamp(self) -> Stamp | None:
        """Return the latest stamp inside, None without one."""
        return self._stamp

    def restamp(self, change: Callable[[Stamp], Stamp]) -> Self:
        """Return this write under another stamp; see `meshlib.crdt.lattice.Restampable`."""
        if self._stamp is None:
            return self
        made: Self = _new(self.__class__)
        made._stamp = change(self._stamp)
        made._payload = self._payload
        return made

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return other if self <= other else self

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        if self._stamp is None or other._stamp is None:
            return self._stamp is None
        return (self._stamp, self._payload) <= (other._stamp, other._payload)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LWWRegister):
            return NotImplemented
        return self._stamp == other._stamp and self._payload == other._payload

    def __hash__(self) -> int:
        return hash((self._stamp, self._payload))

    def is_bottom(self) -> bool:
        """Tell whether nothing was written."""
        return self._stamp is None

    def decompose(self) -> Iterator[Self]:
        """Yield the register itself, unless nothing was written."""
        if self._stamp is not None:
            yield self

    def digest(self) -> int:
        """Hash the state to 64 bits. O(size of the value)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return `(wall_ms, logical, actor, payload)`, None when nothing was written."""
        return None if self._stamp is None else (*self._stamp, self._payload)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a register that a peer sent.

        Raises:
            DecodeError: malformed, or a value that is not canonical.
        """
        register_read = cls()
        if wire is not None:
            wall_ms, logical, actor, payload = read_rows(wire, "a register", count=4)
            register_read._stamp = read_stamp(wall_ms, logical, actor)
            register_read._payload = read_payload(payload)
        return register_read

    def __repr__(self) -> str:
        return f"LWWRegister({self.value!r}, stamp={self._stamp})"


class MVRegister(PlainDottedState, Generic[V]):
    """A register that keeps every value of concurrent writes, for the reader to resolve.

    A write takes the place of all values it has seen. A container.
    Source: Almeida, Shoker, Baquero, "Delta state replicated data types", 2018; the same as
    dotted version vector sets.
    """

    __slots__ = ()

    def set(self, value: V, *, dot: Dot) -> Self:
        """Return the delta that writes a value in place of all seen here.

        Args:
            value: what `codec.encode_value` takes; frozen here.
            dot: a new dot of the writer.

        Raises:
            InvalidTypeError: a value that cannot be kept, or no dot.
            InvalidValueError: a value that cannot be kept, or a dot that was used before.
            LimitError: the value is over 256 KiB.
        """
        return self._writing(dot, encode_value(value))

    def clear(self) -> Self:
        """Return the delta that removes every value seen here."""
        return self._superseding(self._live)

    @property
    def values(self) -> tuple[V, ...]:
        """The values of the concurrent writes, each once, by canonical bytes; thawed afresh."""
        return tuple(cast(V, decode_value(payload)) for payload in sorted({*self._live.values()}))

    @property
    def value(self) -> tuple[V, ...]:
        """The same as `values`."""
        return self.values

    @classmethod
    def _leaf_from_wire(cls, wire: Any) -> bytes:
        return read_payload(wire)

    def __repr__(self) -> str:
        return f"MVRegister{self.values}"


register("lww_register", LWWRegister)
register("mv_register", MVRegister)
