"""Whatever may come, and whatever may be due, has a handler."""

from __future__ import annotations

import ast
from pathlib import Path

from support.mini_network import MiniNetwork

import meshlib.gossip
from meshlib.gossip.messages.kinds import MESSAGE_TYPES

ROOM = Path(meshlib.gossip.__file__).parent


def timer_kinds() -> set[str]:
    """Return the kinds of all timers that the room makes, from its source."""
    kinds = set()
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Timer":
                kind = node.args[0]
                assert isinstance(kind, ast.Constant | ast.Attribute), ast.unparse(node)
                kinds.add(str(kind.value) if isinstance(kind, ast.Constant) else ast.unparse(kind))
    return kinds


def test_every_message_has_a_handler(trio: MiniNetwork) -> None:
    """One that had none would end the node that gets it."""
    assert set(trio.nodes["n0"]._engine._message_handlers) == set(MESSAGE_TYPES)


def test_every_message_has_a_number_of_its_own() -> None:
    """And so a decoder."""
    assert len({kind.code for kind in MESSAGE_TYPES}) == len(MESSAGE_TYPES)


def test_every_kind_of_timer_has_a_handler(trio: MiniNetwork) -> None:
    """One that had none would end the node that it is due on, and one too many is dead code."""
    assert set(trio.nodes["n0"]._engine._timer_handlers) == timer_kinds()
