"""What every transport does, checked on each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.transports import Eventually, Recorder

from meshlib.aio import BridgedTransport, LinkFault, NatsTransport, Transport
from meshlib.errors import RejectReason, StateError
from meshlib.limits import FRAME_BYTES_MAX, PEER_QUEUE_BYTES_MAX

pytestmark = pytest.mark.anyio


async def test_a_frame_arrives_as_it_was_sent(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """The receiver of the address gets the bytes."""
    one, other, heard = new_transport(), new_transport(), new_recorder()
    await one.start(new_recorder())
    await other.start(heard)

    assert one.send(other.address, b"\x00\xffhello")
    await eventually(lambda: heard.frames)

    assert [b"\x00\xffhello"] == heard.frames


async def test_frames_of_one_sender_arrive_in_order(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A thousand frames keep their order, large ones between small ones."""
    one, other, heard = new_transport(), new_transport(), new_recorder()
    await one.start(new_recorder())
    await other.start(heard)
    frames = [bytes([i % 256]) * (20_000 if i % 10 == 0 else 10) for i in range(300)]

    for frame in frames:
        one.send(other.address, frame)
    await eventually(lambda: len(heard.frames) == len(frames))

    assert frames == heard.frames


async def test_both_directions_work_at_once(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Each side sends on a link of its own."""
    one, other = new_transport(), new_transport()
    heard_by_one, heard_by_other = new_recorder(), new_recorder()
    await one.start(heard_by_one)
    await other.start(heard_by_other)

    one.send(other.address, b"there")
    other.send(one.address, b"back")
    await eventually(lambda: heard_by_one.frames and heard_by_other.frames)

    assert ([b"back"], [b"there"]) == (heard_by_one.frames, heard_by_other.frames)


async def test_a_frame_at_the_limit_passes(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """The largest frame is carried whole."""
    one, other, heard = new_transport(), new_transport(), new_recorder()
    await one.start(new_recorder())
    await other.start(heard)

    one.send(other.address, b"x" * FRAME_BYTES_MAX)
    await eventually(lambda: heard.frames)

    assert FRAME_BYTES_MAX == len(heard.frames[0])


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1])
async def test_a_frame_of_impossible_size_is_dropped_and_counted(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], size: int
) -> None:
    """Neither nothing nor too much is sent."""
    one = new_transport()
    await one.start(new_recorder())

    assert not one.send("127.0.0.1:1", b"x" * size)

    assert 1 == one.counters.frames_dropped_oversized


async def test_an_address_where_nobody_listens_is_reported_lost(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A refused dial is told at once, and the frame is counted as dropped.

    NATS knows who has subscribed, and not whether a process has ended.
    """
    one, gone, heard = new_transport(), new_transport(), new_recorder()
    await one.start(heard)
    await gone.start(new_recorder())
    address = gone.address
    await gone.close(drain_s=0)

    one.send(address, b"anyone?")
    await eventually(lambda: heard.lost)

    assert ([address], 1) == (heard.lost, one.counters.frames_dropped_unreachable)
    is_over_nats = isinstance(
        one.parts[-1] if isinstance(one, BridgedTransport) else one, NatsTransport
    )
    wanted = LinkFault.ABSENT if is_over_nats else LinkFault.REFUSED
    assert [wanted] == [failure and failure.fault for failure in heard.failures]


async def test_a_peer_that_closes_is_reported_lost(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A link that was used and breaks is told without a further send."""
    one, other = new_transport(), new_transport()
    heard_by_one, heard_by_other = new_recorder(), new_recorder()
    await one.start(heard_by_one)
    await other.start(heard_by_other)
    address = other.address
    one.send(address, b"hello")
    await eventually(lambda: heard_by_other.frames)

    await other.close(drain_s=0)
    await eventually(lambda: heard_by_one.lost)

    assert [address] == heard_by_one.lost
    assert [LinkFault.CLOSED] == [failure and failure.fault for failure in heard_by_one.failures]


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (RejectReason.CLUSTER, LinkFault.WRONG_CLUSTER),
        (RejectReason.VERSION, LinkFault.WRONG_VERSION),
        (RejectReason.MALFORMED, LinkFault.CLOSED),
    ],
)
async def test_a_sender_whose_frames_are_refused_is_told_why(
    new_transport: Callable[[], Transport],
    new_recorder: type[Recorder],
    eventually: Eventually,
    reason: RejectReason,
    fault: LinkFault,
) -> None:
    """As far as there is a word for it that helps an honest peer."""
    one, other = new_transport(), new_transport()
    heard_by_one, heard_by_other = new_recorder(), new_recorder()
    await one.start(heard_by_one)
    await other.start(heard_by_other)
    one.send(other.address, b"hello")
    await eventually(lambda: heard_by_other.frames)

    other.close_sender(heard_by_other.senders[0], reason=reason)
    await eventually(lambda: heard_by_one.lost)

    assert [fault] == [failure and failure.fault for failure in heard_by_one.failures]


async def test_the_queue_of_a_peer_is_bounded(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder]
) -> None:
    """What does not fit is refused at once, and counted."""
    one, other = new_transport(), new_transport()
    await one.start(new_recorder())
    await other.start(new_recorder())

    accepted = sum(one.send(other.address, b"x" * 500_000) for _ in range(40))

    assert accepted == PEER_QUEUE_BYTES_MAX // 500_128
    assert 40 - accepted == one.counters.frames_dropped_queue_full


async def test_a_flood_of_tiny_frames_is_bounded_too(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder]
) -> None:
    """Each waiting frame costs more than its bytes."""
    one, other = new_transport(), new_transport()
    await one.start(new_recorder())
    await other.start(new_recorder())

    accepted = sum(one.send(other.address, b"x") for _ in range(100_000))

    assert PEER_QUEUE_BYTES_MAX // 129 == accepted


async def test_closing_sends_what_is_queued_first(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A drain delivers all frames that were taken."""
    one, other, heard = new_transport(), new_transport(), new_recorder()
    await one.start(new_recorder())
    await other.start(heard)

    for _ in range(50):
        one.send(other.address, b"last words" * 1000)
    await one.close(drain_s=5.0)
    await eventually(lambda: len(heard.frames) == 50)

    assert 0 == one.counters.frames_dropped_closed


async def test_a_closed_transport_drops_and_counts(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder]
) -> None:
    """Sending after the end is no error."""
    one = new_transport()
    await one.start(new_recorder())
    await one.close(drain_s=0)

    assert not one.send("127.0.0.1:1", b"late")

    assert 1 == one.counters.frames_dropped_closed


async def test_closing_twice_is_harmless(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder]
) -> None:
    """The second close returns."""
    one = new_transport()
    await one.start(new_recorder())

    await one.close(drain_s=1.0)
    await one.close(drain_s=1.0)


async def test_starting_twice_is_refused(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder]
) -> None:
    """A transport serves one receiver once."""
    one = new_transport()
    await one.start(new_recorder())

    with pytest.raises(StateError):
        await one.start(new_recorder())


async def test_a_receiver_that_asks_for_a_pause_holds_the_sender_back(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Nothing is lost while the receiver is busy: frames wait until there is room."""
    one, other, heard = new_transport(), new_transport(), new_recorder()
    await one.start(new_recorder())
    await other.start(heard)
    heard.room.clear()
    for i in range(100):
        one.send(other.address, i.to_bytes(2) + b"x" * 50_000)
    await eventually(lambda: heard.frames)

    held_at = len(heard.frames)
    heard.room.set()
    await eventually(lambda: len(heard.frames) == 100)

    assert held_at < 100
    assert list(range(100)) == [int.from_bytes(frame[:2]) for frame in heard.frames]


async def test_a_link_with_much_to_carry_is_told_busy_and_then_free(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """The sender may hold back meanwhile."""
    one, other = new_transport(), new_transport()
    heard, heard_by_other = new_recorder(), new_recorder()
    await one.start(heard)
    await other.start(heard_by_other)

    for _ in range(20):
        one.send(other.address, b"x" * 100_000)
    await eventually(lambda: len(heard_by_other.frames) == 20)

    assert [(other.address, True), (other.address, False)] == heard.busy


async def test_counters_agree_on_both_sides(
    new_transport: Callable[[], Transport], new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Frames and bytes sent are those received."""
    one, other, heard = new_transport(), new_transport(), new_recorder()
    await one.start(new_recorder())
    await other.start(heard)

    for size in (1, 10, 100):
        one.send(other.address, b"x" * size)
    await eventually(lambda: one.counters.frames_sent == len(heard.frames) == 3)

    assert (3, 111) == (other.counters.frames_received, other.counters.bytes_received)
    assert 111 == one.counters.bytes_sent
