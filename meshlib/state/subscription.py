"""Who wants to hear of changes drains them: nothing is called back.

A change says that something is different and not what it is now; the store says that. So changes
of one key that nobody has drained yet are one change, and a queue that is full can be replaced by
"read it all again" without a loss.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from meshlib.arguments import check_count
from meshlib.errors import InvalidValueError, check_several
from meshlib.limits import SUBSCRIPTION_QUEUE_MAX
from meshlib.state.records import StateChange, StoreName

__all__ = ["Subscription"]


def _store(name: StoreName) -> StoreName:
    try:
        return StoreName(name)
    except ValueError:
        known = ", ".join(StoreName)
        raise InvalidValueError(f"a store must be one of {known}, got {name!r}") from None


class Subscription:
    """A bounded queue of changes for one reader. Made by `MeshSyncManager.subscribe`.

    Args:
        stores: the stores to hear of.
        queue_max: keys that may wait, 1 to 65,536. When one more comes, what waits is replaced
            by one change without a key for each store.

    Raises:
        InvalidValueError: `queue_max` out of range, or no store.
        InvalidTypeError: one text in place of the stores, or a `queue_max` that is no integer.
    """

    __slots__ = ("_changes", "_queue_max", "_stores", "dropped_count", "is_closed")

    def __init__(
        self,
        *,
        stores: Collection[StoreName] = tuple(StoreName),
        queue_max: int = SUBSCRIPTION_QUEUE_MAX,
    ) -> None:
        check_count("queue_max", queue_max, least=1)
        if not 1 <= queue_max <= SUBSCRIPTION_QUEUE_MAX:
            raise InvalidValueError(
                f"queue_max must be from 1 to {SUBSCRIPTION_QUEUE_MAX:,}, got {queue_max}"
            )
        check_several("the stores", stores)
        self._stores = frozenset(_store(store) for store in stores)
        if not self._stores:
            raise InvalidValueError("a subscription needs a store to hear of")
        self._queue_max = queue_max
        self._changes: dict[tuple[StoreName, str | None], StateChange] = {}
        self.dropped_count = 0
        """Changes that were replaced by "read it all again"."""
        self.is_closed = False

    def __len__(self) -> int:
        """Return how many changes wait. O(1)."""
        return len(self._changes)

    def take(self) -> list[StateChange]:
        """Drain what waits, in the order in which the keys first changed. O(changes)."""
        changes = list(self._changes.values())
        self._changes.clear()
        return changes

    def close(self) -> None:
        """Hear of nothing any more; what waits is dropped. Closing again changes nothing."""
        self.is_closed = True
        self._changes.clear()

    def put(self, changes: Iterable[StateChange]) -> None:
        """Add changes; for the manager. O(changes)."""
        for change in changes:
            if self.is_closed or change.store not in self._stores:
                continue
            if (change.store, None) in self._changes:
                continue
            self._changes[(change.store, change.key)] = change
            if len(self._changes) > self._queue_max:
                self.dropped_count += len(self._changes)
                self.reset()

    def reset(self) -> None:
        """Replace what waits by one change without a key for each store; for the manager."""
        if not self.is_closed:
            self._changes = {
                (store, None): StateChange(store, None, False)
                for store in StoreName
                if store in self._stores
            }
