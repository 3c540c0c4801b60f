"""What others have named, as it may be shown on a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(value: object) -> str:
    """Return a value as text without line ends and escape codes; `-` for None."""
    text = "-" if value is None else str(value)
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
