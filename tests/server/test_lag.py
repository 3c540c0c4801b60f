"""The watchdog of the event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from types import SimpleNamespace

import pytest

from meshlib.errors import ConfigError
from meshlib_server.lag import HELD_S, EventLoop, LoopLag, new_watched_loop


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


def test_a_turn_that_works_is_told_from_one_that_is_let_wait() -> None:
    """By the processor time of its thread: only the first is the program's own doing."""
    lag = LoopLag()

    async def hold(*, by_work: bool) -> None:
        await asyncio.sleep(0)
        if by_work:
            end = time.thread_time() + 2 * HELD_S
            while time.thread_time() < end:
                pass
        else:
            time.sleep(2 * HELD_S)  # noqa: ASYNC251 - the thing that must not be
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: new_watched_loop(lag)) as runner:
        runner.run(hold(by_work=False))
        starved = lag.starved_count
        runner.run(hold(by_work=True))

    assert starved >= 1
    assert lag.held_count > lag.starved_count
    assert lag.held_cpu_max_s >= 2 * HELD_S


def test_waiting_is_not_counted() -> None:
    """A loop that sleeps holds nobody up."""
    lag = LoopLag()

    with asyncio.Runner(loop_factory=lambda: new_watched_loop(lag)) as runner:
        runner.run(asyncio.sleep(0.2))

    assert lag.turns >= 1
    assert lag.busy_s < 0.2


def have_uvloop(monkeypatch: pytest.MonkeyPatch, *, is_there: bool) -> None:
    """Have a loop of asyncio's under the name of the other, or none."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object() if is_there else None)
    stand_in = SimpleNamespace(new_event_loop=asyncio.SelectorEventLoop)
    monkeypatch.setitem(sys.modules, "uvloop", stand_in)


@pytest.mark.parametrize("kind", [EventLoop.AUTO, EventLoop.UVLOOP])
def test_another_loop_is_taken_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, kind: EventLoop
) -> None:
    """What holds it is counted there too: a timer is late."""
    have_uvloop(monkeypatch, is_there=True)
    lag = LoopLag()

    async def hold() -> None:
        await asyncio.sleep(0)
        time.sleep(4 * HELD_S)  # noqa: ASYNC251 - the thing that must not be
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: new_watched_loop(lag, kind=kind)) as runner:
        runner.run(hold())

    assert 0 == lag.turns
    assert lag.held_count >= 1
    assert lag.starved_count >= 1
    assert lag.held_max_s >= 2 * HELD_S


def test_a_loop_that_is_not_installed_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for it by name is told so."""
    have_uvloop(monkeypatch, is_there=False)
    loop = new_watched_loop(LoopLag(), kind=EventLoop.AUTO)
    loop.close()
    with pytest.raises(ConfigError, match="uvloop is not installed"):
        new_watched_loop(LoopLag(), kind=EventLoop.UVLOOP)

    assert isinstance(loop, asyncio.SelectorEventLoop)


def test_asyncio_s_own_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another is installed."""
    have_uvloop(monkeypatch, is_there=True)
    lag = LoopLag()
    with asyncio.Runner(
        loop_factory=lambda: new_watched_loop(lag, kind=EventLoop.ASYNCIO)
    ) as runner:
        runner.run(asyncio.sleep(0))

    assert lag.turns >= 1
