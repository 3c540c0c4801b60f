"""What the asker of a state transfer says it has, in one frame however many documents there are.

Rule: an offer may say less than is true and never more. A document that it leaves out is sent
whole, so whatever differs is sent, and the sender's vector may be joined at the end.

It says three things, each finer one where the bytes allow:

- groups: one digest over all documents whose names fall into the same group, when not every
  document can be named. Documents of a group that is equal are skipped.
- roots: one digest of a document, made of its buckets' digests. An equal one is skipped, one that
  differs is sent whole.
- buckets: the digests of a document's buckets, of which those that differ are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from meshlib.codec import pack
from meshlib.gossip.messages.fields import kind
from meshlib.hashing import HASH64_MASK, hash64
from meshlib.limits import DOCUMENT_NAME_BYTES_MAX, DOCUMENTS_MAX
from meshlib.reading import read_hashes, read_rows, read_text
from meshlib.replication import DocumentDigests

__all__ = ["GROUPS", "OFFER", "CompactOffer", "compact", "expand"]

GROUPS = 4096
"""How many groups names fall into: 32 KiB, and 16 documents in each at the most there may be."""

NAMES_BYTES_MAX = 256 * 1024
"""Names, tags and roots in one offer: about 5,000 documents of 30 characters."""

BUCKETS_BYTES_MAX = 256 * 1024
"""Digests of buckets in one offer: 128 documents of 256 buckets."""

BUCKETS_MAX = 65_536
TAG_BYTES_MAX = 1024

NAMED_OVERHEAD_BYTES = 20
"""The most that msgpack adds to a name, a tag and a root, the root included."""


@frozen(slots=True)
class CompactOffer:
    """An offer that fits a frame.

    Args:
        documents: document to (type tag, bucket digests), or to (type tag, one root) where the
            type has several buckets and there was no room for them.
        groups: the digests of all groups; empty when every document is named.
    """

    documents: DocumentDigests
    groups: tuple[int, ...] = ()


def compact(
    digests: DocumentDigests,
    *,
    names_bytes_max: int = NAMES_BYTES_MAX,
    buckets_bytes_max: int = BUCKETS_BYTES_MAX,
) -> CompactOffer:
    """Make an offer of bounded size. O(buckets).

    Buckets are given for the fullest documents first, which cost most to send whole.

    Args:
        digests: what this node has.
        names_bytes_max: for names, tags and roots.
        buckets_bytes_max: for the digests of buckets.
    """
    documents: dict[str, tuple[str, tuple[int, ...]]] = {}
    size = 0
    for name, (tag, own) in sorted(digests.items()):
        size += len(name.encode()) + len(tag.encode()) + NAMED_OVERHEAD_BYTES
        if size > names_bytes_max:
            break
        documents[name] = tag, (_root(own),)
    size = 0
    for name in sorted(documents, key=lambda name: (-len(set(digests[name][1])), name)):
        size += 8 * len(digests[name][1])
        if size > buckets_bytes_max:
            break
        documents[name] = digests[name]
    groups = () if len(documents) == len(digests) else _groups(digests)
    return CompactOffer(documents, groups)


def expand(offer: CompactOffer, own: DocumentDigests) -> DocumentDigests:
    """Return an offer as `Replica.transfer_pages` takes it. O(buckets).

    Where a root or a group is equal the peer has what this node has. Where it differs nothing is
    known of what the peer has, and no digests say so.

    Args:
        offer: the peer's.
        own: what this node has, at the same moment as the pages are made.
    """
    ours = _groups(own) if len(offer.groups) == GROUPS else ()
    expanded = dict(offer.documents)
    for name, (tag, digests) in own.items():
        named = offer.documents.get(name)
        if named is None:
            if ours and ours[group := _group_of(name)] == offer.groups[group]:
                expanded[name] = tag, digests
        elif named[0] == tag and len(named[1]) == 1:
            expanded[name] = tag, digests if named[1] == (_root(digests),) else ()
    return expanded


def _root(digests: tuple[int, ...]) -> int:
    """Return one digest of a document: its only one, or the hash of its buckets'."""
    return digests[0] if len(digests) == 1 else hash64(pack(digests))


def _group_of(name: str) -> int:
    return hash64(name.encode()) % GROUPS


def _groups(digests: DocumentDigests) -> tuple[int, ...]:
    groups = [0] * GROUPS
    for name, (tag, own) in digests.items():
        group = _group_of(name)
        groups[group] = (groups[group] + hash64(pack((name, tag, _root(own))))) & HASH64_MASK
    return tuple(groups)


# On the wire


def _to_wire(offer: CompactOffer) -> tuple[Any, ...]:
    """Lay out an offer in two places: the digests of a document as one run of 8-byte numbers."""
    rows = [
        (document, tag, _pack_digests(digests))
        for document, (tag, digests) in sorted(offer.documents.items())
    ]
    return rows, _pack_digests(offer.groups)


def _from_wire(places: Sequence[Any]) -> CompactOffer:
    items, groups = places
    documents = {}
    for item in read_rows(items, "the documents of an offer", count_max=DOCUMENTS_MAX):
        document, tag, packed = read_rows(item, "a document of an offer", count=3)
        name = read_text(document, "a document", bytes_max=DOCUMENT_NAME_BYTES_MAX)
        documents[name] = (
            read_text(tag, "a type tag", bytes_max=TAG_BYTES_MAX),
            read_hashes(packed, "the digests of a document", count_max=BUCKETS_MAX),
        )
    return CompactOffer(documents, read_hashes(groups, "the groups", count_max=GROUPS))


def _pack_digests(digests: tuple[int, ...]) -> bytes:
    return b"".join(digest.to_bytes(8, "big") for digest in digests)


OFFER: Final = kind(_from_wire, _to_wire, width=2)
