"""State transfers: the parts of documents that differ, in pages.

A page carries whole buckets where the type has them. For types with numbered entries it also
says which buckets begin with it, so that the receiver learns what the sender no longer has.
Rule: all pages are of the state as it was when the vector was taken, so that content and vector
agree. What a page's `state` holds is laid out in `page_content.py`; to the transport it is opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import evolve, frozen

from meshlib.codec import pack
from meshlib.crdt import components_of, registry
from meshlib.hashing import hash64
from meshlib.replication.document import DocumentTable, HeldDocument, size_of
from meshlib.replication.page_content import PageContent
from meshlib.replication.parts import Parts
from meshlib.replication.transfers.digests import (
    DocumentDigests,
    differing_buckets,
    document_digests,
)
from meshlib.replication.transfers.paging import encoded_pieces

__all__ = ["TransferPage", "TransferPages"]

PAGE_OVERHEAD_BYTES: Final = 1024
"""Room for a page's head: numbers, flags and bucket numbers."""

MAP_BYTES_MAX: Final = 96 * 1024
"""Bytes of a map in one page: some thousand small entries take their receiver 10 ms."""

SAMPLE_BUCKETS: Final = 8
"""Buckets that are written once only to learn how large they are."""


@frozen(slots=True)
class TransferPage:
    """One page of a state transfer.

    Args:
        document: the document's name.
        state: what is sent of it; opaque, made and read by this package.
    """

    document: str
    state: bytes


_Pieces = Iterator[tuple[tuple[int, ...], bytes]]
"""The encoded pieces of a document, each with the buckets that begin with it."""


def _size(document: HeldDocument) -> tuple[bool, int, str]:
    """Order documents: those that nodes decide by come first, then by how many entries they have.

    Limits, policies, workers and configuration are maps of numbered entries; what is large beside
    them is hints.
    """
    return not document.traits.is_prunable, size_of(document.state), document.name


def _share(state: Any, bucket_count: int) -> int:
    """Return about how many entries so many of a state's buckets have. O(buckets)."""
    return size_of(state) * bucket_count // max(1, len(document_digests(state)))


def _has_passes(state: Any) -> bool:
    """Tell whether the states of some buckets are made in one pass: see `_parts`."""
    return hasattr(state, "bucket_parts") or any(
        hasattr(component, "bucket_parts") for component in components_of(state).values()
    )


def _is_passed_once(state: Any) -> bool:
    """Tell whether all that is large in a state is read in one pass, and no digest asked for."""
    components = components_of(state).values() or (state,)
    return all(
        hasattr(component, "bucket_parts") or not hasattr(component, "bucket_digests")
        for component in components
    ) and _has_passes(state)


def _parts(state: Any, buckets: list[int], *, size_max: Callable[[], int]) -> Iterator[Any] | None:
    """Return the states of some buckets, made in one pass; None where the type has no such pass."""
    if hasattr(state, "bucket_parts"):
        parts: Iterator[Any] = state.bucket_parts(buckets, size_max=size_max)
        return parts
    if _has_passes(state):
        return _parts_of_components(state, components_of(state), buckets, size_max)
    return None


def _parts_of_components(
    state: Any, components: dict[str, Any], buckets: list[int], size_max: Callable[[], int]
) -> Iterator[Any]:
    kind, small = type(state), {}
    for name, component in components.items():
        if not hasattr(component, "bucket_parts"):
            if hasattr(component, "bucket_digests"):
                count = len(component.bucket_digests())
                small[name] = component.part([b for b in buckets if b < count])
            elif 0 in buckets:
                small[name] = component
    yield kind(**small)
    for name, component in components.items():
        if name not in small and hasattr(component, "bucket_parts"):
            for part in component.bucket_parts(buckets, size_max=size_max):
                yield kind(**{name: part})


class TransferPages:
    """The pages that a peer needs, written one by one as they are asked for.

    What differs is copied at the beginning, which is quick beside writing it. How large the next
    pages become may be said at any time: up to two are made already.

    Args:
        parts: the sender's.
        offer: what the peer has; None to write everything, for which nothing is hashed here.
        page_bytes_max: of a page's `state`; one irreducible part may be over it.
        number: how many transfers this replica has begun, to tell them apart.
        is_repair: see `PageContent`.
        version: of the pages.
    """

    __slots__ = ("_head", "_page_bytes_max", "_piece_bytes_max", "_stream", "_version", "vector")

    def __init__(
        self,
        parts: Parts,
        offer: DocumentDigests | None,
        *,
        page_bytes_max: int,
        number: int,
        is_repair: bool,
        version: int,
    ) -> None:
        self._version = version
        self.vector: Final = parts.vector.advertised(is_complete=True)
        self._page_bytes_max = page_bytes_max
        self._piece_bytes_max = 1
        self.set_page_bytes(page_bytes_max)
        vector_hash = parts.vector.hash()
        self._head = PageContent(
            transfer=hash64(pack((parts.actor, number, vector_hash))),
            index=0,
            vector_hash=vector_hash,
            time=parts.clock.tick()[:2],
            horizon=parts.late.horizon,
            begun=(),
            part=b"",
            is_repair=is_repair,
        )
        if offer is None:
            self._stream = self._pages(self._everything(parts.documents))
        else:
            differing = self._differing(parts.documents, offer)
            self._head = evolve(self._head, entry_count=sum(share for _, _, share in differing))
            pieces = [(d, self._pieces(d, buckets)) for d, buckets, _ in differing]
            self._stream = self._pages(pieces)

    def set_page_bytes(self, page_bytes: int) -> None:
        """Make the next pages so large, and no larger than was said at first. O(1)."""
        page_bytes = min(page_bytes, self._page_bytes_max)
        self._piece_bytes_max = max(1, page_bytes - PAGE_OVERHEAD_BYTES)

    def _part_size(self) -> int:
        """Return how many characters of text go into a part at most: so many bytes, and tenants."""
        return self._piece_bytes_max // 2

    def _entry_bytes_max(self) -> int:
        """Return how many bytes of entries of a map go into a page."""
        return min(self._piece_bytes_max, MAP_BYTES_MAX)

    def _everything(self, documents: DocumentTable) -> list[tuple[HeldDocument, _Pieces]]:
        """Return every document and the pieces of it as it is now, made as they are asked for."""
        copies = [document.copy_content() for document in sorted(documents, key=_size)]
        return [(copy, self._pieces(copy, None)) for copy in copies]

    def _part_pieces(self, parts: Iterator[Any]) -> _Pieces:
        for part in parts:
            for _, data in encoded_pieces([part], bytes_max=self._piece_bytes_max):
                yield (), data

    @staticmethod
    def _differing(
        documents: DocumentTable, offer: DocumentDigests
    ) -> list[tuple[HeldDocument, list[int], int]]:
        """Return copies of the documents that differ, small ones first.

        Each with the buckets that differ, and about how many entries are in these.
        """
        found: list[tuple[HeldDocument, list[int], int]] = []
        for document in sorted(documents, key=_size):
            tag, theirs = offer.get(document.name, (document.tag, ()))
            if tag != document.tag:
                # This is enough for the receiver to learn that the types differ.
                found.append((document.empty(), [], 0))
                continue
            state = document.state
            buckets = differing_buckets(document_digests(state), theirs)
            if buckets:
                # What is read in one pass needs nothing else of a copy, and some of that is dear.
                copy = document.copy_content() if _is_passed_once(state) else document.copy()
                found.append((copy, buckets, _share(state, len(buckets))))
        if not found and len(documents):
            # The receiver learns this node's time from a page, even when nothing differs.
            found.append((next(iter(documents)).empty(), [], 0))
        return found

    def __iter__(self) -> Iterator[TransferPage]:
        return self

    def __next__(self) -> TransferPage:
        return next(self._stream)

    def _pages(self, wanted: list[tuple[HeldDocument, _Pieces]]) -> Iterator[TransferPage]:
        """Number the pieces, and mark the last one: so one piece is made ahead."""
        waiting: tuple[str, PageContent] | None = None
        index = 0
        for document, pieces in wanted:
            for begun, part in pieces:
                if waiting is not None:
                    yield TransferPage(waiting[0], waiting[1].encode(self._version))
                is_whole = not document.skipped
                content = evolve(self._head, index=index, begun=begun, part=part, is_whole=is_whole)
                waiting = document.name, content
                index += 1
        if waiting is not None:
            yield TransferPage(waiting[0], evolve(waiting[1], is_last=True).encode(self._version))

    def _pieces(self, document: HeldDocument, buckets: list[int] | None) -> _Pieces:
        """Yield the pieces of a document, all its buckets for None, and those each begins."""
        if buckets is None:
            # How many there are is known without the digests of what is here.
            buckets = list(range(len(document_digests(document.empty().state))))
        parts = _parts(document.state, buckets, size_max=self._part_size)
        if buckets and parts is not None:
            yield from self._part_pieces(part for part in parts if not part.is_bottom())
        elif buckets and document.traits.is_paged:
            yield from self._bucket_pieces(document, buckets)
        else:
            for _, data in encoded_pieces([document.state], bytes_max=self._piece_bytes_max):
                yield (), data

    def _claims(self, document: HeldDocument, buckets: tuple[int, ...]) -> tuple[int, ...]:
        """Return the buckets of which the sender can say that what it lacks is removed."""
        if document.traits.is_prunable and not document.skipped and not self._head.is_repair:
            return buckets
        return ()

    def _bucket_pieces(
        self, document: HeldDocument, buckets: list[int]
    ) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """Group buckets into pieces, by the size that the buckets before had."""
        sample = buckets[:SAMPLE_BUCKETS]
        sent_bytes, sent_buckets = len(registry.encode(document.state.part(sample))), len(sample)
        start, count = 0, self._group_size(sent_bytes, sent_buckets)
        while start < len(buckets):
            group = tuple(buckets[start : start + count])
            part: Any = document.state.part(group)
            data = registry.encode(part)
            bytes_max = self._entry_bytes_max()
            if len(data) > bytes_max and len(group) > 1:
                count = len(group) // 2
                continue
            begun = self._claims(document, group)
            if len(data) > bytes_max:
                for _, piece in encoded_pieces([part], bytes_max=bytes_max):
                    yield begun, piece
                    begun = ()
            elif begun or not part.is_bottom():
                yield begun, data
            start += len(group)
            sent_bytes += len(data)
            sent_buckets += len(group)
            count = self._group_size(sent_bytes, sent_buckets)

    def _group_size(self, sent_bytes: int, sent_buckets: int) -> int:
        """Return how many buckets fill three quarters of a page, by those seen so far."""
        return max(1, self._entry_bytes_max() * sent_buckets * 3 // (sent_bytes * 4))
