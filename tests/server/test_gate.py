"""Who may be connected, who goes to make room, and what the descriptors allow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from meshlib.errors import ConfigError
from meshlib_server.http import HttpSettings, share_descriptors
from meshlib_server.http.gate import EXPIRED_AT_ONCE, Gate, Stage


class FakeConnection:
    """Remembers what was done to it."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.told: list[str] = []

    def expire(self, stage: Stage) -> None:
        self.told.append(stage.name)
        self.gate.leave(self)

    def abort(self) -> None:
        self.told.append("abort")

    def begin_draining(self) -> None:
        self.told.append("drain")


async def until_told(connection: FakeConnection) -> None:
    """Wait until something was done to a connection."""
    async with asyncio.timeout(10):
        while not connection.told:  # noqa: ASYNC110 - the gate knows of no event
            await asyncio.sleep(0.01)


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    """Run something that needs a running loop."""

    async def run() -> None:
        await work()

    asyncio.run(run())


def entered(gate: Gate, stage: Stage, host: str = "a") -> FakeConnection:
    """Return a connection that came in and does something."""
    connection = FakeConnection(gate)
    assert gate.make_room(host)
    gate.enter(connection, host)
    gate.move(connection, stage)
    return connection


@pytest.mark.parametrize("descriptors", [64, 256, 1024, 65_536, 1 << 20])
def test_callers_leave_descriptors_for_gossip(descriptors: int) -> None:
    """Accepted and dialled peers, and the process itself, find room beside them."""
    shares = share_descriptors(4096, descriptors=descriptors)

    assert shares.callers >= 1
    assert shares.peers >= 1
    if descriptors >= 256:
        assert shares.callers + 2 * shares.peers + 128 <= descriptors


def test_callers_get_no_more_than_is_wanted() -> None:
    """However much there is."""
    assert 4096 == share_descriptors(4096, descriptors=1 << 20).callers


def test_room_is_made_by_who_has_done_nothing_first() -> None:
    """Silent ones, slow heads, those that are being closed, idle ones; never a request."""

    async def work() -> None:
        gate = Gate(HttpSettings(), connections_max=5)
        answering = entered(gate, Stage.ANSWERING)
        order = [
            entered(gate, stage)
            for stage in (Stage.IDLE, Stage.LINGERING, Stage.HEAD, Stage.OPENING)
        ][::-1]
        for connection in order:
            assert [] == connection.told
            entered(gate, Stage.BODY)
            assert ["abort"] == connection.told

        assert not gate.make_room("a")
        assert [] == answering.told
        assert (4, 1) == (gate.counters.evicted, gate.counters.refused)
        gate.close()

    in_loop(work)


def test_the_oldest_of_a_stage_goes_first() -> None:
    """What it does now counts, and not when it came."""

    async def work() -> None:
        gate = Gate(HttpSettings(), connections_max=2)
        came_first, came_second = entered(gate, Stage.IDLE), entered(gate, Stage.IDLE)
        gate.move(came_first, Stage.ANSWERING)
        gate.move(came_first, Stage.IDLE)

        entered(gate, Stage.OPENING)

        assert ([], ["abort"]) == (came_first.told, came_second.told)
        gate.close()

    in_loop(work)


def test_one_address_may_have_no_more_than_its_share() -> None:
    """When that is wanted; who goes makes room for another of the same address."""

    async def work() -> None:
        gate = Gate(HttpSettings(connections_per_address_max=1), connections_max=9)
        first = entered(gate, Stage.IDLE, "a")

        assert not gate.make_room("a")
        assert gate.make_room("b")
        gate.leave(first)
        gate.leave(first)
        assert gate.make_room("a")
        gate.close()

    in_loop(work)


@pytest.mark.parametrize("stage", [Stage.OPENING, Stage.HEAD, Stage.BODY, Stage.IDLE])
def test_what_lasts_too_long_expires(stage: Stage) -> None:
    """In each stage in which somebody else is waited for."""

    async def work() -> None:
        quick = HttpSettings(head_timeout_s=0.01, body_timeout_s=0.01, idle_timeout_s=0.01)
        gate = Gate(quick, connections_max=9)
        connection, busy = entered(gate, stage), entered(gate, Stage.ANSWERING)
        await until_told(connection)

        assert [stage.name] == connection.told
        assert [] == busy.told
        gate.close()

    in_loop(work)


def test_thousands_that_last_too_long_expire_a_few_at_a_time() -> None:
    """In one turn of the loop no more than so many are closed; and all of them soon."""

    async def work() -> None:
        count = 3 * EXPIRED_AT_ONCE
        gate = Gate(HttpSettings(head_timeout_s=0.01), connections_max=count + 1)
        waiting = [entered(gate, Stage.OPENING) for _ in range(count)]
        left = [count]
        while left[-1]:
            await asyncio.sleep(0)
            left.append(sum(not connection.told for connection in waiting))

        assert EXPIRED_AT_ONCE == max(before - after for before, after in pairwise(left))
        assert 0 == len(gate)
        gate.close()

    in_loop(work)


def test_who_does_not_read_its_answer_is_closed() -> None:
    """It would be kept for ever."""

    async def work() -> None:
        gate = Gate(HttpSettings(body_timeout_s=0.01), connections_max=9)
        stalled, reading = entered(gate, Stage.ANSWERING), entered(gate, Stage.ANSWERING)
        gate.stall(stalled, is_stalled=True)
        gate.stall(reading, is_stalled=True)
        gate.stall(reading, is_stalled=False)
        await until_told(stalled)

        assert (["abort"], []) == (stalled.told, reading.told)
        assert 1 == len(gate)
        gate.close()

    in_loop(work)


@pytest.mark.parametrize("name", ["connections_max", "head_timeout_s", "body_timeout_s"])
def test_settings_that_grant_nothing_are_refused(name: str) -> None:
    """A server that nobody can speak to is a mistake."""
    with pytest.raises(ConfigError, match=name):
        HttpSettings(**{name: 0})
