"""What a page of a state transfer holds, and how it is laid out.

Rule: the layout of a page must live in this file. A version is never changed once a release has
carried it; the next one has a layout of its own beside it, for neighbours read both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import frozen

from meshlib.codec import pack
from meshlib.errors import VersionMismatch
from meshlib.reading import (
    HASH_MAX,
    STAMP_LOGICAL_MAX,
    STAMP_MS_MAX,
    read_bytes,
    read_integer,
    read_rows,
    read_tree,
    require,
)
from meshlib.replication.late_writes import NEVER, Time

__all__ = ["PAGE_LAYOUTS", "PAGE_VERSION", "PageContent", "PageLayout"]

PAGE_VERSION: Final = 1
"""The newest version of a page, which is that of a file that keeps pages as well."""

BUCKETS_MAX: Final = 65_536

IS_LAST: Final = 1
IS_REPAIR: Final = 2
IS_WHOLE: Final = 4


@frozen(slots=True, kw_only=True)
class PageContent:
    """What a page's `state` holds.

    Args:
        transfer: names the transfer.
        index: the page's place in it, from 0.
        vector_hash: of the sender's vector as it was before the first page.
        time: the sender's hybrid clock then, as (wall milliseconds, logical): later than any
            removal it has dropped, so that what the receiver writes comes after those too.
        horizon: of the removals that the sender has dropped, likewise: see `LateWrites`.
        begun: buckets whose content begins here and is complete with the last page.
        part: the encoded part of the document's state.
        is_last: whether it is the last page.
        is_repair: whether equal vectors were found to hold different content: then vectors prove
            nothing, and everything is joined.
        is_whole: whether the sender lacks no entry of the document that its vector covers.
        entry_count: how many entries the transfer has, about: to tell how far it has come.
    """

    transfer: int
    index: int
    vector_hash: int
    time: Time
    horizon: Time = NEVER
    begun: tuple[int, ...]
    part: bytes
    is_last: bool = False
    is_repair: bool = False
    is_whole: bool = True
    entry_count: int = 0

    def encode(self, version: int = PAGE_VERSION) -> bytes:
        """Write the page in a version. O(size)."""
        data: bytes = pack((version, *PAGE_LAYOUTS[version].write(self)))
        return data

    @classmethod
    def decode(cls, data: bytes, *, newest: int = PAGE_VERSION) -> PageContent:
        """Read a page strictly. O(size).

        Args:
            data: what `encode` wrote, in any version up to `newest`.
            newest: the newest version that is read.

        Raises:
            DecodeError: not what `encode` writes.
            VersionMismatch: a version that is not read here.
        """
        tree = read_rows(read_tree(data), "a page of a transfer")
        require(len(tree) > 0, "a page of a transfer must not be empty")
        version = read_integer(tree[0], "the version of a page")
        layout = PAGE_LAYOUTS.get(version)
        if layout is None or version > newest:
            raise VersionMismatch("a page of a transfer", ours=newest, theirs=version)
        return layout.read(tree[1:])


@frozen(slots=True)
class PageLayout:
    """How one version of a page is laid out.

    Args:
        write: lays a page out as what follows its version.
        read: checks what follows a version and makes the page, or raises a `RemoteError`.
    """

    write: Callable[[PageContent], Sequence[Any]]
    read: Callable[[Sequence[Any]], PageContent]


def _write(page: PageContent) -> tuple[Any, ...]:
    flags = IS_LAST * page.is_last | IS_REPAIR * page.is_repair | IS_WHOLE * page.is_whole
    times = (*page.time, *page.horizon)
    numbers = (page.transfer, page.index, page.vector_hash, *times, flags, page.entry_count)
    return numbers, page.begun, page.part


def _read(fields: Sequence[Any]) -> PageContent:
    numbers, begun, part = read_rows(fields, "a page of a transfer", count=3)
    numbers = read_rows(numbers, "the numbers of a page", count=9)
    transfer, index, vector_hash, *times, flags, entry_count = (
        read_integer(number, "a number of a page", maximum=HASH_MAX) for number in numbers
    )
    time, horizon = _read_time(*times[:2]), _read_time(*times[2:])
    require(horizon <= time, "a page of a transfer: removals dropped in the sender's future")
    begun = tuple(read_rows(begun, "the buckets of a page", count_max=BUCKETS_MAX))
    for bucket in begun:
        read_integer(bucket, "a bucket of a page", maximum=BUCKETS_MAX - 1)
    return PageContent(
        transfer=transfer,
        index=index,
        vector_hash=vector_hash,
        time=time,
        horizon=horizon,
        begun=begun,
        part=read_bytes(part, "the part of a page"),
        is_last=bool(flags & IS_LAST),
        is_repair=bool(flags & IS_REPAIR),
        is_whole=bool(flags & IS_WHOLE),
        entry_count=entry_count,
    )


def _read_time(wall_ms: int, logical: int) -> Time:
    return (
        read_integer(wall_ms, "the milliseconds of a page", maximum=STAMP_MS_MAX),
        read_integer(logical, "the logical time of a page", maximum=STAMP_LOGICAL_MAX),
    )


PAGE_LAYOUTS: Final[dict[int, PageLayout]] = {PAGE_VERSION: PageLayout(_write, _read)}
"""Every layout that this process knows, by its version."""
