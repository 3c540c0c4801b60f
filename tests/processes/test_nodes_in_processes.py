"""Nodes in processes of their own, over TCP, and the signals that befall processes."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest
from support.children import Child, Start

pytestmark = pytest.mark.anyio

Trio = tuple[Child, Child, Child]


@pytest.fixture
async def trio(start: Start) -> Trio:
    """Return three nodes that know each other."""
    one = await start("one")
    two = await start("two", one)
    three = await start("three", one)
    for child in (one, two, three):
        await child.until(lambda members: len(members) == 3, members=1)
    return one, two, three


async def test_a_write_reaches_the_other_processes(trio: Trio) -> None:
    """What one process writes the others read."""
    one, two, three = trio

    await two.ask(put={"colour": "blue"})

    for child in (one, three):
        await child.until(lambda content: content == {"colour": "blue"}, content=1)


async def test_a_killed_process_is_found_to_be_down_by_the_others(trio: Trio) -> None:
    """A kill leaves no goodbye."""
    one, two, three = trio

    three.signal(signal.SIGKILL)

    for child in (one, two):
        await child.until(lambda members: members["three"] == "Down", members=1)


@pytest.mark.slow
async def test_the_slots_of_a_killed_process_are_granted_to_another(trio: Trio) -> None:
    """All of them, by an owner's word, and not one before: nothing gives them back."""
    one, two, three = trio
    keys = ["a", "b", "c", "d", "e"]  # of which the holder owns some
    for key in keys:
        assert 4 == await three.ask(slots=[key, 4, 4, 10.0])
        assert 0 == await one.ask(slots=[key, 4, 1, 0.0])

    three.signal(signal.SIGKILL)

    for key in keys:
        assert 3 == await one.ask(slots=[key, 4, 3, 10.0])
        assert 1 == await two.ask(slots=[key, 4, 1, 10.0])
        assert 0 == await two.ask(slots=[key, 4, 1, 0.0])


@pytest.mark.slow
async def test_a_restarted_process_has_everything_again(trio: Trio, start: Start) -> None:
    """It comes back at its address, under its name, with what was written meanwhile."""
    one, two, three = trio
    await three.ask(put={"before": 1})
    await one.until(lambda content: "before" in content, content=1)
    three.signal(signal.SIGKILL)
    await one.until(lambda members: members["three"] == "Down", members=1)
    await two.ask(put={"meanwhile": 2})

    back = await start("three", one, listen=three.address)

    await back.until(lambda content: content == {"before": 1, "meanwhile": 2}, content=1)
    for child in (one, two):
        await child.until(lambda members: members["three"] == "Alive", members=1)


@pytest.mark.slow
async def test_a_process_that_leaves_ends_in_order_and_is_seen_to_leave(trio: Trio) -> None:
    """It exits with 0, and what it wrote last is with the others."""
    one, two, three = trio
    await three.ask(fill=[100, 5000])

    assert 0 == await three.leave()

    for child in (one, two):
        await child.until(lambda members: members["three"] == "Leaving", members=1)
        await child.until(lambda count: count == 100, count=1)


@pytest.mark.slow
async def test_a_stopped_process_holds_nobody_up_and_catches_up(trio: Trio) -> None:
    """Writes pass between the others while it stands still; then it gets them all."""
    one, two, three = trio
    three.signal(signal.SIGSTOP)

    await one.ask(fill=[200, 50_000])
    await two.until(lambda count: count == 200, count=1)
    three.signal(signal.SIGCONT)

    await three.until(lambda count: count == 200, count=1)
    for child in (one, two, three):
        await child.until(lambda members: set(members.values()) == {"Alive"}, members=1)


@pytest.mark.slow
async def test_a_whole_cluster_that_is_killed_comes_back_with_what_was_saved(
    start: Start, tmp_path: Path
) -> None:
    """Each process has a file; the kill may come in the middle of a save."""
    files = [tmp_path / "one.db", tmp_path / "two.db"]
    one = await start("one", file=files[0])
    two = await start("two", one, file=files[1])
    await one.ask(put={"colour": "blue"})
    await two.until(lambda content: content == {"colour": "blue"}, content=1)
    for file in files:
        await two.until(
            partial(lambda file, _: file.exists() and b"blue" in file.read_bytes(), file), count=1
        )
    await one.ask(fill=[100, 50_000])
    for child in (one, two):
        child.signal(signal.SIGKILL)
        await child.process.wait()

    one = await start("one", file=files[0], listen=one.address)
    two = await start("two", one, file=files[1], listen=two.address)

    for child in (one, two):
        await child.until(lambda content: content.get("colour") == "blue", content=1)
    await two.ask(put={"after": 1})
    await one.until(lambda content: "after" in content, content=1)
