"""Which names of documents are the library's own.

Rule: what the library keeps in a document has a name that `check_free_name` refuses to others, so
that nobody's document of another type can take its place on one node or on all.
"""

from __future__ import annotations

from typing import Final

from meshlib.arguments import check_text
from meshlib.errors import InvalidValueError

__all__ = ["RESERVED_NAMES", "RESERVED_PREFIXES", "check_free_name"]

RESERVED_NAMES: Final = frozenset({"workers", "policies", "app"})
"""The documents of the stores."""

RESERVED_PREFIXES: Final = (
    "app:", "gossip:", "load:", "members:", "mesh:", "policies:", "rate_limit:", "tree:",
    "workers:",
)  # fmt: skip
"""What comes before the colon in the names of all others."""


def check_free_name(name: object) -> None:
    """Refuse the name of a document of one's own that the library keeps for itself. O(length).

    Raises:
        InvalidTypeError: no text.
        InvalidValueError: it is one of the library's.
    """
    check_text("a document's name", name)
    text = str(name)
    if text in RESERVED_NAMES:
        raise InvalidValueError(
            f"the document {text!r} is the library's own, and is read and written by `mesh.sync`"
        )
    if text.startswith(RESERVED_PREFIXES):
        prefix = text[: text.index(":") + 1]
        raise InvalidValueError(
            f"the document {text!r} cannot be had: names that begin with {prefix!r} are the "
            "library's own"
        )
