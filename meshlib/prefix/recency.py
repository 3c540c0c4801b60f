"""Least recently used first, for stamps that may arrive in any order.

Rule: the order in which one tenant's entries are evicted must live in this file. A record in the
heap is a lower bound: accesses only rise, so a touch changes nothing here, and a record that has
fallen behind is moved when it reaches the top.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

__all__ = ["Recency"]

ItemT = TypeVar("ItemT")

_GARBAGE_MIN = 64


class Recency(Generic[ItemT]):
    """The items of one tenant by last access, oldest first, ties in the order they came in.

    Built for accesses that only rise while an item is kept: raising one costs nothing. Taking
    out k items costs O((k + touched since) log n).

    Args:
        access_of: returns the current access of an item, or None when it is not kept any more.
    """

    __slots__ = ("_access_of", "_heap", "_serial", "count")

    def __init__(self, access_of: Callable[[ItemT], int | None]) -> None:
        self._access_of = access_of
        self._heap: list[tuple[int, int, ItemT]] = []
        self._serial = 0
        self.count = 0
        """How many items are kept."""

    def add(self, item: ItemT, *, access: int) -> None:
        """Take in an item that was not kept before. O(1) for the newest access, else O(log n)."""
        self.count += 1
        self._serial += 1
        heapq.heappush(self._heap, (access, self._serial, item))

    def discard(self) -> None:
        """Note that one item is not kept any more; `access_of` says which. Amortised O(1)."""
        self.count -= 1
        if len(self._heap) > 2 * self.count + _GARBAGE_MIN:
            records = self._live_records()
            heapq.heapify(records)
            self._heap = records

    def oldest(self) -> tuple[ItemT, int] | None:
        """Return the item of the lowest access, and that access. Amortised O(log n)."""
        heap = self._heap
        while heap:
            access, serial, item = heap[0]
            current = self._access_of(item)
            if current == access:
                return item, access
            if current is None or current < access:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (current, serial, item))
        return None

    def take_up_to(self, floor: int) -> Iterator[tuple[ItemT, int]]:
        """Yield each item whose access is at or under `floor`, oldest first, and forget it.

        The caller must drop what is yielded before it asks for the next.
        """
        while (found := self.oldest()) is not None and found[1] <= floor:
            heapq.heappop(self._heap)
            self.count -= 1
            yield found

    def items(self) -> list[ItemT]:
        """Return the items that are kept, in no particular order. O(n)."""
        return [item for _, _, item in self._live_records()]

    def copy_from(self, other: Recency[ItemT], moved: Mapping[ItemT, ItemT] | None = None) -> None:
        """Take over the order of another one, whose items may be `moved` here. O(n)."""
        records = other._live_records()
        if moved is not None:
            records = [(access, serial, moved[item]) for access, serial, item in records]
        heapq.heapify(records)
        self._heap = records
        self._serial = other._serial
        self.count = other.count

    def _live_records(self) -> list[tuple[int, int, ItemT]]:
        records: dict[ItemT, tuple[int, int, ItemT]] = {}
        for access, serial, item in self._heap:
            current = self._access_of(item)
            if current is None:
                continue
            known = records.get(item)
            bound = min(access, current)
            if known is None or serial < known[1]:
                records[item] = (bound, serial, item)
        return list(records.values())

    def _check(self) -> None:
        records = self._live_records()
        assert len(records) == self.count, (len(records), self.count)
        bounds: dict[ItemT, int] = {}
        for access, _, item in self._heap:
            bounds[item] = min(access, bounds.get(item, access))
        for _, _, item in records:
            current = self._access_of(item)
            assert current is not None, item
            assert bounds[item] <= current, (bounds[item], current)
