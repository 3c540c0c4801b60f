"""The subjects of a cluster. A node takes frames on one that is made of its address.

Rule: two addresses never share a subject, and no address can name one outside its cluster's.
"""

from __future__ import annotations

import re
from typing import Final

from meshlib.arguments import check_text
from meshlib.errors import ConfigError

__all__ = ["checked_root", "inbox_of", "is_reply_within"]

_ROOT: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ROOT_BYTES_MAX: Final = 128
_KEPT: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_REPLY: Final = re.compile(r"\.in\.[A-Za-z0-9_-]+\.[0-9a-z]+")


def checked_root(subject: str) -> str:
    """Return the subject below which a cluster's are.

    Raises:
        ConfigError: it holds anything but letters, digits, `-`, `_` and single dots, or is longer
            than 128 bytes.
        InvalidTypeError: it is no text.
    """
    check_text("subject", subject)
    if len(subject) > _ROOT_BYTES_MAX or not _ROOT.fullmatch(subject):
        raise ConfigError(
            f"subject must be names joined by dots, such as meshlib.production, and not {subject!r}"
        )
    return subject


def inbox_of(root: str, address: str) -> str:
    """Return the subject on which the node of an address takes frames. O(size).

    What may not stand in a subject, and `_` itself, becomes `_` and two hexadecimal digits.
    """
    name = "".join(chr(b) if b in _KEPT else f"_{b:02x}" for b in address.encode())
    return f"{root}.in.{name}"


def is_reply_within(root: str, subject: str) -> bool:
    """Tell whether a subject is one that a link of this cluster is answered on. O(size).

    Nobody can make this node write anywhere else.
    """
    return subject.startswith(root) and _REPLY.fullmatch(subject, len(root)) is not None
