"""Least recently used first, for stamps that may arrive in any order.

Rule: the order in which entries are evicted, those of one tenant and those of all, must live in
this file. A record in a heap is a lower bound: accesses only rise, so a touch changes nothing
here, and a record that has fallen behind is moved when it reaches the top.

A record is one integer: the access, then a serial number, then the item. It is compared in C,
takes 48 bytes and is nothing that the garbage collector follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

__all__ = ["NEVER", "Eldest", "Recency"]

NEVER: Final = 1 << 63
"""The oldest access of nobody: above every access."""

_GARBAGE_MIN: Final = 64
_ITEM_BITS: Final = 32
_ITEM_MASK: Final = (1 << _ITEM_BITS) - 1
ACCESS_SHIFT: Final = 80
_LOW_MASK: Final = (1 << ACCESS_SHIFT) - 1
STEP: Final = 1 << _ITEM_BITS
"""One more in the serial number: 48 bits, which last nine years at a million a second."""


class Recency:
    """The items of one tenant by last access, oldest first, ties in the order they came in.

    Built for accesses that only rise while an item is kept: raising one costs nothing. Taking
    out k items costs O((k + touched since) log n).

    Args:
        access_of: returns the current access of an item, or -1 when it is not kept any more.
    """

    __slots__ = ("_access_of", "bound", "count", "heap", "order")

    def __init__(self, access_of: Callable[[int], int]) -> None:
        self._access_of = access_of
        self.heap: list[int] = []
        self.order = 0
        self.count = 0
        """How many items are kept."""
        self.bound = NEVER
        """At or under the lowest access: what `Eldest` has recorded of this tenant."""

    def add(self, item: int, access: int) -> None:
        """Take in an item, 0 to 2**32 - 1. O(1) for the newest access, else O(log n)."""
        self.count += 1
        self.order = order = self.order + STEP
        heappush(self.heap, (access << ACCESS_SHIFT) + order + item)

    def discard(self) -> None:
        """Note that one item is not kept any more; `access_of` says which. Amortised O(1)."""
        self.count -= 1
        if len(self.heap) > 2 * self.count + _GARBAGE_MIN:
            records = self._live_records()
            heapify(records)
            self.heap = records

    def oldest(self) -> tuple[int, int] | None:
        """Return the item of the lowest access, and that access. Amortised O(log n)."""
        heap = self.heap
        while heap:
            record = heap[0]
            item, access = record & _ITEM_MASK, record >> ACCESS_SHIFT
            current = self._access_of(item)
            if current == access:
                return item, access
            if current < access:
                heappop(heap)
            else:
                heapreplace(heap, (current << ACCESS_SHIFT) + (record & _LOW_MASK))
        return None

    def take_up_to(self, floor: int) -> Iterator[tuple[int, int]]:
        """Yield each item whose access is at or under `floor`, oldest first, and forget it.

        The caller must drop what is yielded before it asks for the next.
        """
        while (found := self.oldest()) is not None and found[1] <= floor:
            heappop(self.heap)
            self.count -= 1
            yield found

    def items(self) -> list[int]:
        """Return the items that are kept, those added first coming first as a rule. O(n)."""
        return [record & _ITEM_MASK for record in self._live_records()]

    def copy_from(self, other: Recency) -> None:
        """Take over the items of another one and their order. O(n)."""
        self.heap = other.heap.copy()
        self.order = other.order
        self.count = other.count
        self.bound = other.bound

    def _live_records(self) -> list[int]:
        """Return one record for each item: the one that came first of those that count."""
        records: dict[int, int] = {}
        for record in self.heap:
            item = record & _ITEM_MASK
            current = self._access_of(item)
            if current < 0:
                continue
            if current < record >> ACCESS_SHIFT:
                record = (current << ACCESS_SHIFT) + (record & _LOW_MASK)
            known = records.get(item)
            if known is None or record & _LOW_MASK < known & _LOW_MASK:
                records[item] = record
        return list(records.values())

    def _check(self) -> None:
        records = self._live_records()
        assert len(records) == self.count, (len(records), self.count)
        bounds: dict[int, int] = {}
        for record in self.heap:
            item, access = record & _ITEM_MASK, record >> ACCESS_SHIFT
            bounds[item] = min(access, bounds.get(item, access))
        for record in records:
            item = record & _ITEM_MASK
            current = self._access_of(item)
            assert bounds[item] <= current, (item, bounds[item], current)
            assert self.bound <= current, (item, self.bound, current)


class Eldest:
    """The tenants by their oldest access: who has the oldest entry of all.

    A tenant has one record that counts, the one of its `Recency.bound`; it is at or under what
    the tenant's oldest entry has, and is set right when it reaches the top. So the oldest entry
    is found without asking the other tenants.

    Args:
        recency_of: returns the order of a tenant's items, or None when it has none.
    """

    __slots__ = ("_recency_of", "heap")

    def __init__(self, recency_of: Callable[[str], Recency | None]) -> None:
        self._recency_of = recency_of
        self.heap: list[tuple[int, str]] = []

    def lower(self, tenant: str, recency: Recency, *, access: int, tenant_count: int) -> None:
        """Note that a tenant has an entry older than its bound. O(log t) amortised."""
        recency.bound = access
        heappush(self.heap, (access, tenant))
        if len(self.heap) > 2 * tenant_count + _GARBAGE_MIN:
            self.heap = list({record for record in self.heap if self._counts(record)})
            heapify(self.heap)

    def oldest(self) -> tuple[str, int, int] | None:
        """Return the tenant of the lowest access, its item and that access.

        Ties go to the smaller tenant. Amortised O(log t + log n) for t tenants of n items.
        """
        heap = self.heap
        while heap:
            access, tenant = heap[0]
            recency = self._recency_of(tenant)
            found = None if recency is None or recency.bound != access else recency.oldest()
            if recency is None or found is None:
                heappop(heap)
            elif found[1] == access:
                return tenant, *found
            else:
                recency.bound = found[1]
                heapreplace(heap, (found[1], tenant))
        return None

    def copy_from(self, other: Eldest) -> None:
        """Take over the records of another one. O(t)."""
        self.heap = other.heap.copy()

    def _counts(self, record: tuple[int, str]) -> bool:
        recency = self._recency_of(record[1])
        return recency is not None and recency.bound == record[0]

    def _check(self, tenants: tuple[str, ...]) -> None:
        counted = {tenant for access, tenant in self.heap if self._counts((access, tenant))}
        assert counted == set(tenants), (counted, tenants)
