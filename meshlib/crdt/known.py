"""What a state can leave out of its deltas because others have it: texts by their names.

A text's name is the 64-bit hash of its bytes. A delta tells of which text the beginning of one of
its own is; a state returns the bytes of a text by its name. Neither changes a state, and neither is
needed for one to be right: what is not known by its name is sent whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

__all__ = ["KnownText", "Naming", "known_texts", "text_named"]


class KnownText(NamedTuple):
    """A text of a delta whose beginning stands in another text.

    Args:
        group: texts of a group are written in order, one behind the other; groups in theirs.
        data: the bytes of the text.
        own_name: its name where it is new; 0 where it was there before.
        name: of the other text; 0 where there is none.
        size: how many bytes the two have in common.
    """

    group: str
    data: bytes
    own_name: int
    name: int
    size: int


@runtime_checkable
class Naming(Protocol):
    """A state that has texts, and its deltas."""

    def known_texts(self) -> Sequence[KnownText]:
        """Return what is known of the texts of this delta, if it is one of this process."""
        ...

    def text_named(self, name: int) -> bytes | None:
        """Return the bytes of a text by its name, None where it is not known."""
        ...


def known_texts(delta: Any) -> Sequence[KnownText]:
    """Return what is known of the texts of a delta, nothing for types without. O(1)."""
    asked = getattr(delta, "known_texts", None)
    return () if asked is None else asked()


def text_named(state: Any, name: int) -> bytes | None:
    """Return the bytes of a text that a state has, by its name; None for types without."""
    asked = getattr(state, "text_named", None)
    return None if asked is None else asked(name)
