"""A test double of the next release: it speaks one format more than this one.

In that format a header has a field more, entries carry a checksum of their own, an equal exchange
is told by another kind of message, a request for one has a field behind those of today, and a page
of a state has a field more and is in another order: whatever a node of this release would stumble
over. Importing this file makes the format known to the process; who speaks it is a node with
`MeshConfig(formats=NEXT_FORMATS)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from meshlib.codec import pack
from meshlib.errors import DecodeError, RejectReason
from meshlib.gossip import DIALECTS, Dialect, HeaderField, Kind, MessageLayout, register_dialect
from meshlib.hashing import hash64
from meshlib.limits import FORMAT_NEWEST
from meshlib.reading import read_hash, read_integer, read_row, read_rows, require
from meshlib.replication import PAGE_LAYOUTS, PAGE_VERSION, PageContent, PageLayout

__all__ = ["NEXT_FORMAT", "NEXT_FORMATS", "NEXT_PAGE_VERSION"]

NEXT_FORMAT: Final = FORMAT_NEWEST + 1
NEXT_FORMATS: Final = (FORMAT_NEWEST, NEXT_FORMAT)
"""What a node of the next release speaks."""

NEXT_PAGE_VERSION: Final = PAGE_VERSION + 1

EQUAL_CODE: Final = 100
"""The kind of message by which the next release ends an exchange between equals."""


class _Wider:
    """A layout with one more field behind those of another.

    Args:
        inner: the layout of today.
        write: what is written behind its fields, by these.
        check: looks at what came there, beside the fields; raises a `RemoteError`.
    """

    def __init__(
        self,
        inner: MessageLayout,
        *,
        write: Callable[[Sequence[Any]], Any],
        check: Callable[[Sequence[Any], Any], object],
    ) -> None:
        self.width = inner.width + 1
        self._inner = inner
        self._more = write
        self._check_more = check

    def write(self, message: Any) -> Sequence[Any]:
        """Lay out the fields of a message."""
        fields = self._inner.write(message)
        return (*fields, self._more(fields))

    def read(self, fields: Sequence[Any]) -> Any:
        """Check the fields and make the message."""
        if len(fields) != self.width:
            raise DecodeError(f"expected {self.width} fields, not {len(fields)}")
        self._check_more(fields[:-1], fields[-1])
        return self._inner.read(fields[:-1])


def _entries_hash(fields: Sequence[Any]) -> int:
    return hash64(pack(fields[0]))


def _check_entries(fields: Sequence[Any], told: Any) -> None:
    if read_hash(told) != _entries_hash(fields):
        raise DecodeError("entries that are not what was written", reason=RejectReason.CHECKSUM)


def _read_mark(told: Any) -> int:
    return read_integer(told, "a mark", minimum=NEXT_FORMAT, maximum=NEXT_FORMAT)


def _marked(inner: MessageLayout) -> _Wider:
    return _Wider(
        inner, write=lambda _fields: NEXT_FORMAT, check=lambda _fields, told: _read_mark(told)
    )


def _kinds() -> dict[type, Kind]:
    kinds = dict(DIALECTS[FORMAT_NEWEST].kinds)
    by_name = {each.__name__: each for each in kinds}
    entries, request, equal = (
        by_name[name] for name in ("EntriesMessage", "ExchangeRequest", "ExchangeEqual")
    )
    kinds[entries] = Kind(
        kinds[entries].code,
        _Wider(kinds[entries].layout, write=_entries_hash, check=_check_entries),
    )
    kinds[request] = Kind(kinds[request].code, _marked(kinds[request].layout))
    kinds[equal] = Kind(EQUAL_CODE, _marked(kinds[equal].layout))
    return kinds


def _write_page(page: PageContent) -> tuple[Any, ...]:
    numbers, begun, part = PAGE_LAYOUTS[PAGE_VERSION].write(page)
    return part, begun, numbers, hash64(part)


def _read_page(fields: Sequence[Any]) -> PageContent:
    part, begun, numbers, told = read_row(tuple(read_rows(fields, "a page")), "a page", 4)
    page = PAGE_LAYOUTS[PAGE_VERSION].read((numbers, begun, part))
    require(read_hash(told) == hash64(page.part), "a part that is not what was written")
    return page


PAGE_LAYOUTS[NEXT_PAGE_VERSION] = PageLayout(_write_page, _read_page)
register_dialect(
    Dialect(
        NEXT_FORMAT,
        kinds=_kinds(),
        page_version=NEXT_PAGE_VERSION,
        header_fields=(HeaderField(NEXT_FORMAT, _read_mark),),
    )
)
