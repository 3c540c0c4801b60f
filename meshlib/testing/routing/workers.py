"""A simulated inference worker: one queue, a prefill that takes time, a cache of blocks.

What a worker does is the simplest thing that shows what routing is about. Requests are prefilled
one after the other; what of a prompt is cached costs nothing; decoding goes on beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from meshlib.testing.routing.trace import BLOCK_TOKENS, TraceRequest

__all__ = ["PREFILL_S_PER_TOKEN", "BlockCache", "Service", "SimulatedWorker"]

PREFILL_S_PER_TOKEN: Final = 0.00005
"""Seconds to prefill one token: 20,000 tokens a second."""

DECODE_S_PER_TOKEN: Final = 0.015
"""Seconds from one token of an answer to the next."""


class BlockCache:
    """The least recently used blocks go first.

    Args:
        blocks_max: how many there is room for.
    """

    __slots__ = ("_blocks", "_blocks_max")

    def __init__(self, blocks_max: int) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._blocks_max = blocks_max

    def take(self, blocks: Sequence[int]) -> int:
        """Return how many blocks at the beginning are cached, and cache them all. O(blocks)."""
        cache = self._blocks
        hits = 0
        for block in blocks:
            if block not in cache:
                break
            hits += 1
        for block in reversed(blocks):  # the end of a prompt goes before its beginning
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > self._blocks_max:
            cache.popitem(last=False)
        return hits

    def clear(self) -> None:
        """Forget all: the worker has restarted."""
        self._blocks.clear()


@define(slots=True, kw_only=True)
class Service:
    """When a request was served, in seconds, and how much of its prompt was cached.

    Args:
        first_token_at: its prefill is over.
        ends_at: its answer is.
        cached_tokens: tokens of the prompt that were not prefilled.
        prefill_s: what the others were.
    """

    first_token_at: float
    ends_at: float
    cached_tokens: int
    prefill_s: float


@define(slots=True, eq=False)
class SimulatedWorker:
    """One worker.

    Args:
        worker_id: its name.
        blocks_max: blocks of its cache.
        slowness: how many times as long as others it takes to prefill.
    """

    worker_id: str
    blocks_max: int
    slowness: float = 1.0
    work_s: float = 0.0
    free_at: float = 0.0
    in_flight: int = 0
    cache: BlockCache = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with an empty cache."""
        self.cache = BlockCache(self.blocks_max)

    def serve(self, request: TraceRequest, now: float) -> Service:
        """Take a request behind all others; the caller counts it in and out of `in_flight`."""
        hits = self.cache.take(request.blocks)
        # The last token is always computed: it makes the first of the answer.
        cached_tokens = min(hits * BLOCK_TOKENS, request.input_tokens - 1)
        prefill_s = (request.input_tokens - cached_tokens) * PREFILL_S_PER_TOKEN * self.slowness
        self.free_at = max(now, self.free_at) + prefill_s
        self.work_s += prefill_s
        return Service(
            first_token_at=self.free_at,
            ends_at=self.free_at + request.output_tokens * DECODE_S_PER_TOKEN,
            cached_tokens=cached_tokens,
            prefill_s=prefill_s,
        )
