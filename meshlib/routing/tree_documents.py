"""What a model's tree is called, what is replicated of it, and how large an entry of it may be.

Rule: how accesses and epochs are made of the time must live in this file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import attrs

from meshlib.arguments import with_article
from meshlib.crdt import GCounter, KnownText, PrefixCacheState, Record, lattice
from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.limits import ENTRY_BYTES_MAX, TEXT_CHARACTERS_MAX
from meshlib.prefix import check_tenant
from meshlib.replication import WriteContext
from meshlib.routing.records import TreeInsert, TreeOperation, TreeRemove
from meshlib.state import check_text

__all__ = [
    "INSERTION_BYTES",
    "TREE_PREFIX",
    "TREE_TAG",
    "TreeDocument",
    "access_after",
    "access_now",
    "check_operation",
    "clipped",
    "model_of",
    "tree_document",
    "used_ms",
]

TREE_PREFIX: Final = "tree:"
"""What comes before a model's id in the name of its tree's document."""

TREE_TAG: Final = "record:tree"

INSERTION_BYTES: Final = 256
"""What an insertion takes at the most beside what is inserted and its tenant."""

_TEXT_BYTES_MAX: Final = ENTRY_BYTES_MAX - 8 * 1024
"""What a text may take in UTF-8, so that its insertion fits an entry of the log."""

_ACCESS_BITS: Final = 10
"""An access is a millisecond and, below it, this many bits that order what it holds."""

_ESCAPED: Final = re.compile(r"[%\x00-\x1f\x7f]")


@lru_cache(maxsize=4096)
def tree_document(model_id: str) -> str:
    """Return the name of a model's tree: `tree:{model_id}`.

    Names of documents hold no control characters, so these are percent-encoded, and with them
    the percent sign.
    """
    if _ESCAPED.search(model_id) is None:
        return TREE_PREFIX + model_id
    return TREE_PREFIX + _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", model_id)


def model_of(document: str) -> str | None:
    """Return the model whose tree a document is, or None when it is no tree."""
    if not document.startswith(TREE_PREFIX):
        return None
    return unquote(document.removeprefix(TREE_PREFIX))


@lattice(name="tree")
class TreeDocument(Record):
    """What is replicated of one model's tree."""

    cache: PrefixCacheState = attrs.field(factory=PrefixCacheState)
    """Which worker has which text cached."""

    changes: GCounter = attrs.field(factory=GCounter)
    """How many operations changed it, by writer."""

    def known_texts(self) -> Sequence[KnownText]:
        """Return what is known of the texts of this delta; see `meshlib.crdt.known`."""
        return self.cache.known_texts()

    def text_named(self, name: int) -> bytes | None:
        """Return the bytes of a text by its name; see `meshlib.crdt.known`."""
        return self.cache.text_named(name)


def access_now(cache: Any, context: WriteContext, tenant: str) -> int:
    """Return an access for now: later than all before, and above what was evicted."""
    wall_ms, logical, _ = context.stamp()
    order = logical if logical < 1 << _ACCESS_BITS else (1 << _ACCESS_BITS) - 1
    now = (wall_ms << _ACCESS_BITS) | order
    floor: int = cache.generation(tenant).floor
    return now if now > floor else floor + 1


def access_after(duration_s: float) -> int:
    """Return by how much two accesses differ that are so many seconds apart."""
    return int(duration_s * 1000) << _ACCESS_BITS


def used_ms(access: int) -> int:
    """Return when something was used, in milliseconds since 1970."""
    return access >> _ACCESS_BITS


def check_operation(operation: TreeOperation, characters_max: int) -> None:
    """Raise what is wrong with an operation, whatever the tree."""
    if isinstance(operation, TreeInsert):
        text = check_text("text", operation.text)
        check_tenant(operation.tenant)
        if not text:
            raise InvalidValueError("the text of an insertion must not be empty")
        _check_size(text, characters_max)
    elif isinstance(operation, TreeRemove):
        check_tenant(operation.tenant)
    else:
        raise InvalidTypeError(f"{with_article(type(operation).__name__)} is no tree operation")


def _check_size(text: str, characters_max: int) -> None:
    limit = min(characters_max, TEXT_CHARACTERS_MAX)
    if len(text) > limit:
        raise LimitError("text characters", size=len(text), limit=limit)
    size = len(text) if text.isascii() else len(text.encode())
    if size > _TEXT_BYTES_MAX:
        raise LimitError("text bytes", size=size, limit=_TEXT_BYTES_MAX)


def clipped(text: str, characters_max: int) -> str:
    """Return the beginning of a text that fits a tree and an entry of the log."""
    clipped = text[: min(characters_max, TEXT_CHARACTERS_MAX)]
    if len(clipped) * 4 <= _TEXT_BYTES_MAX or clipped.isascii():
        return clipped
    return clipped.encode()[:_TEXT_BYTES_MAX].decode(errors="ignore")
