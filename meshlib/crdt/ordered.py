"""Registers that keep the largest or the smallest value.

Rule: values are ordered totally. NaN is refused; numbers come before bytes, bytes before text,
text before tuples; numbers compare by value, and of two equal ones the float is larger, but for
-0.0, which is smaller than 0 and 0.0. Python's own order would leave replicas apart on -0.0,
0 and 0.0, and on NaN.
Source: IEEE 754-2019 section 5.10, totalOrder.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, Self, TypeVar, cast

from meshlib.arguments import with_article
from meshlib.codec import encode_value
from meshlib.crdt.registry import register
from meshlib.crdt.wire import wire_digest
from meshlib.errors import DecodeError, InvalidTypeError, LocalError

__all__ = ["MaxRegister", "MinRegister", "order_rank"]

V = TypeVar("V")

_new = object.__new__


def order_rank(value: Any) -> tuple[Any, ...]:
    """Return what compares as a value's place in the order. O(size).

    Raises:
        InvalidTypeError: a type that has no place, a bool and None among them.
    """
    kind = type(value)
    if kind is int:
        return (0, value, 1)
    if kind is float:
        is_negative_zero = value == 0 and math.copysign(1, value) < 0
        return (0, value, 0 if is_negative_zero else 2)
    if kind is bytes:
        return (1, value)
    if kind is str:
        return (2, value)
    if kind is tuple:
        return (3, tuple(order_rank(item) for item in value))
    raise InvalidTypeError(f"{with_article(kind.__name__)} has no place in the order of values")


class _OrderedRegister(Generic[V]):
    """A register that keeps one end of the order. Frozen."""

    __slots__ = ("_rank", "_value")

    def __init__(self) -> None:
        self._value: V | None = None
        self._rank: tuple[Any, ...] | None = None

    @staticmethod
    @abstractmethod
    def _stays(rank: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        """Tell whether the first of two ranks stays."""

    def set(self, value: V) -> Self:
        """Return the delta that offers a value. O(size of the value).

        Args:
            value: a 64-bit integer, a float that is not NaN, bytes, text, or a tuple of these.

        Raises:
            InvalidTypeError: another type.
            InvalidValueError: NaN, a larger integer, or text that cannot be encoded.
            LimitError: the value is over 256 KiB.
        """
        encode_value(value)
        delta: Self = _new(self.__class__)
        delta._rank = order_rank(value)
        delta._value = value
        return delta

    @property
    def value(self) -> V | None:
        """The value that stays; None when none was offered."""
        return self._value

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return other if self <= other else self

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        if self._rank is None or other._rank is None:
            return self._rank is None
        return self._rank == other._rank or self._stays(other._rank, self._rank)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._rank == other._rank

    def __hash__(self) -> int:
        return hash(self._rank)

    def is_bottom(self) -> bool:
        """Tell whether no value was offered."""
        return self._rank is None

    def decompose(self) -> Iterator[Self]:
        """Yield the register itself, unless no value was offered."""
        if self._rank is not None:
            yield self

    def digest(self) -> int:
        """Hash the state to 64 bits. O(size of the value)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return the value, None when none was offered."""
        return self._value

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a register that a peer sent.

        Raises:
            DecodeError: a value that has no place in the order.
        """
        if wire is None:
            return cls()
        try:
            return cls().set(cast(V, wire))
        except LocalError as error:
            raise DecodeError(str(error)) from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._value!r})"


class MaxRegister(_OrderedRegister[V]):
    """A register that keeps the largest value offered. Frozen."""

    __slots__ = ()

    @staticmethod
    def _stays(rank: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        return rank > other


class MinRegister(_OrderedRegister[V]):
    """A register that keeps the smallest value offered. Frozen."""

    __slots__ = ()

    @staticmethod
    def _stays(rank: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        return rank < other


register("max_register", MaxRegister)
register("min_register", MinRegister)
