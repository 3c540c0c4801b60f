"""The driver, around a node that only keeps what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from attrs import evolve
from support.transports import Eventually

from meshlib.aio import LinkFailure, LinkFault, NodeDriver, TransportCounters
from meshlib.errors import RejectReason
from meshlib.gossip import Event, LinkEnd, LocalPause, MemberDown, Packet, PacketRejected
from meshlib.identity import actor_id
from meshlib.limits import FRAME_BYTES_MAX, INBOX_BYTES_MAX
from meshlib.membership import MemberRecord, MemberStatus

pytestmark = pytest.mark.anyio


class FakeNode:
    """Implements the engine's contract with plain lists."""

    def __init__(self) -> None:
        self.wakeup: Callable[[], None] | None = None
        self.wakeup_soon: Callable[[], None] | None = None
        self.calls: list[tuple[object, ...]] = []
        self.deadline: float | None = None
        self.outgoing: list[Packet] = []
        self.happened: list[Event] = []
        self.heard: list[str] = []
        self.known: tuple[MemberRecord, ...] = ()
        self.cost: Callable[[], None] = lambda: None

    def receive(self, data: bytes, *, sender: str, now: float) -> None:
        self.cost()
        self.calls.append(("receive", data))

    def handle_timer(self, now: float) -> None:
        self.calls.append(("timer", now))
        self.deadline = None

    def next_deadline(self) -> float | None:
        return self.deadline

    def packets_to_send(self) -> list[Packet]:
        packets, self.outgoing = self.outgoing, []
        return packets

    def events(self) -> list[Event]:
        events, self.happened = self.happened, []
        return events

    def members(self) -> tuple[MemberRecord, ...]:
        return self.known

    def connection_lost(self, address: str, *, now: float, end: LinkEnd) -> None:
        self.calls.append(("lost", address))

    def heard_again(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard

    def link_state(self, address: str, *, is_busy: bool, now: float) -> None:
        self.calls.append(("busy" if is_busy else "free", address))

    def excuse_all(self, now: float) -> None:
        self.calls.append(("excuse", now))


class FakeTransport:
    """Keeps what is sent, None for a dropped link, and which senders are closed."""

    def __init__(self) -> None:
        self.address = "self:1"
        self.counters = TransportCounters()
        self.sent: list[tuple[str, bytes | None]] = []
        self.closed_senders: list[str] = []
        self.takes = True

    async def start(self, receiver: object) -> None: ...

    def send(self, address: str, data: bytes) -> bool:
        self.sent.append((address, data))
        return self.takes

    def drop_link(self, address: str) -> None:
        self.sent.append((address, None))

    def end_pause(self, address: str) -> None:
        self.sent.append((address, None))

    def close_sender(self, sender: str, *, reason: object = None) -> None:
        self.closed_senders.append(sender)

    async def close(self, *, drain_s: float) -> None: ...


class Rig:
    """A driver, its node and its transport, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.node = FakeNode()
        self.transport = FakeTransport()
        self.told: list[Event] = []
        self.driver = NodeDriver(self.transport, on_step=self.told.extend, clock=lambda: self.now)
        self.driver.attach(self.node)
        self.task: asyncio.Task[None] | None = None

    def run(self) -> None:
        self.task = asyncio.create_task(self.driver.run())


@pytest.fixture
async def rig(anyio_backend: str) -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    if rig.task is not None:
        rig.task.cancel()
        await asyncio.gather(rig.task, return_exceptions=True)


async def test_a_frame_reaches_the_node_and_its_answer_leaves(
    rig: Rig, eventually: Eventually
) -> None:
    """One step takes in, sends, and tells what happened."""
    rig.run()
    rig.node.outgoing.append(Packet("peer:1", b"answer"))
    rig.node.happened.append(LocalPause(late_s=2.0))

    rig.driver.frame_received(b"question", "peer")
    await eventually(lambda: rig.transport.sent)

    assert [("receive", b"question")] == rig.node.calls
    assert [("peer:1", b"answer")] == rig.transport.sent
    assert [LocalPause(late_s=2.0)] == rig.told


async def test_nothing_happens_while_nothing_is_due(rig: Rig) -> None:
    """An idle node costs no turn of the loop."""
    rig.run()
    for _ in range(5):
        await asyncio.sleep(0)
    steps = rig.driver.counters.steps

    for _ in range(50):
        await asyncio.sleep(0)

    assert steps == rig.driver.counters.steps


async def test_a_deadline_wakes_the_driver(rig: Rig, eventually: Eventually) -> None:
    """The timer is handled when it is due, without a frame."""
    rig.node.deadline = rig.now + 0.01
    rig.run()
    await asyncio.sleep(0)

    rig.now += 0.01
    await eventually(lambda: rig.node.calls)

    assert [("timer", 100.01)] == rig.node.calls


async def test_a_deadline_that_moves_closer_is_kept(rig: Rig, eventually: Eventually) -> None:
    """A local verb that sets an earlier timer wakes the driver to rearm its own."""
    rig.node.deadline = rig.now + 1000.0
    rig.run()
    await asyncio.sleep(0.01)

    rig.node.deadline = rig.now
    assert rig.node.wakeup is not None
    assert rig.node.wakeup is not None
    rig.node.wakeup()
    await eventually(lambda: rig.node.calls)

    assert [("timer", 100.0)] == rig.node.calls


async def test_what_a_local_verb_made_is_sent_at_the_next_turn(
    rig: Rig, eventually: Eventually
) -> None:
    """The node's wakeup makes a step, and many of them make one."""
    rig.run()
    await asyncio.sleep(0.01)
    steps = rig.driver.counters.steps
    rig.node.outgoing.append(Packet("peer:1", b"write"))

    assert rig.node.wakeup is not None
    for _ in range(10):
        rig.node.wakeup()
    await eventually(lambda: rig.transport.sent)

    assert steps + 1 == rig.driver.counters.steps


async def write_and_wait_for_the_step(rig: Rig) -> None:
    rig.run()
    await asyncio.sleep(0.01)
    write_soon(rig, b"first")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [("peer:1", b"first")] == rig.transport.sent


def write_soon(rig: Rig, data: bytes) -> None:
    rig.node.outgoing.append(Packet("peer:1", data))
    assert rig.node.wakeup_soon is not None
    rig.node.wakeup_soon()


async def test_writes_that_follow_others_closely_wait_for_each_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is sent at once, those behind it with whatever step comes next."""
    monkeypatch.setattr("meshlib.aio.driver.PACE_S", 60.0)
    await write_and_wait_for_the_step(rig)

    for number in range(5):
        write_soon(rig, b"%d" % number)
    await asyncio.sleep(0.01)
    waiting = len(rig.transport.sent)
    rig.driver.frame_received(b"question", "peer")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert waiting == 1
    assert len(rig.transport.sent) == 6


async def test_writes_do_not_wait_for_long(rig: Rig, eventually: Eventually) -> None:
    """With no other step, they are sent together after two milliseconds."""
    await write_and_wait_for_the_step(rig)

    write_soon(rig, b"second")
    await eventually(lambda: rig.transport.sent[1:])

    assert [("peer:1", b"second")] == rig.transport.sent[1:]


async def test_what_went_along_is_not_waited_for_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that was made before the wait was over has left nothing to do at its end."""
    monkeypatch.setattr("meshlib.aio.driver.PACE_S", 0.01)
    await write_and_wait_for_the_step(rig)
    write_soon(rig, b"second")
    rig.driver.frame_received(b"question", "peer")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    steps = rig.driver.counters.steps

    await asyncio.sleep(0.03)

    assert steps == rig.driver.counters.steps


async def test_nobody_is_accused_while_what_carries_the_frames_is_gone(rig: Rig) -> None:
    """Before each timer; and once more when it is back, for what was begun meanwhile."""
    for is_up in (False, None, True, None):
        if is_up is not None:
            rig.driver.carrier_changed(is_up=is_up)
        rig.node.deadline = rig.now
        rig.driver.step()

    excused, due = ("excuse", 100.0), ("timer", 100.0)
    assert [excused, due, excused, due, excused, due, due] == rig.node.calls


async def test_a_link_that_ends_with_what_carries_it_says_nothing_of_its_peer(rig: Rig) -> None:
    """The node hears nothing of it, and a seed's report does."""
    rig.driver.attempts.watch(["peer:1"])

    rig.driver.connection_lost("peer:1", LinkFailure(LinkFault.CARRIER))
    rig.driver.step()

    assert ([], 1) == (rig.node.calls, rig.driver.attempts.by_address()["peer:1"].failure_count)


async def test_frames_that_wait_are_heard_before_the_timer(rig: Rig) -> None:
    """An answer in the inbox is no silence."""
    rig.node.deadline = rig.now - 5.0
    rig.driver.frame_received(b"answer", "peer")

    rig.driver.step()

    assert ["receive", "timer"] == [call[0] for call in rig.node.calls]


async def test_what_is_due_after_a_frame_came_is_done_after_that_frame(rig: Rig) -> None:
    """However long it waits behind others: what it answers was not late."""
    rig.node.deadline = rig.now + 1.0
    rig.node.cost = lambda: setattr(rig, "now", rig.now + 1.0)
    for _ in range(3):
        rig.driver.frame_received(b"answer", "peer")

    for _ in range(3):
        rig.driver.step()

    assert ["receive", "receive", "receive", "timer"] == [call[0] for call in rig.node.calls]


async def test_what_was_due_before_a_frame_came_does_not_wait_for_it(rig: Rig) -> None:
    """It is done by the time of the frame that waits longest."""
    rig.node.cost = lambda: setattr(rig, "now", rig.now + 1.0)
    rig.node.deadline = rig.now
    for _ in range(2):
        rig.driver.frame_received(b"news", "peer")

    rig.driver.step()

    assert [("receive", b"news"), ("timer", 100.0)] == rig.node.calls


async def test_lost_and_busy_links_are_reported_in_order(rig: Rig) -> None:
    """The node hears them inside a step, never inside a call of its own."""
    rig.driver.link_busy("a:1", is_busy=True)
    rig.driver.link_busy("a:1", is_busy=False)
    rig.driver.connection_lost("b:1")
    assert [] == rig.node.calls

    rig.driver.step()

    assert [("busy", "a:1"), ("free", "a:1"), ("lost", "b:1")] == rig.node.calls


async def test_the_pause_of_a_peer_that_was_heard_ends_before_it_is_answered(rig: Rig) -> None:
    """Or the answer would be dropped for a refusal that is over."""
    rig.node.heard.append("peer:1")
    rig.node.outgoing.append(Packet("peer:1", b"answer"))

    rig.driver.step()

    assert [("peer:1", None), ("peer:1", b"answer")] == rig.transport.sent


async def test_the_link_to_a_member_that_is_down_is_dropped_before_more_is_sent(rig: Rig) -> None:
    """What goes to it in the same step, a dial to heal for one, takes a fresh link."""
    member = MemberRecord(name="peer", incarnation=1, address="peer:1", actor=actor_id("peer", 1))
    rig.node.outgoing.append(Packet("peer:1", b"are you back?"))
    rig.node.happened.append(MemberDown(member=member))

    rig.driver.step()

    assert [("peer:1", None), ("peer:1", b"are you back?")] == rig.transport.sent


@pytest.mark.parametrize(
    ("status", "is_kept"), [(MemberStatus.ALIVE, True), (MemberStatus.DOWN, False)]
)
async def test_the_link_to_an_address_that_another_member_has_by_now_is_kept(
    rig: Rig, status: MemberStatus, is_kept: bool
) -> None:
    """The old member there goes Down, and the new one is reached over that link."""
    old = MemberRecord(name="old", incarnation=1, address="peer:1", actor=actor_id("old", 1))
    new = MemberRecord(
        name="new", incarnation=1, status=status, address="peer:1", actor=actor_id("new", 1)
    )
    rig.node.known = (evolve(old, status=MemberStatus.DOWN), new)
    rig.node.happened.append(MemberDown(member=old))

    rig.driver.step()

    assert ([] if is_kept else [("peer:1", None)]) == rig.transport.sent


async def test_a_flood_leaves_turns_to_the_rest_of_the_program(
    rig: Rig, eventually: Eventually
) -> None:
    """Each step handles frames for a bounded time, and then everyone has a turn."""

    def cost() -> None:
        rig.now += 0.0005

    rig.node.cost = cost
    for i in range(100):
        rig.driver.frame_received(bytes([i]), "peer")
    rig.run()
    turns = 0
    while len(rig.node.calls) < 100:
        await asyncio.sleep(0)
        turns += 1

    assert turns >= 100 // 4


async def test_the_inbox_asks_for_a_pause_when_it_is_half_full(rig: Rig) -> None:
    """It takes the frame that passes the mark, and is open again when it is a quarter full."""
    size = FRAME_BYTES_MAX // 2
    half = INBOX_BYTES_MAX // 2 // size

    answers = [rig.driver.frame_received(b"x" * size, "peer") for _ in range(half)]
    waiting = asyncio.ensure_future(rig.driver.wait_for_room())
    await asyncio.sleep(0)
    was_waiting = not waiting.done()
    rig.driver.step()
    await waiting

    assert [True] * (half - 1) + [False] == answers
    assert was_waiting


async def test_frames_over_the_bound_are_dropped_and_counted(rig: Rig) -> None:
    """A transport that does not stop cannot fill the memory."""
    for _ in range(20):
        rig.driver.frame_received(b"x" * FRAME_BYTES_MAX, "peer")

    rig.driver.step()

    assert 7 == rig.driver.counters.frames_handled
    assert 13 == rig.driver.counters.frames_dropped


@pytest.mark.parametrize(
    ("reason", "is_closed"),
    [
        (RejectReason.MALFORMED, True),
        (RejectReason.CHECKSUM, True),
        (RejectReason.VERSION, True),
        (RejectReason.CLUSTER, True),
        (RejectReason.LIMIT, True),
        (RejectReason.IDENTITY, False),
        (RejectReason.CLOCK, False),
        (RejectReason.TYPE, False),
    ],
)
async def test_a_sender_of_what_no_peer_sends_is_closed(
    rig: Rig, reason: RejectReason, is_closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Rejected frames are logged; the connection goes for those that honest peers never send."""
    rig.node.happened.append(
        PacketRejected(reason=reason, sender="10.0.0.1:9", size=5, detail="why")
    )

    rig.driver.step()

    assert (["10.0.0.1:9"] if is_closed else []) == rig.transport.closed_senders
    assert "why; 5 bytes from 10.0.0.1:9" in caplog.text


async def test_a_frame_that_makes_the_node_raise_does_not_end_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug that a peer can reach is reported and contained."""

    def fail() -> None:
        rig.node.cost = lambda: None
        raise ZeroDivisionError("a bug")

    rig.node.cost = fail
    rig.driver.frame_received(b"poison", "10.0.0.1:9")
    rig.driver.frame_received(b"good", "10.0.0.2:9")

    rig.driver.step()

    assert [("receive", b"good")] == rig.node.calls
    assert (1, ["10.0.0.1:9"]) == (
        rig.driver.counters.frames_failed, rig.transport.closed_senders
    )  # fmt: skip
    assert "please report" in caplog.text


async def test_packets_that_the_transport_refuses_are_counted(rig: Rig) -> None:
    """They are dropped: gossip repairs."""
    rig.transport.takes = False
    rig.node.outgoing += [Packet("a:1", b"x"), Packet("b:1", b"y")]

    rig.driver.step()

    assert 2 == rig.driver.counters.packets_dropped


async def test_the_lateness_of_a_timer_is_measured(rig: Rig) -> None:
    """How late the loop was is told, the worst of it too."""
    rig.node.deadline = 98.0
    rig.driver.step()
    rig.node.deadline = 99.5
    rig.driver.step()

    assert (0.5, 2.0) == (
        rig.driver.counters.timer_late_s, rig.driver.counters.timer_late_max_s
    )  # fmt: skip
