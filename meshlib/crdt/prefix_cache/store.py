"""What a prefix cache asks of the index that stores its entries."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple, Protocol, Self, TypeVar

from meshlib.prefix import Placement

__all__ = ["ORIGIN", "Generation", "PrefixStore"]

KeyT = TypeVar("KeyT")


class Generation(NamedTuple):
    """What is known of a tenant beside its entries.

    Args:
        epoch: how often it was removed.
        floor: the access at and under which its entries are gone.
    """

    epoch: int
    floor: int


ORIGIN: Final = Generation(0, 0)


class PrefixStore(Protocol[KeyT]):
    """Where the entries are: what `RadixTree` and `BlockIndex` have in common."""

    @property
    def size(self) -> int:
        """How much is held, in the unit of the store's limit."""
        ...

    def __len__(self) -> int:
        """Count the entries of all tenants."""
        ...

    def entry_count(self, tenant: str) -> int:
        """Count the entries of a tenant."""
        ...

    def tenants(self) -> tuple[str, ...]:
        """Return the tenants that have entries, sorted."""
        ...

    def access(self, key: KeyT, /, *, tenant: str) -> int | None:
        """Return the last access of an entry."""
        ...

    def place(self, key: KeyT, /, *, tenant: str, access: int) -> Placement:
        """Insert an entry or raise its access, and tell what was there."""
        ...

    def entries(
        self, tenant: str, *, buckets: Collection[int] | None = None
    ) -> Iterator[tuple[KeyT, int]]:
        """Yield the (key, access) pairs of a tenant, of some buckets or of all."""
        ...

    def entry_hashes(self, tenant: str) -> Iterator[tuple[int, int]]:
        """Yield the (hash of the key, access) pairs of a tenant."""
        ...

    def oldest_access(self, tenant: str) -> int | None:
        """Return the lowest access of a tenant."""
        ...

    def oldest_tenant(self) -> tuple[str, int] | None:
        """Return the tenant that has the lowest access of all, and that access."""
        ...

    def floor_for(self, size_max: int) -> int:
        """Return the lowest floor that leaves a size."""
        ...

    def evict(self, tenant: str, *, floor: int) -> list[tuple[int, int]]:
        """Drop what is at or under a floor; return the (hash, access) pairs."""
        ...

    def remove_tenant(self, tenant: str) -> int:
        """Drop a tenant."""
        ...

    def copy(self) -> Self:
        """Return an independent copy."""
        ...

    def copy_content(self) -> Self:
        """Return a copy that has the same entries and can be asked for nothing else."""
        ...

    def _check(self) -> None: ...
