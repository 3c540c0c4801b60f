"""State transfers: the parts of documents that differ, in pages.

A page carries whole buckets where the type has them. For types with numbered entries it also
says which buckets begin with it, so that the receiver learns what the sender no longer has.
Rule: the format of a page's `state` must live in this file; to the transport it is opaque.
Source: the optimized observed-remove set (Bieniusa et al. 2012): what one side's clock covers
and that side does not have is removed, so a removal needs no tombstone between two states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from meshlib.codec import pack, unpack
from meshlib.crdt import registry
from meshlib.crdt.lattice import Lattice, join_all
from meshlib.errors import DecodeError, VersionMismatch
from meshlib.identity import ActorId
from meshlib.replication.digest import Offer, differing_buckets, document_digests
from meshlib.replication.document import Document

__all__ = ["PageContent", "SnapshotPage", "SnapshotPages", "decode_page", "encode_page"]

PAGE_VERSION: Final = 1
PAGE_OVERHEAD_BYTES: Final = 1024
"""Room for a page's head: its version, flags and bucket numbers."""

BUCKETS_MAX: Final = 65_536


@frozen(slots=True)
class SnapshotPage:
    """One page of a state transfer.

    Args:
        document: the document's name.
        state: what is sent of it; opaque, made and read by this package.
    """

    document: str
    state: bytes


@frozen(slots=True)
class PageContent:
    """What a page holds.

    Args:
        part: a state of the document's type.
        begun: buckets whose content begins here and is whole with the last page.
        clock_hash: of the sender's clock as it was before the first page.
        is_repair: whether both sides found that equal clocks hold different content: then
            clocks prove nothing, and everything is joined.
    """

    part: Lattice
    begun: tuple[int, ...]
    clock_hash: int
    is_repair: bool


def encode_page(content: PageContent, *, part_bytes: bytes) -> bytes:
    """Write a page. O(size)."""
    data: bytes = pack(
        (PAGE_VERSION, content.clock_hash, content.is_repair, content.begun, part_bytes)
    )
    return data


def decode_page(data: bytes) -> PageContent:
    """Read a page strictly. O(size).

    Raises:
        DecodeError: not what `encode_page` writes.
        VersionMismatch: a version not known here.
        LimitExceeded: its part holds more than a limit allows.
    """
    tree = unpack(data)
    if type(tree) is not tuple or not tree or type(tree[0]) is not int:
        raise DecodeError("not a page")
    if tree[0] != PAGE_VERSION:
        raise VersionMismatch("a page", ours=PAGE_VERSION, theirs=tree[0])
    if len(tree) != 5:
        raise DecodeError("not a page")
    _, clock_hash, is_repair, begun, part = tree
    if type(clock_hash) is not int or type(is_repair) is not bool or type(part) is not bytes:
        raise DecodeError("not a page")
    if type(begun) is not tuple or not all(
        type(bucket) is int and 0 <= bucket < BUCKETS_MAX for bucket in begun
    ):
        raise DecodeError("not a page: bucket numbers")
    return PageContent(registry.decode(part), begun, clock_hash, is_repair)


class SnapshotPages:
    """The pages that a peer needs, made one by one as they are asked for.

    Args:
        documents: the replica's own table, read as the pages are made.
        offer: what the peer has.
        page_bytes_max: of a page's `state`; one irreducible part may be over it.
        clock: the sender's clock now, before the first page.
        clock_hash: its hash.
        is_repair: see `PageContent`.
    """

    __slots__ = ("_content", "_documents", "_iterator", "_part_bytes_max", "clock")

    def __init__(
        self,
        documents: Mapping[str, Document],
        offer: Offer,
        *,
        page_bytes_max: int,
        clock: Mapping[ActorId, int],
        clock_hash: int,
        is_repair: bool,
    ) -> None:
        self.clock: Final = dict(clock)
        self._documents = documents
        self._part_bytes_max = max(1, page_bytes_max - PAGE_OVERHEAD_BYTES)
        self._content: Callable[[tuple[int, ...], Any], PageContent] = lambda begun, part: (
            PageContent(part, begun, clock_hash, is_repair)
        )
        self._iterator = self._pages(dict(offer))

    def __iter__(self) -> Iterator[SnapshotPage]:
        return self._iterator

    def __next__(self) -> SnapshotPage:
        return next(self._iterator)

    def _pages(self, offer: Offer) -> Iterator[SnapshotPage]:
        def size(name: str) -> int:
            state = self._documents[name].state
            return len(state) if hasattr(state, "__len__") else 0

        for name in sorted(self._documents, key=lambda name: (size(name), name)):
            document = self._documents[name]
            tag, theirs = offer.get(name, (document.tag, ()))
            if tag != document.tag:
                continue  # two types under one name: neither side can read the other's
            ours = document_digests(document.state)
            differing = differing_buckets(ours, theirs)
            if not differing:
                continue
            if document.traits.is_paged:
                yield from self._bucket_pages(document, differing)
            elif not document.state.is_bottom():
                yield from self._split(document, [document.state], ())

    def _page(
        self, document: Document, part: Any, begun: tuple[int, ...], data: bytes
    ) -> SnapshotPage:
        content = self._content(begun, part)
        return SnapshotPage(document.name, encode_page(content, part_bytes=data))

    def _bucket_pages(self, document: Document, buckets: list[int]) -> Iterator[SnapshotPage]:
        """Group buckets into pages, by the size that the buckets before had."""
        sent_bytes, sent_buckets, start = 0, 0, 0
        count = 1
        while start < len(buckets):
            group = tuple(buckets[start : start + count])
            part = document.state.part(group)
            data = registry.encode(part)
            if len(data) > self._part_bytes_max and len(group) > 1:
                count = len(group) // 2
                continue
            begun = group if document.traits.is_numbered else ()
            if len(data) > self._part_bytes_max:
                yield from self._split(document, [part], begun)
            elif begun or not part.is_bottom():
                yield self._page(document, part, begun, data)
            start += len(group)
            sent_bytes += len(data)
            sent_buckets += len(group)
            count = max(1, self._part_bytes_max * sent_buckets * 3 // (sent_bytes * 4))

    def _split(
        self, document: Document, parts: list[Any], begun: tuple[int, ...]
    ) -> Iterator[SnapshotPage]:
        """Send the join of `parts`, halved until each page fits or cannot be split."""
        joined = parts[0] if len(parts) == 1 else join_all(parts)
        data = registry.encode(joined)
        if len(data) > self._part_bytes_max:
            pieces = list(joined.decompose()) if len(parts) == 1 else parts
            if len(pieces) > 1:
                yield from self._split_all(document, pieces, begun, len(data))
                return
        yield self._page(document, joined, begun, data)

    def _split_all(
        self, document: Document, pieces: list[Any], begun: tuple[int, ...], size: int
    ) -> Iterator[SnapshotPage]:
        chunk_count = min(len(pieces), max(2, size * 5 // (self._part_bytes_max * 4) + 1))
        step = -(-len(pieces) // chunk_count)
        for start in range(0, len(pieces), step):
            yield from self._split(document, pieces[start : start + step], begun)
            begun = ()
