"""Runs: stretches of blocks that have the same holders, and how they are found and parted.

Rule: where a block is must live in this file. Each block is in exactly one run.

A run is a number; its blocks' bytes and its holders stand at that number in lists. It is found by
its first block, which is enough for chains that begin at the beginning. Blocks that come and go
one by one need to be found inside a run as well: the directory of all blocks is made when the
first of them comes, and kept from then on. Both are cut into shards, so that growing one does not
stop everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from meshlib.prefix.chains import BLOCK_BYTES, bytes_to_blocks
from meshlib.prefix.comparing import common_bytes

__all__ = ["SHARD_MASK", "Runs", "Stretch"]

SHARD_MASK: Final = 63

_SHARD_MIN: Final = 2048
"""How much one dictionary takes in before it is parted into shards."""

Shards = list[dict[int, int]]
"""Dictionaries by the low bits of a block; all of them one and the same in a small index."""


def _new_shards() -> Shards:
    """Return shards that are one dictionary. O(1): many an index holds one chain."""
    return [{}] * (SHARD_MASK + 1)


def _copy_shards(shards: Shards) -> Shards:
    """Return independent shards. O(n)."""
    if shards[0] is shards[1]:
        return [shards[0].copy()] * (SHARD_MASK + 1)
    return [shard.copy() for shard in shards]


def _items_of(shards: Shards) -> dict[int, int]:
    """Return what is in all shards. O(n)."""
    return {block: run for shard in shards for block, run in shard.items()}


def _part(shards: Shards) -> None:
    """Make of one dictionary that has grown one for each shard. O(n), n a few thousand."""
    whole = shards[0]
    shards[:] = [{} for _ in shards]
    for block, run in whole.items():
        shards[block & SHARD_MASK][block] = run


Stretch = tuple[int, int, int]
"""A run, the byte at which a stretch begins in it, and how many bytes it is long."""


class Runs:
    """The columns of an index: for each run its blocks, and its holders with their accesses."""

    __slots__ = ("directory", "free", "heads", "holders", "named", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.holders: list[dict[int, int]] = []
        self.heads = _new_shards()
        self.directory: Shards | None = None
        self.named: dict[int, tuple[str, ...]] = {}
        self.free: list[int] = []

    def copy(self) -> Runs:
        """Return independent columns; the pieces' bytes are shared. O(runs, or blocks)."""
        twin = Runs()
        twin.pieces = self.pieces.copy()
        twin.holders = [dict(held) for held in self.holders]
        twin.heads = _copy_shards(self.heads)
        if self.directory is not None:
            twin.directory = _copy_shards(self.directory)
        twin.free = self.free.copy()
        return twin

    def copy_content(self) -> Runs:
        """Return a `copy` in which no block can be found. O(runs)."""
        twin = Runs()
        twin.pieces = self.pieces.copy()
        twin.holders = [held.copy() for held in self.holders]
        return twin

    # Finding

    def access(self, run: int, tenant: int) -> int:
        """Return when a tenant used a run last, or -1 when it does not hold it. O(1)."""
        return self.holders[run].get(tenant, -1)

    def names(self, run: int, names: list[str]) -> tuple[str, ...]:
        """Return the names of those that hold a run, sorted. O(1) if asked before."""
        found = self.named.get(run)
        if found is None:
            found = tuple(sorted([names[tenant] for tenant in self.holders[run]]))
            self.named[run] = found
        return found

    @property
    def has_directory(self) -> bool:
        """Tell whether it is kept where each block is. O(1)."""
        return self.directory is not None

    def make_directory(self) -> Shards:
        """Return where each block is. O(blocks) at first, O(1) from then on."""
        if self.directory is None:
            self.directory = _new_shards()
            for run, piece in enumerate(self.pieces):
                self._register(run, bytes_to_blocks(piece))
        return self.directory

    def find(self, block: int) -> tuple[int, int] | None:
        """Return the run that a block is in, and the byte at which it stands. O(1) or O(run)."""
        shards = self.heads if self.directory is None else self.directory
        run = shards[block & SHARD_MASK].get(block)
        if run is None:
            return None
        return run, self._offset(run, block.to_bytes(BLOCK_BYTES, "big"))

    def runs_of(self, blocks: Sequence[int]) -> list[int | None]:
        """Return the run of each block, None where it is in none. O(blocks) and more at first."""
        shards = self.directory or self.make_directory()
        return [shards[block & SHARD_MASK].get(block) for block in blocks]

    def _offset(self, run: int, block: bytes) -> int:
        at = self.pieces[run].find(block)
        while at % BLOCK_BYTES:
            at = self.pieces[run].find(block, at + 1)
        return at

    def stretches(self, blocks: Sequence[int], data: bytes) -> Iterator[tuple[Stretch | None, int]]:
        """Cut blocks into what is together in one run, and what is in none.

        Yields:
            The stretch, or None for blocks that are unknown, and the byte of `data` behind it.
            What was yielded may be parted or added before the next is asked for.
        """
        at = 0
        while at < len(data):
            found = self.find(blocks[at // BLOCK_BYTES])
            if found is None:
                at += BLOCK_BYTES
                while at < len(data) and self.find(blocks[at // BLOCK_BYTES]) is None:
                    at += BLOCK_BYTES
                yield None, at
                continue
            run, offset = found
            piece = self.pieces[run]
            common = common_bytes(piece[offset:] if offset else piece, data, at)
            common -= common % BLOCK_BYTES
            at += common
            yield (run, offset, common), at

    # Changing

    def add(self, head: int, piece: bytes, holders: dict[int, int] | None = None) -> int:
        """Make a run of blocks that are in none. O(1), or O(blocks) with the directory."""
        if self.free:
            run = self.free.pop()
            self.pieces[run] = piece
            self.holders[run] = {} if holders is None else holders
        else:
            run = len(self.pieces)
            self.pieces.append(piece)
            self.holders.append({} if holders is None else holders)
        shard = self.heads[head & SHARD_MASK]
        shard[head] = run
        if len(shard) > _SHARD_MIN and shard is self.heads[0] is self.heads[1]:
            _part(self.heads)
        if self.directory is not None:
            self._register(run, bytes_to_blocks(piece))
        return run

    def extend(self, run: int, block: int) -> None:
        """Put one more block, that is in no run, at the end of a run. O(run)."""
        self.pieces[run] += block.to_bytes(BLOCK_BYTES, "big")
        if self.directory is not None:
            shard = self.directory[block & SHARD_MASK]
            shard[block] = run
            if len(shard) > _SHARD_MIN and shard is self.directory[0] is self.directory[1]:
                _part(self.directory)

    def split(self, run: int, at: int) -> int:
        """Part a run at a byte; return the part behind. O(run + its holders)."""
        piece = self.pieces[run]
        self.pieces[run] = piece[:at]
        behind = piece[at:]
        head = int.from_bytes(behind[:BLOCK_BYTES], "big")
        return self.add(head, behind, dict(self.holders[run]))

    def join(self, run: int, other: int) -> None:
        """Put the blocks of another run, which ends by it, at the end of a run. O(both)."""
        piece = self.pieces[other]
        self.discard(other)
        self.holders[other] = {}
        self.pieces[run] += piece
        if self.directory is not None:
            self._register(run, bytes_to_blocks(piece))

    def discard(self, run: int) -> None:
        """Forget a run that nobody holds. O(1), or O(blocks) with the directory."""
        piece = self.pieces[run]
        head = int.from_bytes(piece[:BLOCK_BYTES], "big")
        del self.heads[head & SHARD_MASK][head]
        if self.directory is not None:
            for block in bytes_to_blocks(piece):
                del self.directory[block & SHARD_MASK][block]
        self.pieces[run] = b""
        self.named.pop(run, None)
        self.free.append(run)

    def _register(self, run: int, blocks: Sequence[int]) -> None:
        assert self.directory is not None
        first, second = self.directory[:2]
        if first is second:
            first.update(dict.fromkeys(blocks, run))
            if len(first) > _SHARD_MIN:
                _part(self.directory)
            return
        for block in blocks:
            self.directory[block & SHARD_MASK][block] = run

    def check(self) -> None:
        """Assert what must hold of each run. O(blocks)."""
        seen: dict[int, int] = {}
        for run, piece in enumerate(self.pieces):
            assert bool(piece) == bool(self.holders[run]) == (run not in self.free), run
            assert len(piece) % BLOCK_BYTES == 0, run
            for block in bytes_to_blocks(piece):
                assert block not in seen, (block, run, seen[block])
                seen[block] = run
        assert _items_of(self.heads) == {
            bytes_to_blocks(piece)[0]: run for run, piece in enumerate(self.pieces) if piece
        }
        if self.directory is not None:
            assert _items_of(self.directory) == seen
