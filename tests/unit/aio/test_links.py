"""Outgoing links over connections that the test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Protocol

import pytest
from support.transports import Eventually

from meshlib.aio import LinkConfig, LinkFailure, LinkFault, OutgoingLinks, TransportCounters
from meshlib.errors import ConfigError

pytestmark = pytest.mark.anyio


class FakeConnection:
    """A connection that keeps what is written, and stalls or breaks when told."""

    def __init__(self) -> None:
        self.writes: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = asyncio.Event()
        self.was_closed_gently = False

    async def send(self, frames: Sequence[bytes]) -> None:
        self.writes.append(list(frames))
        await self.gate.wait()
        if self.closed.is_set():
            raise ConnectionResetError

    async def wait_closed(self) -> None:
        await self.closed.wait()

    async def close(self) -> None:
        self.was_closed_gently = True
        self.closed.set()

    def abort(self) -> None:
        self.closed.set()

    def why_closed(self) -> LinkFailure:
        return LinkFailure(LinkFault.CLOSED)


class Net:
    """What the links under test dial, and what they reported."""

    def __init__(self, **settings: Any) -> None:
        self.connections: list[FakeConnection] = []
        self.lost: list[str] = []
        self.failures: list[LinkFailure] = []
        self.busy: list[tuple[str, bool]] = []
        self.error: Exception | None = None
        self.hangs = False
        self.when_lost: Callable[[], object] = lambda: None
        self.counters = TransportCounters()
        self.links = OutgoingLinks(
            self.dial,
            connection_lost=self.note_lost,
            link_busy=lambda address, is_busy: self.busy.append((address, is_busy)),
            counters=self.counters,
            config=LinkConfig(**settings),
        )

    def note_lost(self, address: str, failure: LinkFailure) -> None:
        self.lost.append(address)
        self.failures.append(failure)
        self.when_lost()

    async def dial(self, address: str) -> FakeConnection:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        connection = FakeConnection()
        self.connections.append(connection)
        return connection


class NewNet(Protocol):
    """Makes a net whose links have some settings."""

    def __call__(self, **settings: Any) -> Net: ...


@pytest.fixture
async def new_net(anyio_backend: str) -> AsyncIterator[NewNet]:
    made: list[Net] = []

    def new(**settings: Any) -> Net:
        made.append(Net(**settings))
        return made[-1]

    yield new
    for net in made:
        await net.links.close(drain_s=0)


async def test_frames_sent_in_one_turn_are_written_together(
    new_net: NewNet, eventually: Eventually
) -> None:
    """One write carries what was queued while the link was dialled."""
    net = new_net()

    for i in range(5):
        net.links.send("a:1", bytes([i]))
    await eventually(lambda: net.connections and net.connections[0].writes)

    assert [[bytes([i]) for i in range(5)]] == net.connections[0].writes


async def test_a_write_stays_under_the_batch_size(new_net: NewNet, eventually: Eventually) -> None:
    """Large queues go out in several writes, a frame over the size alone."""
    net = new_net(batch_bytes_max=10)

    for size in (6, 4, 1, 50, 2):
        net.links.send("a:1", b"x" * size)
    await eventually(lambda: net.counters.frames_sent == 5)

    sizes = [[len(frame) for frame in write] for write in net.connections[0].writes]
    assert [[6, 4], [1], [50], [2]] == sizes


async def test_a_link_whose_peer_takes_nothing_is_broken(
    new_net: NewNet, eventually: Eventually
) -> None:
    """A write that never ends is given up after the stall time."""
    net = new_net(stall_s=0.05)
    net.links.send("a:1", b"first")
    await eventually(lambda: net.connections)
    net.connections[0].gate.clear()

    net.links.send("a:1", b"second")
    await eventually(lambda: net.lost)

    assert ["a:1"] == net.lost
    assert not net.connections[0].was_closed_gently


async def test_frames_waiting_behind_a_break_go_out_on_a_new_link(
    new_net: NewNet, eventually: Eventually
) -> None:
    """A link that had been stable is dialled again at once, with what had not been written."""
    net = new_net(stable_s=0.0)
    net.links.send("a:1", b"first")
    await eventually(lambda: net.counters.frames_sent == 1)
    broken = net.connections[0]
    broken.gate.clear()
    net.links.send("a:1", b"written")
    await eventually(lambda: len(broken.writes) == 2)
    net.links.send("a:1", b"waiting")

    broken.closed.set()
    broken.gate.set()
    await eventually(lambda: len(net.connections) == 2 and net.connections[1].writes)

    assert ([[b"waiting"]], ["a:1"]) == (net.connections[1].writes, net.lost)


async def test_a_link_for_which_much_waits_is_told_busy_until_it_is_gone(
    new_net: NewNet, eventually: Eventually
) -> None:
    """Once each: when the queue passes the mark, and when it is at a quarter of it."""
    net = new_net(busy_bytes=2000)
    net.links.send("a:1", b"x")
    await eventually(lambda: net.counters.frames_sent == 1)
    net.connections[0].gate.clear()
    net.links.send("a:1", b"blocks")
    await eventually(lambda: len(net.connections[0].writes) == 2)

    for _ in range(5):
        net.links.send("a:1", b"x" * 500)
    told_while_blocked = list(net.busy)
    net.connections[0].gate.set()
    await eventually(lambda: net.counters.frames_sent == 7)

    assert [("a:1", True)] == told_while_blocked
    assert [("a:1", True), ("a:1", False)] == net.busy


async def test_a_link_whose_queue_was_dropped_is_free(
    new_net: NewNet, eventually: Eventually
) -> None:
    """A peer that is gone does not stay busy for ever."""
    net = new_net(busy_bytes=100)
    net.error = ConnectionRefusedError()

    net.links.send("a:1", b"x" * 500)
    await eventually(lambda: net.lost)

    assert [("a:1", True), ("a:1", False)] == net.busy


async def test_a_stable_link_that_breaks_on_its_last_batch_is_free(
    new_net: NewNet, eventually: Eventually
) -> None:
    """Nothing waits and nothing is dialled again, so nothing else would tell it."""
    net = new_net(busy_bytes=200, stable_s=0.0)
    net.links.send("a:1", b"x")
    await eventually(lambda: net.counters.frames_sent == 1)
    broken = net.connections[0]
    broken.gate.clear()
    net.links.send("a:1", b"x" * 500)
    await eventually(lambda: len(broken.writes) == 2)

    broken.closed.set()
    broken.gate.set()
    await eventually(lambda: not net.links.is_open("a:1"))

    assert ["a:1"] == net.lost
    assert [("a:1", True), ("a:1", False)] == net.busy


async def test_a_link_is_free_once_the_batch_that_broke_it_is_gone(
    new_net: NewNet, eventually: Eventually
) -> None:
    """While it is dialled again with the little that waits, not only after."""
    net = new_net(busy_bytes=2000, batch_bytes_max=3000, stable_s=0.0)
    net.links.send("a:1", b"x")
    await eventually(lambda: net.counters.frames_sent == 1)
    broken = net.connections[0]
    broken.gate.clear()
    net.links.send("a:1", b"x" * 3000)
    net.links.send("a:1", b"waits")
    await eventually(lambda: len(broken.writes) == 2)
    net.hangs = True

    broken.closed.set()
    broken.gate.set()
    await eventually(lambda: net.counters.dials == 2)

    assert [("a:1", True), ("a:1", False)] == net.busy
    assert net.links.queued_bytes("a:1") > 0


async def test_a_busy_link_whose_next_dial_is_refused_is_free(
    new_net: NewNet, eventually: Eventually
) -> None:
    """What waited behind the break is dropped with it."""
    net = new_net(busy_bytes=200, stable_s=0.0)
    net.links.send("a:1", b"x")
    await eventually(lambda: net.counters.frames_sent == 1)
    broken = net.connections[0]
    broken.gate.clear()
    net.links.send("a:1", b"written")
    await eventually(lambda: len(broken.writes) == 2)
    net.links.send("a:1", b"x" * 500)
    net.error = ConnectionRefusedError()

    broken.closed.set()
    broken.gate.set()
    await eventually(lambda: net.counters.dials_failed == 1)
    await eventually(lambda: not net.links.is_open("a:1"))

    assert [("a:1", True), ("a:1", False)] == net.busy


async def test_what_is_sent_while_a_refusal_is_told_leaves_nothing_busy(
    new_net: NewNet, eventually: Eventually
) -> None:
    """It came too late for the dial: it is dropped, counted, and waits for nothing."""
    net = new_net(busy_bytes=200)
    net.error = ConnectionRefusedError()
    net.when_lost = lambda: net.links.send("a:1", b"x" * 500)

    net.links.send("a:1", b"x")
    await eventually(lambda: net.lost and not net.links.is_open("a:1"))

    assert (0, 2) == (net.links.queued_bytes("a:1"), net.counters.frames_dropped_unreachable)
    assert [("a:1", True), ("a:1", False)] == net.busy


@pytest.mark.parametrize("has_begun", [True, False])
async def test_closing_frees_what_was_busy(
    new_net: NewNet, eventually: Eventually, has_begun: bool
) -> None:
    """Whoever kept account of busy links is left with none."""
    net = new_net(busy_bytes=200)
    net.hangs = True
    net.links.send("a:1", b"x" * 500)
    if has_begun:
        await eventually(lambda: net.counters.dials == 1)

    await net.links.close(drain_s=0)

    assert [("a:1", True), ("a:1", False)] == net.busy


async def test_a_break_is_reported_without_a_send(new_net: NewNet, eventually: Eventually) -> None:
    """The link is watched while it is idle."""
    net = new_net()
    net.links.send("a:1", b"hello")
    await eventually(lambda: net.counters.frames_sent == 1)

    net.connections[0].closed.set()
    await eventually(lambda: net.lost)

    assert 1 == net.counters.links_lost


async def test_a_dropped_link_is_dialled_anew_by_the_next_frame(
    new_net: NewNet, eventually: Eventually
) -> None:
    """No report, no pause, and nothing of what had waited."""
    net = new_net()
    net.links.send("a:1", b"first")
    await eventually(lambda: net.counters.frames_sent == 1)
    silent = net.connections[0]
    silent.gate.clear()
    net.links.send("a:1", b"written")
    await eventually(lambda: len(silent.writes) == 2)
    net.links.send("a:1", b"waiting")

    net.links.drop("a:1")
    net.links.send("a:1", b"afresh")
    await eventually(lambda: len(net.connections) == 2 and net.connections[1].writes)
    await eventually(silent.closed.is_set)

    assert ([[b"afresh"]], []) == (net.connections[1].writes, net.lost)
    assert 1 == net.counters.links_dropped


async def test_a_dial_that_is_under_way_is_dropped_too(
    new_net: NewNet, eventually: Eventually
) -> None:
    """It may hang for as long as a dial may take."""
    net = new_net()
    net.hangs = True
    net.links.send("a:1", b"first")
    await eventually(lambda: net.counters.dials == 1)
    net.hangs = False

    net.links.drop("a:1")
    net.links.send("a:1", b"second")
    await eventually(lambda: net.connections and net.connections[0].writes)

    assert [[b"second"]] == net.connections[0].writes


async def test_a_busy_link_that_is_dropped_is_free_before_another_is_busy(
    new_net: NewNet, eventually: Eventually
) -> None:
    """The one that follows it is told for itself."""
    net = new_net(busy_bytes=100)
    net.links.send("a:1", b"x" * 500)

    net.links.drop("a:1")
    net.links.send("a:1", b"x" * 500)
    await eventually(lambda: net.counters.frames_sent == 1)

    assert [("a:1", True), ("a:1", False)] * 2 == net.busy


async def test_dropping_what_is_not_there_changes_nothing(new_net: NewNet) -> None:
    """An address that was never dialled, or a peer that is in its pause."""
    net = new_net()

    net.links.drop("a:1")

    assert 0 == net.counters.links_dropped


async def test_closing_waits_for_links_that_were_dropped(
    new_net: NewNet, eventually: Eventually
) -> None:
    """No connection is left behind."""
    net = new_net()
    net.links.send("a:1", b"first")
    await eventually(lambda: net.counters.frames_sent == 1)

    net.links.drop("a:1")
    await net.links.close(drain_s=0)

    assert net.connections[0].closed.is_set()


async def test_pauses_double_up_to_the_longest(
    new_net: NewNet, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failed attempt in a row waits longer, shortened by at most a half."""
    now = 0.0
    monkeypatch.setattr(OutgoingLinks, "_now", lambda self: now)
    net = new_net(retry_first_s=1.0, retry_max_s=4.0)
    net.error = ConnectionRefusedError()
    pauses = []

    for failures in range(1, 6):
        assert net.links.send("a:1", b"x")
        await eventually(partial(lambda expected: net.counters.dials_failed == expected, failures))
        pauses.append(net.links._links["a:1"].retry_at - now)
        now = net.links._links["a:1"].retry_at

    longest = [1.0, 2.0, 4.0, 4.0, 4.0]
    assert all(bound / 2 <= p <= bound for p, bound in zip(pauses, longest, strict=True))


async def test_a_peer_that_is_heard_is_dialled_without_waiting(
    new_net: NewNet, eventually: Eventually
) -> None:
    """It has just started, waits for an answer, and may go on without one."""
    net = new_net(retry_first_s=600.0, retry_max_s=600.0)
    net.error = ConnectionRefusedError()
    net.links.send("a:1", b"1")
    await eventually(lambda: net.lost == ["a:1"])
    net.error = None
    refused = net.links.send("a:1", b"2")

    net.links.end_pause("a:1")
    taken = net.links.send("a:1", b"3")
    await eventually(lambda: net.connections and net.connections[0].writes)

    assert (refused, taken) == (False, True)
    assert [[b"3"]] == net.connections[0].writes


async def test_one_that_can_send_and_cannot_be_reached_is_not_dialled_for_each_frame(
    new_net: NewNet, eventually: Eventually
) -> None:
    """A pause is ended once in the longest pause."""
    net = new_net(retry_first_s=600.0, retry_max_s=600.0)
    net.error = ConnectionRefusedError()
    taken = []
    for number in range(4):
        net.links.end_pause("a:1")
        taken.append(net.links.send("a:1", b"%d" % number))
        await eventually(lambda: not net.links.is_open("a:1"))

    assert [True, True, False, False] == taken


async def test_addresses_whose_pause_is_over_make_room_for_others(
    new_net: NewNet, eventually: Eventually
) -> None:
    """Only those in use, or just failed, count against the bound."""
    net = new_net(peers_max=1, retry_first_s=0.001)
    net.error = ConnectionRefusedError()
    net.links.send("a:1", b"x")
    await eventually(lambda: net.lost)

    await eventually(lambda: net.links.send("b:1", b"x"))


async def test_success_forgets_earlier_failures(new_net: NewNet, eventually: Eventually) -> None:
    """A link that was closed in peace begins with the first pause again."""
    net = new_net(retry_first_s=0.001, idle_close_s=0.01)
    net.error = ConnectionRefusedError()
    net.links.send("a:1", b"x")
    await eventually(lambda: net.lost)
    net.error = None

    await eventually(lambda: net.links.send("a:1", b"x"))
    await eventually(lambda: net.counters.links_closed_idle == 1)
    await eventually(lambda: not net.links.is_open("a:1"))

    assert {} == net.links._links


async def test_a_bug_in_a_dial_is_logged_and_costs_only_that_link(
    new_net: NewNet, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is raised, the link ends as one that could not be dialled."""
    net = new_net()
    net.error = ZeroDivisionError("a bug")

    net.links.send("a:1", b"x")
    await eventually(lambda: net.lost)
    net.error = None
    net.links.send("b:1", b"y")
    await eventually(lambda: net.connections and net.connections[0].writes)

    assert "please report" in caplog.text
    assert not net.links.is_open("a:1")


async def test_closing_writes_what_waits_and_closes_gently(new_net: NewNet) -> None:
    """A drain ends each link in order."""
    net = new_net()
    net.links.send("a:1", b"bye")

    await net.links.close(drain_s=5)

    assert [[b"bye"]] == net.connections[0].writes
    assert net.connections[0].was_closed_gently


async def test_closing_does_not_wait_longer_than_it_may(
    new_net: NewNet, eventually: Eventually
) -> None:
    """A stalled peer is cut off when the drain is over, and its frames are counted."""
    net = new_net()
    net.links.send("a:1", b"first")
    await eventually(lambda: net.counters.frames_sent == 1)
    net.connections[0].gate.clear()
    net.links.send("a:1", b"second")
    await eventually(lambda: len(net.connections[0].writes) == 2)
    net.links.send("a:1", b"third")

    await net.links.close(drain_s=0.02)

    assert 2 == net.counters.frames_dropped_closed
    assert net.connections[0].closed.is_set()


async def test_frames_of_a_link_that_had_no_time_to_begin_are_counted(new_net: NewNet) -> None:
    """Nothing is dropped in silence, however early the end comes."""
    net = new_net()
    net.links.send("a:1", b"x")

    await net.links.close(drain_s=0)

    assert 1 == net.counters.frames_dropped_closed


@pytest.mark.parametrize(
    "setting",
    [{"dial_timeout_s": 0.0}, {"retry_first_s": -1.0}, {"stable_s": -0.1}, {"peers_max": 0}],
)
def test_settings_that_cannot_hold_are_refused(setting: dict[str, Any]) -> None:
    """The error is one of the caller's, and names the setting."""
    with pytest.raises(ConfigError, match=next(iter(setting))):
        LinkConfig(**setting)


async def test_a_link_that_breaks_young_is_dialled_once_more_at_once(
    new_net: NewNet, eventually: Eventually
) -> None:
    """Whether its process has ended is known at once then; after that the pause counts."""
    net = new_net(retry_first_s=30.0, retry_max_s=30.0)
    for count in (1, 2):
        assert net.links.send("a:1", b"frame")
        await eventually(lambda count=count: len(net.connections) == count)  # type: ignore[misc]
        net.connections[-1].abort()
        await eventually(lambda count=count: len(net.lost) == count)  # type: ignore[misc]

    assert not net.links.send("a:1", b"frame")
