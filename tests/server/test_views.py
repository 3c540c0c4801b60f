"""Who hears whom: a link that is broken in one direction shows, though all are Alive to all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from support.lookers import Lab

from meshlib.crdt import LWWMap
from meshlib_server.dashboard.views import VIEWS, read_views


async def until(is_so: Callable[[], Any], deadline_s: float = 30.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(deadline_s):
        while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.02)


@pytest.mark.slow
def test_while_all_hear_all_nothing_is_written() -> None:
    """A healthy cluster pays nothing for a matrix."""

    async def run() -> None:
        async with Lab() as lab:
            await asyncio.sleep(3 * lab.limit_s)
            for mesh in lab.nodes:
                assert {} == mesh.document(VIEWS, LWWMap).state.value
                assert [] == [name for names in read_views(mesh).values() for name in names]

    anyio.run(run)


@pytest.mark.slow
def test_a_link_that_is_broken_one_way_is_told_by_the_one_that_hears_nothing() -> None:
    """To all, and no longer once it is whole again."""

    async def run() -> None:
        async with Lab() as lab:
            a, b, c = lab.nodes
            lab.broken.add(("a:1", "b:1"))
            await until(lambda: read_views(c).get("b") == ["a"])
            assert {"Alive"} == {str(member.status) for member in c.members()}
            assert "a" not in read_views(c).get("c", [])
            assert "b" not in read_views(a).get("a", [])
            lab.broken.clear()
            await until(lambda: not any(read_views(c).values()))
            await until(lambda: {} == b.document(VIEWS, LWWMap).state.value)

    anyio.run(run)


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[1]", '"a"', "[[]]"])
def test_what_a_peer_wrote_and_is_no_list_of_names_says_nothing(text: str) -> None:
    """Whoever looks on sees the rest."""

    async def run() -> None:
        async with Lab() as lab:
            mesh = lab.nodes[0]
            mesh.document(VIEWS, LWWMap).write(
                lambda state, context: state.set(
                    "b", text, stamp=context.stamp(), sequence=context.sequence
                )
            )
            assert {"a": []} == read_views(mesh)

    anyio.run(run)
