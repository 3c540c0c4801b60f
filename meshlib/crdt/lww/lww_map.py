"""`LWWMap`: the map that the stores are made of.

Rule: an entry carries the number of the write that made it, so that a transfer never brings
back what the receiver has already seen removed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Generic, Self, TypeVar, cast, overload

from meshlib.clock import Stamp
from meshlib.codec import canonical_order, check_key, decode_value, encode_value
from meshlib.crdt.lww.digests import BucketDigests
from meshlib.crdt.lww.entries import (
    NO_WRITE,
    LWWEntry,
    Row,
    changes_by,
    count_of,
    counts_alone,
    join_entries,
    new_in,
)
from meshlib.crdt.lww.wire import map_from_wire, map_to_wire
from meshlib.crdt.registry import register
from meshlib.crdt.wire import cannot_join, check_stamp
from meshlib.errors import InvalidValueError, UnknownKeyError
from meshlib.identity import ActorId
from meshlib.reading import COUNT_MAX

__all__ = ["LWWEntry", "LWWMap"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_new = object.__new__


def _count_tombstones(entries: dict[K, Row]) -> int:
    return [row[4] for row in entries.values()].count(None)


class LWWMap(Generic[K, V]):
    """A map in which the latest write of each key stays; removals leave tombstones.

    Which write is the latest is told by its stamp; should two writes have one stamp, by the
    value's bytes, and a value stays against a removal. Tombstones are dropped by `collect`
    when the owner knows that they are stable.

    Digests are kept up with changes from their first use on, at the cost of the changed
    entries' hashes.
    """

    __slots__ = ("_digests", "_entries", "_pending", "_tombstone_count")

    def __init__(self) -> None:
        self._entries: dict[K, Row] = {}
        self._tombstone_count = 0
        # Keys that changed since the digests were last looked at; empty without digests.
        self._digests: BucketDigests | None = None
        self._pending: dict[K, None] = {}

    @classmethod
    def _of(cls, entries: dict[K, Row], *, tombstone_count: int | None = None) -> Self:
        """Make a map of rows; the tombstones among them are counted here unless told."""
        made: Self = _new(cls)
        made._entries = entries
        if tombstone_count is None:
            tombstone_count = _count_tombstones(entries)
        made._tombstone_count = tombstone_count
        made._digests = None
        made._pending = {}
        return made

    # Writes: pure, each returns its delta.

    def set(self, key: K, value: V, *, stamp: Stamp, sequence: int = 0) -> Self:
        """Return the delta that sets a key. O(size of key and value).

        Args:
            key: what `codec.check_key` takes.
            value: what `codec.encode_value` takes; frozen here.
            stamp: the write's place in the order, later than that of the entry held.
            sequence: the number of the write among its actor's, for transfers; 0 without one.

        Raises:
            InvalidTypeError: a key, value or stamp of a wrong type.
            InvalidValueError: a key or value that cannot be kept, or a stamp not later than
                that of the entry held: such a write would be lost without a word.
            LimitError: the key is over 1 KiB or the value over 256 KiB.
        """
        check_key(key)
        return self._write(key, encode_value(value), stamp, sequence)

    def remove(self, key: K, *, stamp: Stamp, sequence: int = 0) -> Self:
        """Return the delta that removes a key; arguments and errors as `set`. O(1).

        Raises:
            UnknownKeyError: the key has no value.
        """
        entry = self._entries.get(key)
        if entry is None or entry[4] is None:
            raise UnknownKeyError("key", key)
        return self._write(key, None, stamp, sequence)

    def _write(self, key: K, payload: bytes | None, stamp: Stamp, sequence: int) -> Self:
        check_stamp(stamp)
        if type(sequence) is not int or not 0 <= sequence <= COUNT_MAX:
            raise InvalidValueError(f"a sequence is 0 to {COUNT_MAX:,}, not {sequence!r}")
        name, count = stamp.actor[:8], 1
        held = self._entries.get(key)
        if held is not None:
            if stamp <= held[:3]:
                raise InvalidValueError(f"{stamp} is not later than {Stamp(*held[:3])}")
            count += count_of(held[5], name)
        delta: Self = _new(self.__class__)
        wall_ms, logical, actor = stamp
        changes = changes_by(name, count)
        delta._entries = {key: (wall_ms, logical, ActorId(actor), sequence, payload, changes)}
        delta._tombstone_count = 1 if payload is None else 0
        delta._digests = None
        delta._pending = {}
        return delta

    # Reads.

    @overload
    def get(self, key: K, default: None = None) -> V | None: ...

    @overload
    def get(self, key: K, default: T) -> V | T: ...

    def get(self, key: K, default: Any = None) -> V | Any:
        """Return a key's value, thawed afresh, or the default. O(size of the value)."""
        entry = self._entries.get(key)
        if entry is None or entry[4] is None:
            return default
        return decode_value(entry[4])

    def __getitem__(self, key: K) -> V:
        entry = self._entries.get(key)
        if entry is None or entry[4] is None:
            raise UnknownKeyError("key", key)
        return cast(V, decode_value(entry[4]))

    def __contains__(self, key: object) -> bool:
        entry = self._entries.get(cast(K, key))
        return entry is not None and entry[4] is not None

    def __len__(self) -> int:
        """Return the number of keys with a value. O(1)."""
        return len(self._entries) - self._tombstone_count

    def __iter__(self) -> Iterator[K]:
        return iter(self.keys())

    def keys(self) -> list[K]:
        """Return the keys with a value, in canonical order. O(n log n)."""
        entries = self._entries.items()
        return canonical_order(key for key, entry in entries if entry[4] is not None)

    def unordered_keys(self) -> list[K]:
        """Return the keys with a value, in no order that means anything. O(n)."""
        return [key for key, entry in self._entries.items() if entry[4] is not None]

    def touched_keys(self) -> list[K]:
        """Return all keys, removed ones too, in no order that means anything. O(n)."""
        return list(self._entries)

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield the keys and values in canonical order, thawed afresh. O(n log n)."""
        for key in self.keys():
            yield key, self[key]

    @property
    def value(self) -> dict[K, V]:
        """The whole map as a dict, thawed afresh. O(n log n)."""
        return dict(self.items())

    def entry(self, key: K) -> LWWEntry | None:
        """Return what is held for a key, tombstones included; None without. O(1)."""
        row = self._entries.get(key)
        return None if row is None else self._as_entry(key, row)

    def _as_entry(self, key: K, row: Row) -> LWWEntry:
        """Return a row as an entry, and hold that from now on: it is the same when asked again."""
        if type(row) is not LWWEntry:
            row = self._entries[key] = LWWEntry(*row)
        return row

    def entries(self) -> Iterator[tuple[K, LWWEntry]]:
        """Yield every key and entry in canonical order, tombstones included. O(n log n)."""
        for key in canonical_order(self._entries):
            yield key, self._as_entry(key, self._entries[key])

    def written_by(self, actors: Collection[ActorId]) -> Iterator[tuple[K, ActorId, int]]:
        """Yield key, actor and number of the entries of some writers, in no order. O(n)."""
        for key, row in self._entries.items():
            if row[2] in actors:
                yield key, row[2], row[3]

    def version(self, key: K) -> int:
        """Return how many changes a key has seen: 1 after the first, 0 when it never was.

        The same on every replica that has seen the same writes, and never less than it was
        until the key's tombstone is collected. O(writers of the key).
        """
        entry = self._entries.get(key)
        return 0 if entry is None else sum(count for _, count in entry[5])

    @property
    def tombstone_count(self) -> int:
        """How many removed keys are still held."""
        return self._tombstone_count

    def latest_stamp(self) -> Stamp | None:
        """Return the latest stamp inside, None without one. O(n)."""
        latest = max((entry[:3] for entry in self._entries.values()), default=NO_WRITE)
        return None if latest == NO_WRITE else Stamp(*latest)

    def restamp(self, change: Callable[[Stamp], Stamp]) -> Self:
        """Put every write under another stamp, in place; see `Restampable`. O(n)."""
        entries = self._entries
        for key, (wall_ms, logical, actor, sequence, payload, changes) in entries.items():
            if actor:
                stamp = Stamp(wall_ms, logical, actor)
                changed = change(stamp)
                if changed != stamp:
                    writer = ActorId(changed.actor)
                    row = (changed.wall_ms, changed.logical, writer, sequence, payload, changes)
                    entries[key] = row
                    if self._digests is not None:
                        self._pending[key] = None
        return self

    # The lattice.

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new. O(delta).

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
        """
        if delta.__class__ is not self.__class__:
            raise cannot_join(self, delta)
        entries = self._entries
        get = entries.get
        tombstones = self._tombstone_count
        fresh: dict[K, Row] = {}
        parts: dict[K, Row] = {}
        for key, theirs in delta._entries.items():
            mine = get(key)
            if mine is None:
                fresh[key] = theirs
            elif mine != theirs:
                part = new_in(theirs, mine)
                if part is not None:
                    parts[key] = part
                    joined = entries[key] = join_entries(mine, theirs)
                    tombstones += (joined[4] is None) - (mine[4] is None)
        entries.update(fresh)
        fresh_tombstones = _count_tombstones(fresh) if delta._tombstone_count else 0
        self._tombstone_count = tombstones + fresh_tombstones
        is_all_new = len(fresh) == len(delta._entries)
        fresh.update(parts)
        if self._digests is not None:
            self._pending.update(dict.fromkeys(fresh))
        if is_all_new:
            return delta
        return self._of(fresh, tombstone_count=fresh_tombstones + _count_tombstones(parts))

    def absorb_transfer(self, part: Self, *, covers: Callable[[ActorId, int], bool]) -> Self:
        """Join a part of a peer's whole state, and return what was new. O(part).

        An entry whose write this replica's clock covers, and whose key it does not hold, was
        seen here, removed, and its tombstone dropped: it is dead and stays so.

        Args:
            part: some of the peer's entries.
            covers: tells whether this replica has seen the write of that number.
        """
        known = self._entries

        def is_dead(key: K, row: Row) -> bool:
            if key in known:
                return False
            _, _, actor, sequence, _, _ = row
            return not actor or (sequence > 0 and covers(actor, sequence))

        alive = {key: row for key, row in part._entries.items() if not is_dead(key, row)}
        return self.absorb(part if len(alive) == len(part._entries) else self._of(alive))

    def collect(self, is_stable: Callable[[LWWEntry], bool]) -> int:
        """Drop the tombstones that are stable, and return how many. O(n).

        Not a join: only the owner, who knows what its peers have seen, may call it.
        """
        if not self._tombstone_count:
            return 0
        entries = self._entries
        removed = [(key, row) for key, row in entries.items() if row[4] is None]
        dead = [key for key, row in removed if is_stable(self._as_entry(key, row))]
        for key in dead:
            del entries[key]
        self._tombstone_count -= len(dead)
        if self._digests is not None:
            self._pending.update(dict.fromkeys(dead))
        return len(dead)

    def drop(self, keys: Iterable[K], /) -> int:
        """Drop entries, live ones too, and return how many. O(keys).

        Not a join: only the owner, who knows that their writes are dead, may call it.
        """
        entries = self._entries
        dropped = [key for key in keys if key in entries]
        for key in dropped:
            self._tombstone_count -= entries.pop(key)[4] is None
        if self._digests is not None:
            self._pending.update(dict.fromkeys(dropped))
        return len(dropped)

    def with_removals_by(self, actor: ActorId, *, sequence: int, unless: Self) -> Self:
        """Return this map with its removals made by another writer, at the times they have. O(n).

        For who takes over removals of a writer that nobody counts: no clock would ever tell that
        all have seen them, and their tombstones would stay for good.

        Args:
            actor: who makes them now.
            sequence: the number of that write among its actor's.
            unless: a removal that would not be later than what is held here stays as it is.
        """
        entries, held = dict(self._entries), unless._entries
        for key, (wall_ms, logical, _, _, payload, changes) in self._entries.items():
            row = (wall_ms, logical, actor, sequence, None, changes)
            if payload is None and (key not in held or held[key][:3] < row[:3]):
                entries[key] = row
        return self._of(entries, tombstone_count=self._tombstone_count)

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        joined = self._entries.copy()
        for key, theirs in other._entries.items():
            mine = joined.get(key)
            if mine is None:
                joined[key] = theirs
            elif mine != theirs:
                joined[key] = join_entries(mine, theirs)
        has_tombstones = self._tombstone_count or other._tombstone_count
        return self._of(joined, tombstone_count=None if has_tombstones else 0)

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        for key, mine in self._entries.items():
            theirs = other._entries.get(key)
            if theirs is None or (mine != theirs and new_in(mine, theirs) is not None):
                return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LWWMap):
            return NotImplemented
        return self._entries == other._entries

    def is_bottom(self) -> bool:
        """Tell whether nothing was ever written, as far as is held."""
        return not self._entries

    def decompose(self) -> Iterator[Self]:
        """Yield for each key the write alone, and each writer's count alone."""
        for key in canonical_order(self._entries):
            *write, changes = self._entries[key]
            if write[2]:
                yield self._of({key: cast(Row, (*write, ()))})
            for change in changes:
                yield self._of({key: counts_alone((change,))})

    def copy(self) -> Self:
        """Return an independent copy. O(n)."""
        other = self._of(self._entries.copy())
        if self._digests is not None:
            other._digests = self._digests.copy()
            other._pending = self._pending.copy()
        return other

    def copy_content(self) -> Self:
        """Return an independent copy that makes its digests anew when they are asked for.

        O(n), and some ten times quicker than `copy` where the digests are kept up.
        """
        return self._of(self._entries.copy(), tombstone_count=self._tombstone_count)

    # Digests and parts.

    def _current_digests(self) -> BucketDigests:
        if self._digests is None:
            self._digests = BucketDigests()
            changed: Iterable[K] = self._entries
        else:
            changed = self._pending
        for key in changed:
            self._digests.put(key, self._entries.get(key))
        self._pending = {}
        return self._digests

    def digest(self) -> int:
        """Hash the live content to 64 bits: keys, writes and values, without tombstones.

        O(changes since the last call), O(n) at first.
        """
        return self._current_digests().live

    def bucket_digests(self) -> tuple[int, ...]:
        """Return 256 digests over everything held, tombstones and counts included.

        O(changes since the last call), O(n) at first.
        """
        return self._current_digests().sums()

    def part(self, buckets: Collection[int]) -> Self:
        """Return the entries of some buckets, tombstones included. O(these entries)."""
        return self._of(dict(self._current_digests().entries(buckets)))

    def to_wire(self) -> Any:
        """Return the canonical tree, made by `meshlib.crdt.lww.wire`. O(n log n)."""
        return map_to_wire(self._entries)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a map that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: over a limit.
        """
        entries, tombstone_count = map_from_wire(wire)
        return cls._of(entries, tombstone_count=tombstone_count)

    def __repr__(self) -> str:
        return f"LWWMap({len(self)} keys, {self._tombstone_count} tombstones)"

    def _check(self) -> None:
        """Assert every invariant."""
        entries = self._entries
        assert self._tombstone_count == sum(row[4] is None for row in entries.values())
        for key, entry in ((key, LWWEntry(*row)) for key, row in entries.items()):
            assert entry.changes or entry.has_write, (key, entry)
            assert list(entry.changes) == sorted(dict(entry.changes).items()), (key, entry)
            assert all(count > 0 for _, count in entry.changes), (key, entry)
            assert entry.has_write or entry == counts_alone(entry.changes), (key, entry)
        if self._digests is not None:
            again = self._of(entries)
            assert self.bucket_digests() == again.bucket_digests()
            assert self.digest() == again.digest()


register("lww_map", LWWMap)
