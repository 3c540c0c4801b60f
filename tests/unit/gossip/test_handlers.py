"""Whatever may come, and whatever may be due, has a handler."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mini_network import MiniNetwork

import meshlib.gossip
from meshlib.gossip.messages.kinds import MESSAGE_TYPES
from meshlib.gossip.timers import TimerKind

ROOM = Path(meshlib.gossip.__file__).parent


def timer_kinds() -> set[TimerKind]:
    """Return the kinds of all timers that the room makes, from its source."""
    kinds = set()
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Timer":
                kind = node.args[0]
                assert isinstance(kind, ast.Attribute), ast.unparse(node)
                assert ast.unparse(kind.value) == "TimerKind", ast.unparse(node)
                kinds.add(TimerKind[kind.attr])
    return kinds


def test_every_message_has_a_handler(trio: MiniNetwork) -> None:
    """One that had none would end the node that gets it."""
    assert set(trio.nodes["n0"]._engine._dispatch.message_handlers) == set(MESSAGE_TYPES)


def test_every_message_has_a_number_of_its_own() -> None:
    """And so a decoder."""
    assert len({kind.code for kind in MESSAGE_TYPES}) == len(MESSAGE_TYPES)


def test_every_kind_of_timer_has_a_handler(trio: MiniNetwork) -> None:
    """One that had none would end the node that it is due on."""
    assert set(trio.nodes["n0"]._engine._dispatch.timer_handlers) == set(TimerKind)


def test_every_kind_of_timer_is_set_by_somebody() -> None:
    """One that nobody sets has a handler that is dead code."""
    assert timer_kinds() == set(TimerKind)


@pytest.mark.parametrize(
    ("table", "given"),
    [("message_handlers", ["message", "header", "now"]), ("timer_handlers", ["timer", "now"])],
)
def test_handlers_are_methods_of_one_signature(
    trio: MiniNetwork, table: str, given: list[str]
) -> None:
    """Nothing is bound on the spot, so whoever reads the table knows what is called with what."""
    handlers: dict[Any, Callable[..., Any]] = getattr(trio.nodes["n0"]._engine._dispatch, table)

    for handler in handlers.values():
        names = [name.lstrip("_") for name in inspect.signature(handler).parameters]
        assert inspect.ismethod(handler)
        assert names == given, handler.__qualname__
