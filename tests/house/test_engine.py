"""The joints of the engine: verbs outside, one direction inside, one place that forgets."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.mini_network import MiniNetwork

import meshlib.gossip
from meshlib.gossip import Engine
from meshlib.gossip.parts import Parts
from meshlib.node import MeshNode

ROOM = Path(meshlib.gossip.__file__).parent
MODULES = sorted(ROOM.rglob("*.py"))
NODE = sorted(Path(inspect.getfile(MeshNode)).parent.glob("*.py"))

PUBLIC_NAMES = {name for name in vars(Engine) if not name.startswith("_")}


@pytest.fixture
def node() -> MeshNode:
    """Return a node that has just begun."""
    network = MiniNetwork()
    network.start("n0")
    return network.nodes["n0"]


def parts_of(node: MeshNode) -> dict[str, Any]:
    """Return the parts of a node's engine, by name."""
    return vars(node._engine._parts)


def attributes_of_engine(path: Path) -> Iterator[ast.Attribute]:
    """Yield every `self._engine.NAME` of a module."""
    for each in ast.walk(ast.parse(path.read_text())):
        if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self._engine":
            yield each


def test_a_node_uses_the_engine_by_its_verbs_alone() -> None:
    """It reads none of its parts, and sets nothing in it."""
    used = [each for path in NODE for each in attributes_of_engine(path)]

    assert len(used) > 20
    assert {each.attr for each in used} <= PUBLIC_NAMES | {"_check"}
    assert [each.attr for each in used if not isinstance(each.ctx, ast.Load)] == []


def test_the_engine_hands_out_none_of_its_parts(node: MeshNode) -> None:
    """Whatever is public of it is a verb or a fact: what it is made of nobody gets hold of."""
    engine = node._engine
    facts = [name for name in PUBLIC_NAMES if isinstance(getattr(Engine, name), property)]
    parts = {id(part) for name, part in parts_of(node).items() if name != "counters"}

    assert facts
    assert [name for name in facts if id(getattr(engine, name)) in parts] == []
    assert [name for name in vars(engine) if not name.startswith("_")] == []


def constructors() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every constructor of the engine's room, with where it stands."""
    for path in MODULES:
        for each in ast.walk(ast.parse(path.read_text())):
            if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                yield str(path.relative_to(ROOM)), each


def test_no_part_is_given_a_function_to_call_back() -> None:
    """So calls go from a part to those that it was given, and come back as what they return."""
    found = list(constructors())

    assert len(found) > 15
    assert [where for where, each in found if "Callable" in ast.unparse(each.args)] == []


def test_a_part_is_given_only_what_was_made_before_it() -> None:
    """With it all calls have one direction: nothing is set in a part once the parts are made."""
    tree = ast.parse(inspect.getsource(Parts))
    targets = [
        ast.unparse(target)
        for each in ast.walk(tree)
        if isinstance(each, ast.Assign)
        for target in each.targets
        if isinstance(target, ast.Attribute)
    ]

    assert len(targets) > 15
    assert len(set(targets)) == len(targets)
    assert [target for target in targets if target.count(".") != 1] == []


def test_a_member_is_forgotten_in_one_place() -> None:
    """The parts are told to forget by `Acquaintances`, and that by whoever decides it."""
    askers = {
        (str(path.relative_to(ROOM)), ast.unparse(each.func))
        for path in MODULES
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.Call)
        and isinstance(each.func, ast.Attribute)
        and each.func.attr == "forget"
    }

    assert askers == {
        ("acquaintances.py", "keeper.forget"),
        ("members/roster.py", "self._acquaintances.forget"),
        ("upkeep.py", "self._replica.forget"),  # a writer, which is no member
    }


def test_whoever_can_forget_a_member_is_asked_to(node: MeshNode) -> None:
    """A new part that keeps something about members is among them."""
    acquaintances = node._engine._parts.acquaintances
    asked = {id(each) for each in (*acquaintances._of_starts, *acquaintances._of_members)}
    able = {
        name: part
        for name, part in {**parts_of(node), "members": node._engine._parts.view.members}.items()
        if hasattr(part, "forget") and name not in ("acquaintances", "replica")
    }

    assert len(able) > 5
    assert [name for name, part in able.items() if id(part) not in asked] == []


def test_every_part_that_keeps_something_shows_and_checks_it(node: MeshNode) -> None:
    """A new part of the engine is looked into like the others, or says that it keeps nothing."""
    asked = {id(part) for part in node._engine._parts.inspectable().values()}
    kept = {name for name, part in parts_of(node).items() if id(part) not in asked}

    assert len(asked) > 30
    assert kept == {"counters"}, "they only grow"
