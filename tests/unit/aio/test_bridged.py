"""Frames between regions: the way there, bridges that are lost, and what is told of it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator

import pytest
from support.bridged_lab import BridgedLab, address_of, regions
from support.transports import Eventually, Recorder

from meshlib.aio import (
    BridgedTransport,
    LinkFault,
    MemoryNetwork,
    Regions,
    WebSocketTransport,
)
from meshlib.errors import ConfigError, InvalidTypeError, StateError
from meshlib.limits import FRAME_BYTES_MAX, PEER_QUEUE_BYTES_MAX

pytestmark = pytest.mark.anyio

ALL = ("a0", "a1", "a2", "b0", "b1", "b2")


@pytest.fixture
async def lab(anyio_backend: str) -> AsyncIterator[BridgedLab]:
    made = BridgedLab()
    await made.start(*ALL)
    yield made
    await made.end()


@pytest.mark.parametrize("origin", ALL)
async def test_a_frame_reaches_every_node_of_both_regions(
    lab: BridgedLab, eventually: Eventually, origin: str
) -> None:
    """From a bridge or another node, to a bridge or another node."""
    others = [name for name in ALL if name != origin]

    assert all(lab.send(origin, other, f"{origin}-{other}".encode()) for other in others)
    await eventually(lambda: all(lab.heard(other).frames for other in others))

    assert [[f"{origin}-{other}".encode()] for other in others] == [
        lab.heard(other).frames for other in others
    ]


async def test_frames_between_regions_keep_their_order(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """Large ones between small ones, some of them in two parts."""
    sizes = [FRAME_BYTES_MAX if turn % 40 == 7 else 10 + turn for turn in range(80)]
    frames = [bytes([turn]) * size for turn, size in enumerate(sizes)]

    for frame in frames:
        assert lab.send("a2", "b2", frame)
    await eventually(lambda: len(lab.heard("b2").frames) == len(frames))

    assert frames == lab.heard("b2").frames


@pytest.mark.parametrize(("origin", "destination"), [("a2", "a0"), ("a2", "b2"), ("a0", "b0")])
async def test_a_frame_that_begins_as_an_envelope_does_arrives_as_it_was(
    lab: BridgedLab, eventually: Eventually, origin: str, destination: str
) -> None:
    """Also one that could be an envelope, and one at the limit."""
    frames = [b"MB", b"MB\x01\x03\x00" + b"\0" * 40, b"MB" + b"x" * (FRAME_BYTES_MAX - 2)]

    for frame in frames:
        assert lab.send(origin, destination, frame)
    await eventually(lambda: len(lab.heard(destination).frames) == 3)

    assert frames == lab.heard(destination).frames


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1])
async def test_a_frame_of_impossible_size_is_dropped_and_counted(
    lab: BridgedLab, size: int
) -> None:
    """Before it is put in anything."""
    assert not lab.send("a2", "b2", b"x" * size)

    assert 1 == lab.node("a2").counters.frames_dropped_oversized


async def test_a_killed_bridge_is_replaced_at_once(lab: BridgedLab, eventually: Eventually) -> None:
    """On either side, in both directions: nothing is lost but what was on its way."""
    pairs = [("a2", "b2"), ("b2", "a2"), ("a1", "b2"), ("b0", "a2")]
    for killed in ("a0", "b1"):
        for origin, destination in pairs:
            lab.send(origin, destination, b"before")
        await lab.kill(killed)
    for origin, destination in pairs:  # the first to a bridge that was not asked before
        for _ in range(3):
            lab.send(origin, destination, b"meets the loss")
            await asyncio.sleep(0.01)
    for origin, destination in pairs:
        for turn in range(20):
            assert lab.send(origin, destination, f"{origin} {turn}".encode())
    wanted = {f"{origin} {turn}".encode() for origin, _ in pairs for turn in range(20)}

    await eventually(lambda: wanted <= {*lab.heard("b2").frames, *lab.heard("a2").frames})


async def test_a_lost_bridge_says_nothing_of_who_is_behind_it(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """Its own loss is told as what it is."""
    for name in ("a0", "a1"):
        lab.send("a2", "b2", b"x")
        await eventually(lambda: lab.heard("b2").frames)
        await lab.kill(name)
    lab.send("a2", "b2", b"x")
    lab.send("a2", "b2", b"x")
    await eventually(lambda: address_of("b2") in lab.heard("a2").lost)
    heard = lab.heard("a2")
    of_behind = {
        failure.fault
        for address, failure in zip(heard.lost, heard.failures, strict=True)
        if address == address_of("b2") and failure is not None
    }
    of_bridges = {
        failure.fault
        for address, failure in zip(heard.lost, heard.failures, strict=True)
        if address != address_of("b2") and failure is not None
    }

    assert of_behind == {LinkFault.CARRIER}
    assert LinkFault.CARRIER not in of_bridges


async def test_with_no_bridge_alive_frames_are_dropped_and_counted(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """The region itself goes on; and a bridge that comes back is used, without a restart."""
    await lab.kill("a0")
    await lab.kill("a1")
    for _ in range(50):
        lab.send("a2", "b2", b"lost")
    await eventually(lambda: lab.node("a2").counters.frames_dropped_unreachable >= 50)
    await lab.start("a1")
    lab.node("a2").end_pause(address_of("a1"))

    assert lab.send("a2", "b2", b"again")
    await eventually(lambda: lab.heard("b2").frames)
    assert [b"again"] == lab.heard("b2").frames


async def test_a_bridge_that_has_no_way_says_so_and_another_is_asked(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """Cut off from what is between, and well inside: its link would never break."""
    hops = lab.node("a2")._hearing.choice.hops("b", address_of("b2"))  # type: ignore[union-attr]
    first, second = (hop.bridge.partition(".")[0] for hop in hops)
    lab.nodes[first][0]._hearing.carrier_changed(False, is_inside=False)  # type: ignore[union-attr]
    lab.between.partition([address_of(first)])

    lab.send("a2", "b2", b"lost")
    await eventually(lambda: lab.node("a2").bridging.detours == 1)
    lab.send("a2", "b2", b"by the other")
    await eventually(lambda: lab.heard("b2").frames)

    assert [b"by the other"] == lab.heard("b2").frames
    assert lab.node(second).bridging.frames_passed_on == 1
    assert address_of("b2") not in lab.heard("a2").lost


async def test_a_bridge_without_what_is_between_asks_another_of_its_region(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """For its own frames."""
    lab.node("a0")._hearing.carrier_changed(False, is_inside=False)  # type: ignore[union-attr]
    lab.between.partition([address_of("a0")])

    lab.send("a0", "b0", b"x")
    await eventually(lambda: lab.heard("b0").frames)

    assert lab.node("a1").bridging.frames_passed_on == 1


async def test_what_is_between_going_away_is_not_told_of_the_region(lab: BridgedLab) -> None:
    """Whoever is inside still answers; and it is told of what is inside."""
    hearing = lab.node("a0")._hearing
    assert hearing is not None
    hearing.carrier_changed(False, is_inside=False)
    hearing.carrier_changed(False, is_inside=True)
    hearing.carrier_changed(True, is_inside=True)

    assert [False, True] == lab.heard("a0").carrier


async def test_nodes_share_the_bridges_of_their_region(anyio_backend: str) -> None:
    """Each has an order of its own."""
    lab = BridgedLab(told=regions(("a0", "a1", "a2", "b0")))
    names = [f"a{number}" for number in range(3, 33)]
    await lab.start(*names)
    firsts = [
        lab.node(name)._hearing.choice.hops("b", address_of("b5"))[0].bridge  # type: ignore[union-attr]
        for name in names
    ]
    await lab.end()

    assert min(firsts.count(address_of(f"a{number}")) for number in range(3)) >= 4


async def test_a_bridge_that_is_down_is_passed_over_until_it_is_heard(lab: BridgedLab) -> None:
    """A frozen one breaks no link."""
    node = lab.node("a2")
    assert node._hearing is not None
    assert node._hearing.choice is not None
    choice = node._hearing.choice
    first = choice.hops("b", address_of("b2"))[0].bridge
    node.drop_link(first)
    then = choice.hops("b", address_of("b2"))[0].bridge
    until = [hop.until for hop in choice.hops("b", address_of("b2")) if hop.bridge == first]
    node.end_pause(first)

    assert then != first
    assert [math.inf] == until
    assert [first] == lab.heard("a2").lost
    assert choice.hops("b", address_of("b2"))[0].bridge == first


async def test_a_way_over_a_busy_bridge_is_busy_and_then_free(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """Each destination behind it is told of, and each as free again."""
    for _ in range(8):
        lab.send("a2", "b2", b"x" * 100_000)
    lab.send("a2", "b0", b"x")
    await eventually(lambda: len(lab.heard("b2").frames) == 8 and lab.heard("b0").frames)
    told = lab.heard("a2").busy
    behind = [pair for pair in told if pair[0] in (address_of("b2"), address_of("b0"))]

    assert sorted(behind) == sorted(
        (address_of(name), is_busy) for name in ("b2", "b0") for is_busy in (True, False)
    )


async def test_an_overloaded_bridge_drops_counts_and_still_hears(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """A node of the other region takes nothing: what waits for it is bounded, others go on."""
    lab.heard("b2").room.clear()
    sent = 0
    while sent * 100_000 < 3 * PEER_QUEUE_BYTES_MAX:
        sent += lab.send("a2", "b2", b"x" * 100_000)
        if sent % 20 == 0:
            await eventually(lambda: not lab.inner("a2")._endpoint.queued_bytes)
    lab.send("a2", "b0", b"hello")
    lab.send("a2", "b1", b"hello")
    await eventually(lambda: lab.heard("b0").frames and lab.heard("b1").frames)
    dropped = sum(lab.node(name).bridging.frames_dropped_overloaded for name in lab.nodes)
    waiting = sum(sum(lab.inner(name)._endpoint.queued_bytes.values()) for name in ("b0", "b1"))

    assert dropped > 0
    assert waiting <= 2 * PEER_QUEUE_BYTES_MAX


async def test_closing_sends_what_is_queued_first(lab: BridgedLab, eventually: Eventually) -> None:
    """Of a node that is no bridge, and of one."""
    for name in ("a2", "a0"):
        for _ in range(20):
            lab.send(name, "b2", b"last words" * 1000)
        await lab.node(name).close(drain_s=5.0)
    await eventually(lambda: len(lab.heard("b2").frames) == 40)

    assert not lab.send("a2", "b2", b"late")
    assert 1 == lab.node("a2").counters.frames_dropped_closed


@pytest.mark.parametrize(
    ("name", "region", "bridges", "is_bridge", "between", "named"),
    [
        ("a2", "b", ("a0", "b0"), False, "a2", "address of region 'a'"),
        ("c2", "a", ("a0", "b0"), False, "c2", "address of no region"),
        ("a0", "a", ("a0", "b0"), False, "a0", "nothing to carry between"),
        ("a2", "a", ("a0", "b0"), True, "a2", "not among the bridges"),
        ("a0", "a", ("a0", "b0"), True, "a1", "one address"),
    ],
)
async def test_a_node_in_the_wrong_place_does_not_start(
    anyio_backend: str,
    name: str,
    region: str,
    bridges: tuple[str, ...],
    is_bridge: bool,
    between: str,
    named: str,
) -> None:
    """It says why, and nothing of it is left: the address can be listened on again."""
    network, told = MemoryNetwork(), regions(bridges)
    node = BridgedTransport(
        network.transport(address_of(name)),
        region=region,
        regions=told,
        between=MemoryNetwork().transport(address_of(between)) if is_bridge else None,
    )

    with pytest.raises(ConfigError, match=named):
        await node.start(Recorder())

    assert not node.send(address_of("a1"), b"x")
    await network.transport(address_of(name)).start(Recorder())


async def test_a_bridge_that_cannot_reach_what_is_between_does_not_start(
    anyio_backend: str,
) -> None:
    """And listens no more inside."""
    lab = BridgedLab()
    await lab.between.transport(address_of("a0")).start(Recorder())

    with pytest.raises(OSError, match="listened on already"):
        await lab.start("a0")

    await lab.inside["a"].transport(address_of("a0")).start(Recorder())


def test_arguments_that_cannot_be_are_refused() -> None:
    """Before anything is started."""
    inside = MemoryNetwork().transport(address_of("a0"))
    with pytest.raises(ConfigError, match="none of a, b"):
        BridgedTransport(inside, region="c", regions=regions())
    for wrong in (
        {"regions": {"a": ["*.a"]}},
        {"region": 1},
        {"between": "nats://a:1"},
        {"rng": random},
    ):
        with pytest.raises(InvalidTypeError):
            BridgedTransport(inside, **{"region": "a", "regions": regions(), **wrong})  # type: ignore[arg-type]


async def test_a_node_is_started_once(lab: BridgedLab) -> None:
    """As every transport."""
    with pytest.raises(StateError):
        await lab.node("a0").start(Recorder())


async def test_another_token_is_shown_by_each_part_that_can(
    anyio_backend: str, eventually: Eventually
) -> None:
    """While tokens are being changed; a part without tokens of its own is left alone."""
    one = Regions({"one": ["127.0.0.0/8"]})
    sender, receiver = (
        BridgedTransport(WebSocketTransport("127.0.0.1:0", token=token), region="one", regions=one)
        for token in ("old", "new")
    )
    heard = Recorder()
    await sender.start(Recorder())
    await receiver.start(heard)
    sender.present("new")
    BridgedTransport(MemoryNetwork().transport("127.0.0.1:1"), region="one", regions=one).present(
        "new"
    )

    sender.send(receiver.address, b"hello")
    await eventually(lambda: heard.frames)
    await sender.close(drain_s=0)
    await receiver.close(drain_s=0)

    assert receiver.counters.hellos_refused == 0
