"""Which bridge is asked, with a clock that is told: losses, their pauses, and no way at all."""

from __future__ import annotations

import math

import pytest
from support.bridged_lab import address_of, regions

from meshlib.aio import BridgeCounters, MemoryNetwork, MemoryTransport
from meshlib.aio.bridged.admitting import ORIGINS_MAX
from meshlib.aio.bridged.choosing import LOST_FIRST_S, LOST_MAX_S, TRIES_MAX, Choice
from meshlib.aio.bridged.envelopes import Envelope, Kind, put_in, read_envelope
from meshlib.aio.bridged.passing import TOLD_PAUSE_S, Passing

BRIDGES = ("a0", "a1", "a2", "b0", "b1", "b2")
THERE = address_of("b9")


class Clock:
    """Time that is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sent(MemoryTransport):
    """A transport that takes all or nothing, and keeps what it took."""

    def __init__(self) -> None:
        made = MemoryNetwork().transport(address_of("a9"))
        super().__init__(made._hub, made.address)
        self.taken: list[tuple[str, bytes]] = []
        self.takes = True
        self.is_full = False

    def send(self, address: str, data: bytes) -> bool:
        """Keep it, or not."""
        self.counters.frames_dropped_queue_full += self.is_full
        if self.takes:
            self.taken.append((address, data))
        return self.takes


@pytest.fixture
def clock() -> Clock:
    return Clock()


def new_choice(clock: Clock, *, own: str = "a9", between: Sent | None = None) -> Choice:
    """Make the choice of a node; of a bridge when it has what is between."""
    return Choice(
        regions(BRIDGES),
        region="a",
        address=address_of(own),
        inside=Sent(),
        between=between,
        clock=clock,
    )


def asked(choice: Choice) -> list[str]:
    """Return whom a frame is offered to, in order."""
    return [hop.bridge for hop in choice.hops("b", THERE)]


def test_a_lost_bridge_is_last_for_ever_longer_and_then_first_again(clock: Clock) -> None:
    """Half a second, one, two, up to sixteen."""
    choice = new_choice(clock)
    first, *others = asked(choice)
    for_s = LOST_FIRST_S
    for _ in range(10):
        choice.lost(first)
        clock.now += for_s - 0.001
        assert [*others, first] == asked(choice)
        clock.now += 0.001
        assert [first, *others] == asked(choice)
        for_s = min(LOST_MAX_S, for_s * 2)


def test_one_loss_that_many_tell_of_is_one(clock: Clock) -> None:
    """Each frame and link does."""
    choice = new_choice(clock)
    first, *_ = asked(choice)
    for _ in range(100):
        choice.lost(first)
    clock.now += LOST_FIRST_S

    assert first == asked(choice)[0]


def test_a_bridge_that_is_heard_is_asked_at_once_and_forgiven(clock: Clock) -> None:
    """Also one that was to be passed over for long."""
    choice = new_choice(clock)
    first, *_ = asked(choice)
    choice.lost(first, at_least_s=math.inf)
    choice.lost(first, "b")
    clock.now += 1e6
    assert first == asked(choice)[-1]
    choice.heard(first)
    before = asked(choice)[0]
    choice.lost(first)
    clock.now += LOST_FIRST_S

    assert [first, first] == [before, asked(choice)[0]]


def test_with_all_of_them_lost_the_next_to_be_forgiven_is_tried(clock: Clock) -> None:
    """Nobody is given up for good."""
    choice = new_choice(clock)
    order = asked(choice)
    for bridge in reversed(order):
        choice.lost(bridge)
        clock.now += 0.1

    assert list(reversed(order)) == asked(choice)


def test_a_bridge_without_a_way_to_one_region_has_ways_to_others(clock: Clock) -> None:
    """What it said holds for that region."""
    told = regions((*BRIDGES, "c0"), names="abc")
    choice = Choice(
        told, region="a", address=address_of("a9"), inside=Sent(), between=None, clock=clock
    )
    first = choice.hops("b", THERE)[0].bridge
    to_c = choice.hops("c", address_of("c9"))[0].bridge
    choice.lost(first, "b")

    assert first != choice.hops("b", THERE)[0].bridge
    assert to_c == choice.hops("c", address_of("c9"))[0].bridge


def test_a_bridge_goes_across_itself_and_by_another_when_it_cannot(clock: Clock) -> None:
    """Cut off from what is between, it asks those of its own region."""
    choice = new_choice(clock, own="a0", between=Sent())
    before = [hop.kind for hop in choice.hops("b", THERE)]
    choice.between_changed(is_up=False)
    after = choice.hops("b", THERE)
    passing = choice.hops("b", THERE, is_passing=True)
    choice.between_changed(is_up=True)

    assert [Kind.ACROSS] * TRIES_MAX == before
    assert [Kind.OUT, Kind.OUT, Kind.ACROSS] == [hop.kind for hop in after]
    assert all(hop.kind is Kind.ACROSS and hop.until == math.inf for hop in passing)
    assert before == [hop.kind for hop in choice.hops("b", THERE)]


def test_a_bridge_that_a_frame_is_for_is_the_first_choice(clock: Clock) -> None:
    """It is there itself, and a link of one's own leads to it while it is not lost."""
    choice = new_choice(clock, own="a0", between=Sent())
    for name in ("b0", "b1", "b2"):
        address = address_of(name)
        assert (address, True) == (choice.hops("b", address)[0].bridge, choice.is_next(address))
    choice.lost(address_of("b0"))

    assert not choice.is_next(address_of("b0"))
    assert not choice.is_next(address_of("a1"))
    assert not new_choice(clock).is_next(address_of("b1"))


def new_passing(clock: Clock, choice: Choice, inside: Sent, counters: BridgeCounters) -> Passing:
    """Make the work of the bridge a0."""
    return Passing(
        choice,
        regions=regions(BRIDGES),
        address=address_of("a0"),
        inside=inside,
        counters=counters,
        clock=clock,
    )


def envelope_of(origin: str) -> tuple[bytes, Envelope]:
    """Return a frame on its first leg."""
    (data,) = put_in(b"x", kind=Kind.OUT, destination=THERE, origin=address_of(origin))
    envelope = read_envelope(data)
    assert envelope is not None
    return data, envelope


def test_a_node_is_told_of_no_way_once_in_a_while(clock: Clock) -> None:
    """However much it sends; each of them is tried all the same."""
    inside, between, counters = Sent(), Sent(), BridgeCounters()
    choice = new_choice(clock, own="a0", between=between)
    passing = new_passing(clock, choice, inside, counters)
    choice.between_changed(is_up=False)
    for _ in range(2):
        for _ in range(50):
            passing.out(*envelope_of("a5"))
        clock.now += TOLD_PAUSE_S
    told = [read_envelope(data) for _, data in inside.taken]

    assert [(Kind.NO_WAY, b"b")] * 2 == [(one.kind, one.frame) for one in told if one is not None]
    assert (100, 100) == (len(between.taken), counters.frames_passed_on)


def test_who_was_told_of_no_way_is_remembered_of_so_many(clock: Clock) -> None:
    """Origins are what anybody writes."""
    inside, between, counters = Sent(), Sent(), BridgeCounters()
    choice = new_choice(clock, own="a0", between=between)
    passing = new_passing(clock, choice, inside, counters)
    choice.between_changed(is_up=False)
    for number in range(ORIGINS_MAX + 9):
        passing.out(*envelope_of(f"a{number}"))

    assert ORIGINS_MAX == len(passing._told)


def test_what_no_link_takes_is_counted_by_its_reason(clock: Clock) -> None:
    """A full queue is another thing than nobody there."""
    inside, between, counters = Sent(), Sent(), BridgeCounters()
    choice = new_choice(clock, own="a0", between=between)
    passing = new_passing(clock, choice, inside, counters)
    between.takes = inside.takes = False
    passing.out(*envelope_of("a5"))
    passing.inwards(*envelope_of("a5"))
    between.is_full = True
    passing.out(*envelope_of("a5"))

    assert (2, 1, 0) == (
        counters.frames_dropped_no_way,
        counters.frames_dropped_overloaded,
        counters.frames_passed_on,
    )
