"""Nodes in processes of their own, over TCP, and the signals that befall processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

pytestmark = pytest.mark.anyio

CHILD = Path(__file__).with_name("mesh_child.py")


class Child:
    """A process with one node in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.address = ""

    async def ask(self, **order: Any) -> Any:
        """Send one line and return the answer to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self.read()

    async def read(self) -> Any:
        """Return the next line of the process."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            line = await self.process.stdout.readline()
        assert line, "the node's process has ended"
        return json.loads(line)

    async def until(self, condition: Callable[[Any], bool], **order: Any) -> Any:
        """Ask again and again until the answer is right; fail after half a minute."""
        async with asyncio.timeout(30):
            while True:
                answer = await self.ask(**order)
                if condition(answer):
                    return answer
                await asyncio.sleep(0.01)

    async def leave(self) -> int:
        """Let the node leave, and return the exit code of its process."""
        assert self.process.stdin is not None
        self.process.stdin.write(b'{"leave": 1}\n')
        async with asyncio.timeout(10):
            return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)


Trio = tuple[Child, Child, Child]


class Start(Protocol):
    """Starts a node by its name; the seeds are nodes that run already."""

    async def __call__(
        self, name: str, *seeds: Child, listen: str = ..., file: str | Path = ...
    ) -> Child: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def start(anyio_backend: str) -> AsyncIterator[Start]:
    """Start nodes by name; their processes are killed at the end."""
    made: list[Child] = []

    async def start(
        name: str, *seeds: Child, listen: str = "127.0.0.1:0", file: str | Path = ""
    ) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), name, listen, str(file), *(seed.address for seed in seeds),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26,
        )  # fmt: skip
        child = Child(process)
        made.append(child)
        child.address = await child.read()
        return child

    yield start
    for child in made:
        if child.process.returncode is None:
            child.process.kill()
        await child.process.communicate()


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


async def test_a_process_that_leaves_ends_in_order_and_is_seen_to_leave(trio: Trio) -> None:
    """It exits with 0, and what it wrote last is with the others."""
    one, two, three = trio
    await three.ask(fill=[100, 5000])

    assert 0 == await three.leave()

    for child in (one, two):
        await child.until(lambda members: members["three"] == "Leaving", members=1)
        await child.until(lambda count: count == 100, count=1)


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
