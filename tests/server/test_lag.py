"""The watchdog of the event loop."""

from __future__ import annotations

import asyncio
import time

from meshlib_server.lag import HELD_S, LoopLag, new_watched_loop


def test_a_turn_that_holds_the_loop_is_counted_with_its_length() -> None:
    """However short the loop slept before it and after it."""
    lag = LoopLag()

    async def hold() -> None:
        await asyncio.sleep(0)
        time.sleep(2 * HELD_S)  # noqa: ASYNC251 - the thing that must not be
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: new_watched_loop(lag)) as runner:
        runner.run(hold())

    assert lag.held_count >= 1
    assert lag.held_max_s >= 2 * HELD_S
    assert lag.busy_s >= lag.held_max_s


def test_waiting_is_not_counted() -> None:
    """A loop that sleeps holds nobody up."""
    lag = LoopLag()

    with asyncio.Runner(loop_factory=lambda: new_watched_loop(lag)) as runner:
        runner.run(asyncio.sleep(0.2))

    assert lag.turns >= 1
    assert lag.busy_s < 0.2
