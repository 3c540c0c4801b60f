"""The collector leaves alone what is old, and only that."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from meshlib_server.lag import PAUSE_S, Freezer, collect_often


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    """Leave the collector as it was found."""
    yield
    gc.unfreeze()
    gc.enable()


class Clock:
    def __init__(self) -> None:
        self.step_s = 0.0
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


def test_what_is_alive_at_the_start_is_frozen_until_the_end() -> None:
    """Modules and settings are looked at no more."""
    before = gc.get_freeze_count()
    with Freezer() as freezer:
        inside = gc.get_freeze_count()
        assert freezer.count == 1
    assert before < inside
    assert gc.get_freeze_count() == 0


def test_a_long_collection_freezes_what_has_come_to_stay() -> None:
    """And a short one, or one of the young alone, does not."""
    clock = Clock()
    with Freezer(seconds=clock) as freezer:
        kept = [[number] for number in range(1000)]
        gc.collect()
        clock.step_s = 2 * PAUSE_S
        gc.collect(1)
        assert freezer.count == 1
        frozen = gc.get_freeze_count()
        gc.collect()
        assert freezer.count == 2
        assert gc.get_freeze_count() >= frozen + len(kept)


def test_nothing_is_watched_afterwards() -> None:
    """An application that ran a server in itself has its own collector back."""
    callbacks = list(gc.callbacks)
    with Freezer():
        assert len(gc.callbacks) == len(callbacks) + 1
    assert gc.callbacks == callbacks


def test_what_is_no_container_is_frozen_as_well_while_it_is_little() -> None:
    """Texts come to stay, and the interpreter sees no reason to collect: the clock does."""
    clock, texts = Clock(), list[bytes]()
    counts = list[int]()

    async def run() -> None:
        collecting = asyncio.create_task(collect_often(each_s=0.0))
        while freezer.count < 4:
            texts.append(b"%d" % len(texts))
            counts.append(freezer.count)
            await asyncio.sleep(0)
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        frozen = freezer.count
        await asyncio.sleep(0)
        assert frozen == freezer.count, "it goes on after its end"

    with Freezer(seconds=clock) as freezer:
        clock.step_s = 2 * PAUSE_S
        gc.disable()  # from here on only who asks for a collection gets one
        asyncio.run(run())
    assert sorted(set(counts)) == [1, 2, 3]
