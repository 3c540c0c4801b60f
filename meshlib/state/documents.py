"""Replicated maps as the stores use them, read as records.

Rule: a value that is no record never raises when it is read: it is unreadable, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final, Generic, TypeVar, cast

from meshlib.codec import decode_value
from meshlib.crdt import LWWEntry, LWWMap
from meshlib.errors import InvalidTypeError, LocalError, UnknownKeyError
from meshlib.replication import Replica, WriteContext, WriteReceipt
from meshlib.state.records import check_identifier

__all__ = ["Documents", "ReadChecks", "RecordTable", "stored_field"]

_MAP_TAG: Final = "lww_map"

_CACHE_SLACK: Final = 64

RecordT = TypeVar("RecordT")


class Documents:
    """A replica as the stores use it.

    Args:
        replica: holds the documents.
    """

    __slots__ = ("replica",)

    def __init__(self, replica: Replica) -> None:
        self.replica = replica

    def open_map(self, document: str) -> LWWMap[Any, Any]:
        """Return a document that is a map, made empty when it is not there. O(1)."""
        return cast("LWWMap[Any, Any]", self.replica.open(document, type_tag=_MAP_TAG))

    def write(self, document: str, mutate: Callable[[Any, WriteContext], Any]) -> WriteReceipt:
        """Write to an open document; as `Replica.write`."""
        return self.replica.write(document, mutate)


class ReadChecks:
    """Which keys hold what cannot be read, kept up with changes instead of found anew.

    A change is noted at once and read when somebody asks: `CHECKED_EACH_TIME` keys at each look, so
    that no look takes long, however much has come; what is left is read at the next ones.

    Args:
        is_readable: reads a key; a key that is not there counts as readable.
        all_keys: returns every key there is, in any order.
    """

    CHECKED_EACH_TIME: Final = 4096

    __slots__ = (
        "_all_keys", "_are_all_noted", "_is_readable", "_unreadable", "_waiting",
    )  # fmt: skip

    def __init__(
        self, is_readable: Callable[[Any], bool], *, all_keys: Callable[[], Iterable[Any]]
    ) -> None:
        self._is_readable = is_readable
        self._all_keys = all_keys
        self._are_all_noted = True
        self._waiting: dict[Any, None] = {}
        self._unreadable: set[Any] = set()

    def note(self, keys: Iterable[Any] | None) -> None:
        """Take note that keys may have changed; None for all of them. Reads nothing. O(keys)."""
        if keys is None:
            self._are_all_noted = True
            return
        if self._are_all_noted:
            return
        for key in keys:
            self._waiting[key] = None

    def look(self) -> None:
        """Read the keys that have changed and were not looked at yet, up to so many."""
        if self._are_all_noted:
            self._are_all_noted = False
            self.note(self._all_keys())
        for key in tuple(islice(self._waiting, self.CHECKED_EACH_TIME)):
            del self._waiting[key]
            if self._is_readable(key):
                self._unreadable.discard(key)
            else:
                self._unreadable.add(key)

    def unreadable(self) -> list[Any]:
        """Look, and return the keys known to be unreadable, in no order. O(changes)."""
        self.look()
        return list(self._unreadable)


class RecordTable(Generic[RecordT]):
    """Records in one replicated map, thawed once for each change.

    Args:
        documents: where the map is.
        document: its name.
        what: what a key names, for errors.
        thaw: makes a record of a key, its value and its version, or raises a `LocalError`.
        is_cached: whether records are kept beside the map, for those that cost to thaw.
    """

    __slots__ = ("_cache", "_checks", "_document", "_documents", "_is_cached", "_thaw", "_what")

    def __init__(
        self,
        documents: Documents,
        document: str,
        *,
        what: str,
        thaw: Callable[[str, Any, int], RecordT],
        is_cached: bool = True,
    ) -> None:
        self._is_cached = is_cached
        self._documents = documents
        self._document = document
        self._what = what
        self._thaw = thaw
        self._cache: dict[str, tuple[LWWEntry, RecordT | None]] = {}
        self._checks = ReadChecks(
            self._is_readable,
            all_keys=lambda: self.map.unordered_keys(),  # noqa: PLW0108 - another map each time
        )
        documents.open_map(document)

    @property
    def map(self) -> LWWMap[Any, Any]:
        """The map: read it, and change it by `put` and `remove` only."""
        return self._documents.open_map(self._document)

    def get(self, key: str) -> RecordT | None:
        """Return a key's record; None without one, or when it is unreadable. O(1)."""
        entry = self.map.entry(key)
        if entry is None or entry.payload is None:
            self._cache.pop(key, None)
            return None
        return self._record_of(key, entry)

    def _is_readable(self, key: Any) -> bool:
        entry = self.map.entry(key)
        return entry is None or entry.payload is None or self._record_of(key, entry) is not None

    def _record_of(self, key: Any, entry: LWWEntry) -> RecordT | None:
        held = self._cache.get(key)
        if held is not None and held[0] is entry:
            return held[1]
        record = self._read(key, entry)
        if self._is_cached:
            if len(self._cache) > 2 * len(self.map) + _CACHE_SLACK:
                self._cache.clear()  # most of it is of keys that peers removed
            self._cache[key] = (entry, record)
        return record

    def _read(self, key: Any, entry: LWWEntry) -> RecordT | None:
        assert entry.payload is not None
        try:
            return self._thaw(check_identifier(self._what, key), _value(entry), entry.version)
        except LocalError:
            return None

    def last_write(self, key: str) -> LWWEntry | None:
        """Return what was written to a key last, a removal too, or None. O(1)."""
        entry = self.map.entry(key)
        return entry if entry is not None and entry.has_write else None

    def records(self) -> list[RecordT]:
        """Return the records that can be read, sorted by key. O(n log n)."""
        return [record for key in self.map if (record := self.get(key)) is not None]

    def note_changes(self, keys: Iterable[Any] | None) -> None:
        """Take note that keys have changed by what peers sent; None for all of them."""
        self._checks.note(keys)

    def unreadable(self) -> list[str]:
        """Return the keys whose values are no such records, sorted. O(changes, these)."""
        return sorted(repr(key) for key in self._checks.unreadable())

    def put(self, key: str, value: Any) -> WriteReceipt:
        """Write a value. O(size)."""

        def mutate(state: LWWMap[str, Any], context: WriteContext) -> LWWMap[str, Any]:
            return state.set(key, value, stamp=context.stamp(), sequence=context.sequence)

        receipt = self._documents.write(self._document, mutate)
        self._checks.note((key,))
        return receipt

    def remove(self, key: str) -> WriteReceipt:
        """Remove a key; `UnknownKeyError` without one, and nothing changed. O(1)."""
        if key not in self.map:
            raise UnknownKeyError(self._what, key)

        def mutate(state: LWWMap[str, Any], context: WriteContext) -> LWWMap[str, Any]:
            return state.remove(key, stamp=context.stamp(), sequence=context.sequence)

        receipt = self._documents.write(self._document, mutate)
        self._cache.pop(key, None)
        self._checks.note((key,))
        return receipt


def _value(entry: LWWEntry) -> Any:
    return None if entry.payload is None else decode_value(entry.payload)


def stored_field(value: Any, name: str) -> Any:
    """Return a field of a stored record, and ignore fields of versions to come."""
    if not isinstance(value, dict) or name not in value:
        raise InvalidTypeError(f"no {name}")
    return value[name]
