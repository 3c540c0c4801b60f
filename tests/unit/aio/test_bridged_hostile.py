"""Envelopes of strangers, in the wrong place, without end, and by nodes that are told otherwise."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from support.bridged_lab import BridgedLab, address_of, regions
from support.transports import Eventually, Recorder

from meshlib.aio import BridgedTransport, MemoryNetwork, MemoryTransport, Regions, TcpTransport
from meshlib.aio.bridged.envelopes import Kind, put_in
from meshlib.aio.bridged.ways import WAYS_MAX
from meshlib.errors import RejectReason

pytestmark = pytest.mark.anyio

NAMES = ("a0", "a1", "a2", "b0", "b1", "b2")


@pytest.fixture
async def lab(anyio_backend: str) -> AsyncIterator[BridgedLab]:
    made = BridgedLab()
    await made.start(*NAMES)
    yield made
    await made.end()


async def _raw(lab: BridgedLab, side: str) -> MemoryTransport:
    """Return a transport of somebody who sends what they like, inside of a region or between."""
    network = lab.between if side == "between" else lab.inside[side]
    made = network.transport(f"raw.{side}.example:1")
    await made.start(Recorder())
    return made


def _envelope(kind: Kind, origin: str, destination: str, frame: bytes = b"frame") -> bytes:
    to, of = _address(destination), _address(origin)
    (made,) = put_in(frame, kind=kind, destination=to, origin=of)
    return made


def _address(name: str) -> str:
    return address_of(name) if name else ""


BELONGING = {
    ("a", Kind.OUT, "a", "b"),
    ("a", Kind.IN, "b", "a"),
    ("between", Kind.ACROSS, "b", "a"),
}
"""From where, of which kind, of whom and for whom: what a bridge of `a` takes."""


@pytest.mark.parametrize("side", ["a", "between"])
@pytest.mark.parametrize("kind", [Kind.OUT, Kind.ACROSS, Kind.IN])
async def test_what_does_not_belong_there_goes_no_further(
    lab: BridgedLab, eventually: Eventually, side: str, kind: Kind
) -> None:
    """Of the wrong kind, region or direction, or of no region at all."""
    raw = await _raw(lab, side)
    regions_of = ("a", "b", "c", "")
    strays = 0
    for origin, destination in itertools.product(regions_of, regions_of):
        of, to = (f"{name}2" if name else "" for name in (origin, destination))
        assert raw.send(address_of("a0"), _envelope(kind, of, to))
        strays += (side, kind, origin, destination) not in BELONGING
    raw.send(address_of("a0"), b"the last")
    await eventually(lambda: b"the last" in lab.heard("a0").frames)

    assert strays == lab.node("a0").bridging.frames_dropped_stray
    assert strays in (15, 16)


async def test_a_node_that_is_no_bridge_passes_nothing_on(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """Whatever it is asked."""
    raw = await _raw(lab, "a")
    for kind in Kind:
        raw.send(address_of("a2"), _envelope(kind, "a1", "b2"))
    await eventually(lambda: lab.heard("a2").frames)
    await asyncio.sleep(0)

    assert [b"frame"] == lab.heard("a2").frames  # of the one for a single link
    assert lab.node("a2").bridging.frames_passed_on == 0
    assert not lab.heard("b2").frames


async def test_an_envelope_is_passed_on_twice_at_most(
    anyio_backend: str, eventually: Eventually
) -> None:
    """Even by nodes that are each told otherwise of who is where."""
    lab = BridgedLab()
    await lab.start("a0", "b0")
    swapped = Regions(
        {"a": ["*.b.example"], "b": ["*.a.example"]},
        bridges=[address_of(name) for name in ("a0", "a1", "b0", "b1")],
    )
    for name, region in (("a1", "b"), ("b1", "a")):  # all the other way round
        node = BridgedTransport(
            lab.inside[name[0]].transport(address_of(name)),
            region=region,
            regions=swapped,
            between=lab.between.transport(address_of(name)),
        )
        await node.start(Recorder())
        lab.nodes[name] = (node, Recorder())
    raws = [await _raw(lab, side) for side in ("a", "b", "between")]
    sent = 0
    for raw, kind, origin, destination, to in itertools.product(
        raws, Kind, NAMES, NAMES, ("a0", "a1", "b0", "b1")
    ):
        sent += raw.send(address_of(to), _envelope(kind, origin, destination))
    networks = (lab.between, *lab.inside.values())
    await eventually(lambda: not any(network._hub._frames for network in networks))
    passed_on = [lab.node(name).bridging.frames_passed_on for name in lab.nodes]
    await lab.end()

    assert 0 < min(passed_on)
    assert sum(passed_on) <= 2 * sent


async def test_what_is_no_envelope_ends_the_link_that_it_came_on(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """As every frame that nobody sends."""
    raw = lab.inside["a"].transport("raw.a.example:1")
    heard = Recorder()
    await raw.start(heard)

    raw.send(address_of("a0"), b"MB\x01\x09 nonsense")
    await eventually(lambda: heard.lost)

    assert 1 == lab.node("a0").bridging.frames_dropped_stray
    assert not lab.heard("a0").frames


async def test_a_refused_origin_does_not_cost_the_link_of_the_bridge(
    lab: BridgedLab, eventually: Eventually
) -> None:
    """Others behind it go on; nothing more is taken of the one for a second."""
    lab.send("b2", "a2", b"bad")
    await eventually(lambda: lab.heard("a2").frames)
    sender = lab.heard("a2").senders[0]
    lab.node("a2").close_sender(sender, reason=RejectReason.MALFORMED)
    lab.send("b2", "a2", b"unwanted")
    lab.send("b1", "a2", b"wanted")
    await eventually(lambda: lab.node("a2").bridging.frames_dropped_unwanted)
    await eventually(lambda: len(lab.heard("a2").frames) == 2)

    assert sender.startswith(address_of("b2"))
    assert b"wanted" == lab.heard("a2").frames[-1]
    assert not [lost for name in ("a0", "a1") for lost in lab.heard(name).lost]


async def test_an_address_of_no_region_is_dropped_and_counted(lab: BridgedLab) -> None:
    """Nobody is dialled for it, and nothing is known of it."""
    assert not lab.node("a2").send("stranger.example:7000", b"x")
    assert not lab.node("a0").send("stranger.example:7000", b"x")

    assert 1 == lab.node("a2").bridging.frames_dropped_unknown_region
    assert ["stranger.example:7000"] == lab.heard("a0").lost
    assert 0 == lab.node("a0").counters.dials


@pytest.mark.parametrize("origin", ["a2", "b0", "c0"])
async def test_no_way_of_anybody_but_a_bridge_of_the_region_is_not_believed(
    lab: BridgedLab, eventually: Eventually, origin: str
) -> None:
    """Nor of regions that there are none of."""
    raw = await _raw(lab, "a")
    raw.send(address_of("a1"), _envelope(Kind.NO_WAY, origin, "a1", b"b"))
    raw.send(address_of("a1"), _envelope(Kind.NO_WAY, "a0", "a2", b"b"))
    for region in (b"c", b"a", b"\xff", b"x" * 5000):
        raw.send(address_of("a1"), _envelope(Kind.NO_WAY, "a0", "a1", region))
    raw.send(address_of("a1"), b"the last")
    await eventually(lambda: lab.heard("a1").frames)

    assert 0 == lab.node("a1").bridging.detours
    assert 2 == lab.node("a1").bridging.frames_dropped_stray


async def test_ways_are_kept_of_so_many_only(lab: BridgedLab) -> None:
    """Of those that were sent to last; whoever is told free was told busy."""
    for turn in range(WAYS_MAX + 50):
        lab.send("a2", f"b{turn + 10}", b"x" * 200)
    hearing = lab.node("a2")._hearing
    told = lab.heard("a2").busy

    assert hearing is not None
    assert len(hearing.ways._ways) == WAYS_MAX
    assert len(hearing.ways._busy_told) <= WAYS_MAX
    assert all((address, True) in told for address, is_busy in told if not is_busy)


async def test_a_stranger_without_the_token_brings_no_envelope(
    anyio_backend: str, eventually: Eventually
) -> None:
    """Each link asks for it, on every leg."""
    between = MemoryNetwork()
    inside = TcpTransport("127.0.0.1:0", token="of the mesh")
    told = Regions({"a": ["127.0.0.0/8"]})
    node = BridgedTransport(inside, region="a", regions=told)
    heard = Recorder()
    await node.start(heard)
    stranger = TcpTransport("127.0.0.1:0", token="another")
    await stranger.start(Recorder())

    stranger.send(node.address, _envelope(Kind.IN, "b2", "a2"))
    await eventually(lambda: node.counters.hellos_refused)
    await stranger.close(drain_s=0)
    await node.close(drain_s=0)

    assert not heard.frames
    assert (0, 0) == (node.bridging.frames_dropped_stray, between.frames_lost)


def test_the_lab_has_two_bridges_on_each_side() -> None:
    """What the tests above take for granted."""
    assert [2, 2] == [len(regions().bridges_of(name)) for name in "ab"]
