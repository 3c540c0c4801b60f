"""Flags: on or off, with a rule for what wins when both happen at once.

Both start off.
Source: Almeida, Shoker, Baquero, "Delta state replicated data types", 2018 (enable-wins);
`antidote_crdt_flag_dw` for a disable-wins flag that starts off.
"""

from __future__ import annotations

from typing import Any, Self

from meshlib.crdt.causal.context import Dot
from meshlib.crdt.causal.dotted import PlainDottedState
from meshlib.crdt.registry import register
from meshlib.reading import read_bool, require

__all__ = ["DisableWinsFlag", "EnableWinsFlag"]


class EnableWinsFlag(PlainDottedState):
    """A flag that stays on when it is enabled and disabled at the same time.

    Enabling leaves a dot; disabling removes the dots it has seen.
    """

    __slots__ = ()

    def enable(self, *, dot: Dot) -> Self:
        """Return the delta that turns the flag on. O(concurrent writers).

        Raises:
            InvalidTypeError: no dot.
            InvalidValueError: the dot is malformed or was used before.
        """
        return self._writing(dot, None)

    def disable(self) -> Self:
        """Return the delta that turns the flag off, as far as it was seen on here."""
        return self._superseding(self._live)

    @property
    def value(self) -> bool:
        """Whether the flag is on."""
        return bool(self._live)

    def __bool__(self) -> bool:
        return self.value

    @classmethod
    def _leaf_from_wire(cls, wire: Any) -> None:
        require(wire is None, "the leaf of an enable-wins flag must be nil")

    def __repr__(self) -> str:
        return f"EnableWinsFlag({self.value})"


class DisableWinsFlag(PlainDottedState):
    """A flag that goes off when it is enabled and disabled at the same time.

    Either write leaves a dot in place of those it has seen; the flag is on when all that are
    left enable it, and there is one.
    """

    __slots__ = ()

    def enable(self, *, dot: Dot) -> Self:
        """Return the delta that turns the flag on. O(concurrent writers).

        Raises:
            InvalidTypeError: no dot.
            InvalidValueError: the dot is malformed or was used before.
        """
        return self._writing(dot, True)

    def disable(self, *, dot: Dot) -> Self:
        """Return the delta that turns the flag off; arguments and errors as `enable`."""
        return self._writing(dot, False)

    @property
    def value(self) -> bool:
        """Whether the flag is on."""
        return bool(self._live) and all(self._live.values())

    def __bool__(self) -> bool:
        return self.value

    @classmethod
    def _leaf_from_wire(cls, wire: Any) -> bool:
        return read_bool(wire, "the leaf of a disable-wins flag")

    def __repr__(self) -> str:
        return f"DisableWinsFlag({self.value})"


register("enable_wins_flag", EnableWinsFlag)
register("disable_wins_flag", DisableWinsFlag)
