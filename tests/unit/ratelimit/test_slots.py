"""Slots: never more at once than the limit, and none that stays with the dead."""

from __future__ import annotations

from typing import Any

import pytest
from support.slot_lab import SLOTS, QuietSlotLab, SlotLab

from meshlib.errors import InvalidFieldError, InvalidTypeError, RemoteError
from meshlib.ratelimit.slots.owning import OPENS_AFTER_S
from meshlib.ratelimit.slots.wire import Grants, Report


def test_the_law_holds_under_every_fault_at_once() -> None:
    """Killed, left, cut off, restarted, lost, late, repeated, with wrong clocks; and it is used."""
    labs = [SlotLab(seed, duration_s=9.0).run() for seed in (1, 5, 52)]

    assert all(lab.confirmed > 20 for lab in labs)
    assert {"one": 1, "few": 3, "lots": 12} == labs[0].most


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 20, 40, 100])
def test_the_law_holds_for_many_seeds(first: int) -> None:
    """The same, for longer; each lab raises where it does not."""
    confirmed = [SlotLab(seed).run().confirmed for seed in range(first, first + 20)]

    assert sum(confirmed) > 1_000


def test_all_slots_are_given_and_not_one_more() -> None:
    """Over three machines, by the owner's word."""
    lab = QuietSlotLab(3)
    names = list(lab.machines)
    tickets = [lab.ask_for(names[number % 3], "lots") for number in range(12)]
    refused = lab.ask_for(names[0], "lots")

    assert all(ticket.decision and ticket.decision.confirmed for ticket in tickets)
    assert refused.decision is not None
    assert (False, True) == (refused.decision.allowed, refused.decision.confirmed)
    assert refused.decision.retry_after_s > 0
    assert "12 at once" == refused.decision.policy
    assert 12 == lab.vouched("lots")


def test_a_slot_that_is_given_back_goes_to_who_waits_elsewhere() -> None:
    """Within the time in which it might have been used again, and a round trip."""
    lab = QuietSlotLab(3)
    first, second = lab.others("one")
    ticket = lab.ask_for(first, "one")
    lab.ask_for(second, "one", wait_s=5.0)
    assert [ticket] == lab.tickets

    assert ticket.slot is not None
    lab.end(first, 1, ticket.slot)
    lab.run_for(0.05)

    assert 2 == len(lab.tickets)
    assert lab.tickets[1].decision


@pytest.mark.parametrize("is_owner", [True, False])
def test_the_slots_of_a_dead_holder_are_free_again(is_owner: bool) -> None:
    """Without a word from it, once its lease is over; where it was the owner, a while later."""
    lab = QuietSlotLab(3)
    owner = lab.owner("few")
    holder, other = (owner, lab.others("few")[0]) if is_owner else lab.others("few")
    for _ in range(SLOTS["few"]):
        assert lab.ask_for(holder, "few").decision
    machine = lab.machines[holder]
    machine.limiter = None
    for name in lab.machines:
        lab.at(lab.now + 1.0, lab.notice, name, holder)

    lab.run_for(0.5)
    refused = lab.ask_for(other, "few") if not is_owner else None
    assert refused is None or not refused.decision
    lab.run_for(OPENS_AFTER_S + (2.0 if is_owner else 0.0))
    ticket = lab.ask_for(other, "few", wait_s=1.0)

    assert ticket.decision is not None
    assert (True, True) == (ticket.decision.allowed, ticket.decision.confirmed)


def test_a_new_owner_knows_who_holds_what() -> None:
    """The holders tell it: nothing is granted twice when the owner dies."""
    lab = QuietSlotLab(3)
    owner = lab.owner("few")
    first, second = lab.others("few")
    for _ in range(SLOTS["few"]):
        assert lab.ask_for(first, "few").decision
    lab.machines[owner].limiter = None
    for name in lab.machines:
        lab.at(lab.now + 1.0, lab.notice, name, owner)
    lab.run_for(5.0)

    assert 3 == lab.vouched("few")
    assert not lab.ask_for(second, "few").decision


def test_who_waits_a_moment_waits_for_an_owner_that_begins_too() -> None:
    """A little patience is not worth less than none: nobody is told of slots that nobody has."""
    lab = QuietSlotLab(3)
    owner = lab.owner("few")
    lab.machines[owner].limiter = None
    for name in lab.machines:
        lab.at(lab.now + 0.1, lab.notice, name, owner)
    asker = lab.others("few")[0]

    for _ in range(24):
        lab.ask(asker, "few", 0.2)
        lab.run_for(0.25)
        decisions = [ticket.decision for ticket in lab.tickets if ticket.decision is not None]
        is_told = any(decision.confirmed and not decision for decision in decisions)
        assert not is_told or SLOTS["few"] == len(lab.slots[asker, 1])

    assert SLOTS["few"] == len(lab.slots[asker, 1])


def test_who_reaches_no_owner_has_an_equal_part() -> None:
    """Not confirmed; and once its leases are over it is vouched for no more."""
    lab = QuietSlotLab(3)
    cut_off = lab.others("few")[0]
    assert lab.ask_for(cut_off, "few").decision
    lab.machines[cut_off].side = 1
    lab.run_for(3.0)
    assert 0 == lab.vouched("few")

    lab.ask(cut_off, "few", 0.0)
    lab.run_for(1.0)
    decision = lab.tickets[-1].decision

    assert decision is not None
    assert (False, False) == (decision.allowed, decision.confirmed)
    slot = lab.slots[cut_off, 1][0]
    lab.end(cut_off, 1, slot)
    lab.ask(cut_off, "few", 0.0)
    lab.run_for(1.0)
    decision = lab.tickets[-1].decision
    assert decision is not None
    assert (True, False) == (decision.allowed, decision.confirmed)


def test_those_who_wait_on_two_nodes_are_served_in_turn() -> None:
    """However many wait on one of them."""
    lab = QuietSlotLab(3)
    first, second = lab.others("one")
    running = lab.ask_for(first, "one")
    for _ in range(6):
        lab.ask(first, "one", 30.0)
    lab.ask(second, "one", 30.0)
    lab.run_for(1.0)
    names = []
    for _ in range(3):
        [(name, _)] = [place for place, slots in lab.slots.items() if slots]
        names.append(name)
        assert running.slot is not None
        lab.end(name, 1, running.slot)
        lab.run_for(0.6)
        running = lab.tickets[-1]

    assert second in names[1:]


@pytest.mark.parametrize(
    ("key", "limit", "wait_s", "error"),
    [
        ("", 1, 0.0, InvalidFieldError),
        ("k" * 1_001, 1, 0.0, InvalidFieldError),
        ("\ud800", 1, 0.0, InvalidFieldError),
        (7, 1, 0.0, InvalidTypeError),
        ("k", 0, 0.0, InvalidFieldError),
        ("k", True, 0.0, InvalidTypeError),
        ("k", 1_000_001, 0.0, InvalidFieldError),
        ("k", 1, -1.0, InvalidFieldError),
        ("k", 1, float("nan"), InvalidFieldError),
        ("k", 1, "1", InvalidTypeError),
    ],
)
def test_what_cannot_be_is_refused(
    key: Any, limit: Any, wait_s: Any, error: type[Exception]
) -> None:
    """And nothing is asked."""
    lab = QuietSlotLab(1)
    limiter = lab.machines["m0"].limiter
    assert limiter is not None
    now = lab.local(lab.machines["m0"])
    with pytest.raises(error):
        limiter.ask_slot(key, limit=limit, wait_s=wait_s, now=now)


@pytest.mark.parametrize("kind", [Report, Grants])
@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x90", b"\x94\x03\x00\x00\x00"])
def test_what_is_no_message_is_refused(kind: type[Report | Grants], data: bytes) -> None:
    """As a peer's fault, before anything has changed."""
    with pytest.raises(RemoteError):
        kind.decode(data)
