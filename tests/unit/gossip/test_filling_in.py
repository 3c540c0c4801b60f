"""What a node lacks is sent by one peer, and told on as a hash."""

from __future__ import annotations

import pytest
from support.mini_network import MiniNetwork

from meshlib.gossip.entries.filling import ANSWER_S, QUIET_S, QUIET_S_MAX, Filling
from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.frames import decode_frame
from meshlib.gossip.messages.kinds import EntriesMessage
from meshlib.gossip.timers import TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.identity import actor_id
from meshlib.membership import MemberRecord, TopologyManager

KEYS = 60


@pytest.fixture
def filling() -> Filling:
    """Return one of a node that knows three others."""
    records = [
        MemberRecord(name=name, incarnation=1, address=f"{name}:1", actor=actor_id(name, 1))
        for name in ("me", "a", "b", "c")
    ]
    view = MembershipView(records[0], topology=TopologyManager("me"), fanout=3)
    for record in records:
        view.members.apply(record, now=0.0)
    return Filling(view=view, timers=TimerQueue(0.0))


def test_one_peer_is_asked_at_a_time(filling: Filling) -> None:
    """Others when it is done, or has not begun after a while."""
    asked = [filling.ask(name, 0.0, round_trip_s=0.01) for name in ("a", "b", "a")]
    late = filling.ask("b", ANSWER_S + 0.03, round_trip_s=0.01)

    assert asked == [True, False, True]
    assert late


def test_who_waited_is_compared_with_once_all_came(filling: Filling) -> None:
    """And not before."""
    for name in ("a", "b", "c"):
        filling.ask(name, 0.0, round_trip_s=0.0)
    filling.note_given("a", 0.005, is_much=False)
    early = filling.take_over(0.01)
    late = filling.take_over(0.005 + QUIET_S)

    assert early == ()
    assert late == ("b", "c")
    assert filling.asked == ""


def test_on_a_slow_link_the_next_piece_has_longer(filling: Filling) -> None:
    """Twice what the last one took, and a second at most."""
    filling.ask("a", 0.0, round_trip_s=1.0)
    filling.note_given("a", 0.3, is_much=False)
    filling.ask("b", 0.3, round_trip_s=0.0)

    assert filling.take_over(0.8) == ()
    assert filling.take_over(0.3 + QUIET_S_MAX) == ("b",)


def test_who_sends_more_once_it_hears_has_a_round_trip_for_it(filling: Filling) -> None:
    """However close together the pieces of one window came."""
    filling.ask("a", 0.0, round_trip_s=0.08)
    for at_s in (0.1, 0.1001, 0.1002):
        filling.note_given("a", at_s, is_much=True, goes_on=at_s == 0.1002)
    filling.ask("b", 0.11, round_trip_s=0.08)

    assert filling.take_over(0.19) == ()
    assert "b" in filling.take_over(0.5)


def test_much_is_told_on_to_those_it_would_be_pushed_to(filling: Filling) -> None:
    """Who gave it knows."""
    filling.ask("a", 0.0, round_trip_s=0.0)
    filling.note_given("a", 0.0, is_much=True)

    assert set(filling.take_over(1.0)) == {"b", "c"}


def test_who_is_gone_is_asked_for_nothing(filling: Filling) -> None:
    """Nor waited for."""
    filling.ask("a", 0.0, round_trip_s=5.0)
    filling.ask("b", 0.0, round_trip_s=0.0)
    filling.forget("a")
    filling.forget("b")
    filling._check()

    assert filling.take_over(0.01) == ()
    assert not filling._timers.of(TimerKind.FILLED)[1:]


@pytest.mark.slow
def test_two_halves_that_meet_send_once_what_differs(network: MiniNetwork) -> None:
    """Within a third of it, and within 0.3 s."""
    names = [f"n{index:02}" for index in range(16)]
    for name in names:
        network.start(name, seeds=("n00",))
    network.run(4.0)
    halves = names[::2], names[1::2]
    for one in halves[0]:
        for other in halves[1]:
            network.cut_both(one, other)
    for index in range(KEYS):
        for half in halves:
            network.put(half[index % 3], f"{half[0]} {index}", "x" * 60)
        network.run(0.05)
    network.run(12.0)
    lacking = sum(entry_bytes(network, half[0], other[0]) for half, other in (halves, halves[::-1]))
    sent_bytes = 0

    def count(frame: bytes) -> bool:
        nonlocal sent_bytes
        for message in decode_frame(frame, cluster="mesh").messages:
            if isinstance(message, EntriesMessage):
                sent_bytes += len(encode_message(message))
        return False

    network.cuts.clear()
    network.is_lost = count
    network.run_until(lambda: any(len(network.content(name)) > KEYS for name in names))
    took_s = network.run_until(
        lambda: all(len(network.content(name)) == 2 * KEYS for name in names)
    )
    network.run(0.2)

    assert took_s < 0.3
    assert sent_bytes <= 1.33 * lacking * len(names) / 2


def entry_bytes(network: MiniNetwork, giver: str, taker: str) -> int:
    """Return what one node has that another one lacks, as it is on the wire."""
    vector = network.nodes[taker].replica.advertised_vector()
    found = network.nodes[giver].replica.lacking(vector, bytes_max=1 << 30)
    return len(encode_message(EntriesMessage(tuple(found.entries))))
