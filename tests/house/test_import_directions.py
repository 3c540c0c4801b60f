"""The house: every import goes down, through a door, and none goes up or round in a circle."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOORS = (
    {"errors", "limits", "hashing", "arguments", "invariants"},
    {"clock", "codec", "reading", "identity", "ring", "prefix"},
    {"crdt", "membership"},
    {"replication", "state"},
    {"gossip", "ratelimit", "routing"},
    {"sync", "startup", "node"},
    {"aio", "testing"},
)
"""The rooms of the library, floor by floor from the ground up: `docs` draws the same house."""

LEANS_ON = {
    "arguments": {"errors"},
    "invariants": {"errors"},
    "reading": {"codec", "clock", "identity"},
    "state": {"replication"},
    "node": {"sync", "startup"},
}
"""Neighbours on one floor: the first is made on top of the second, which knows nothing of it."""

OPEN_MODULES = {
    "meshlib.crdt.registry": "said whole, as `registry.encode`: what it holds needs its name",
}
"""Modules behind a door that other rooms may name; everything else is had at the door."""

READS_WHAT_TRAVELS = "meshlib.testing.checkers.inside"
"""Reads frames as nodes do, for which no door is open."""

ASKED_ACROSS_ROOMS = {"_check"}
"""Private names that every room knows: the check of a structure's invariants, which calls on."""

SANS_IO_FORBIDDEN = {
    "asyncio", "socket", "ssl", "threading", "multiprocessing", "subprocess", "time", "datetime",
    "os", "io", "pathlib", "sqlite3", "select", "selectors", "signal", "secrets", "uuid",
    "pickle", "logging",
}  # fmt: skip
SANS_IO_FLOORS = FLOORS[:-1]


class Import(NamedTuple):
    """One name that a file imports.

    Args:
        target: the module that is named, which is `name` itself where that is a module.
        name: what is taken of it; empty for a whole module.
        is_for_types: whether only a type checker follows it.
    """

    target: str
    name: str
    is_for_types: bool


def module_name(path: Path) -> str:
    """Return the dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


LIBRARY = {module_name(path): path for path in sorted((ROOT / "meshlib").rglob("*.py"))}
SERVER = {module_name(path): path for path in sorted((ROOT / "meshlib_server").rglob("*.py"))}
HOUSE = {**LIBRARY, **SERVER}
DOORS = {module for module, path in HOUSE.items() if path.name == "__init__.py"}
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS, 1) for room in floor}


@cache
def tree_of(module: str) -> ast.Module:
    """Return the parsed file of a module."""
    return ast.parse(HOUSE[module].read_text())


@cache
def exports_of(door: str) -> frozenset[str]:
    """Return the names that a module offers in its `__all__`."""
    for node in tree_of(door).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    """Return every import of a module, wherever in the file it stands."""
    tree = tree_of(module)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, "", id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the direction"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner in HOUSE and alias.name not in exports_of(node.module)
                target, name = (inner, "") if is_module else (node.module, alias.name)
                found.append(Import(target, name, id(node) in typing_only))
    return tuple(found)


def room_of(module: str) -> str | None:
    """Return the room of a module of the library, or None for the front and for others."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "meshlib" else None


def targets_of(module: str) -> set[str]:
    """Return the modules that a module imports."""
    return {each.target for each in imports_of(module)}


def circles(graph: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Yield one line for each circle that a walk along the arrows meets."""
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> Iterator[str]:
        if name in trail:
            yield " -> ".join((*trail[trail.index(name) :], name))
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                yield from visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, ())


def test_every_room_has_a_floor() -> None:
    """A new room is given its floor before it is imported, and one only."""
    rooms = {room for module in LIBRARY if (room := room_of(module)) is not None}

    assert rooms <= set(FLOOR_OF)
    assert sum(len(floor) for floor in FLOORS) == len(FLOOR_OF)


def test_neighbours_lean_one_way() -> None:
    """Who leans on a neighbour stands beside it, on the same floor, and no two lean together."""
    pairs = {(room, other) for room, others in LEANS_ON.items() for other in others}

    assert [pair for pair in pairs if FLOOR_OF[pair[0]] != FLOOR_OF[pair[1]]] == []
    assert list(circles(LEANS_ON)) == []


def found(look: Callable[[str], set[str]], modules: Iterable[str]) -> dict[str, set[str]]:
    """Return what a look finds in each module in which it finds anything."""
    return {module: here for module in modules if (here := look(module))}


def rooms_out_of_order(module: str) -> set[str]:
    """Return the rooms that a module imports and may not."""
    own = room_of(module)
    if own is None:
        return set()
    allowed = {room for room, floor in FLOOR_OF.items() if floor < FLOOR_OF[own]}
    allowed |= {own} | LEANS_ON.get(own, set())
    rooms = {room_of(target) for target in targets_of(module) if target in LIBRARY}

    return {str(room) for room in rooms - allowed}


def test_a_room_imports_only_rooms_on_lower_floors() -> None:
    """A module imports its own room, rooms below it, or a neighbour that its room leans on."""
    assert found(rooms_out_of_order, LIBRARY) == {}


def tops_of(module: str) -> set[str]:
    """Return the packages that a module imports from."""
    return {target.split(".")[0] for target in targets_of(module)}


def test_the_core_is_without_io() -> None:
    """Below the top floor nothing imports asyncio, sockets, threads, files or clocks."""
    core = [name for name in LIBRARY if any(room_of(name) in floor for floor in SANS_IO_FLOORS)]

    assert len(core) > 100
    assert found(lambda module: tops_of(module) & SANS_IO_FORBIDDEN, core) == {}


def strangers_of(module: str) -> set[str]:
    """Return the packages of others that a module imports and may not."""
    forbidden = {"msgpack", "xxhash", "meshlib_server"}
    forbidden -= {"meshlib.codec": {"msgpack"}, "meshlib.hashing": {"xxhash"}}.get(module, set())
    if room_of(module) != "testing":
        forbidden |= {"hypothesis", "starlette", "click", "yaml", "cattrs"}
    return tops_of(module) & forbidden


def test_third_party_modules_are_confined() -> None:
    """Only `codec` imports msgpack, only `hashing` imports xxhash; the library has no others."""
    assert found(strangers_of, LIBRARY) == {}


def names_past_a_door(module: str) -> set[str]:
    """Return what a module of the library has of another room and not by its door."""
    own = room_of(module)
    if own is None or module == READS_WHAT_TRAVELS:
        return set()
    return {
        f"{each.target}.{each.name}".rstrip(".")
        for each in imports_of(module)
        if (room := room_of(each.target)) not in (None, own)
        and each.target not in OPEN_MODULES
        and not (each.target == f"meshlib.{room}" and each.name in exports_of(each.target))
    }


def test_other_rooms_are_entered_by_their_doors() -> None:
    """What is had of another room is a name that its door exports, or one of the open modules."""
    assert found(names_past_a_door, LIBRARY) == {}


def names_past_the_library_s_doors(module: str) -> set[str]:
    """Return what a module of the server has of the library and not by a door."""
    doors = {"meshlib"} | {f"meshlib.{room}" for room in FLOOR_OF}
    return {
        f"{each.target}.{each.name}"
        for each in imports_of(module)
        if each.target.partition(".")[0] == "meshlib"
        if each.target not in doors or each.name not in exports_of(each.target)
    }


def test_the_server_imports_only_what_the_library_exports() -> None:
    """The server uses the rooms' public doors, never the modules inside them."""
    assert found(names_past_the_library_s_doors, SERVER) == {}


def adapters_of(module: str) -> set[str]:
    """Return the adapters, and what they are made of, that a module imports and may not."""
    if module.startswith("meshlib_server.adapters."):
        own = ".".join(module.split(".")[:3])
        return {
            target
            for target in targets_of(module)
            if target.startswith("meshlib_server.adapters.") and not target.startswith(own)
            if target in DOORS or target.count(".") > 2  # a file of the room itself is for all
        }
    strangers = {"grpc", "grpc_health", "google", "envoy", "litellm"}
    return {
        target
        for target in targets_of(module)
        if target.startswith("meshlib_server.adapters") or target.split(".")[0] in strangers
    }


def test_nothing_imports_an_adapter() -> None:
    """Not the library, not the server, and no adapter another one; nor what is made for them."""
    assert sum(module.startswith("meshlib_server.adapters.") for module in HOUSE) > 5
    assert found(adapters_of, HOUSE) == {}


def names_by_the_own_door(module: str) -> set[str]:
    """Return what a module takes from the door of the room it is in."""
    return {
        f"{each.target}.{each.name}"
        for each in imports_of(module)
        if each.target in DOORS and module.startswith(each.target + ".") and each.name
    }


def test_no_room_takes_what_is_its_own_from_its_door() -> None:
    """Inside a room a name comes from the file that defines it: doors are for who comes in."""
    assert found(names_by_the_own_door, HOUSE) == {}


def private_imports_of(module: str) -> set[str]:
    """Return the private names that a module imports."""
    return {
        f"{each.target}.{each.name}"
        for each in imports_of(module)
        if each.target in HOUSE
        for part in (*each.target.split("."), each.name)
        if part.startswith("_") and not part.startswith("__")
    }


def test_no_private_name_is_imported() -> None:
    """A name that begins with `_` stays in its file, and so does what a module hides."""
    assert found(private_imports_of, HOUSE) == {}


def private_names_of(folder: str) -> set[str]:
    """Return the private names that the files of one folder define, of whatever kind."""
    names: set[str] = set()
    for module, path in HOUSE.items():
        if module_name(path.parent / "__init__.py") != folder:
            continue
        for node in ast.walk(tree_of(module)):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names.add(name)
                case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                    names.add(name)
                case ast.Constant(value=str(name)):  # in __slots__
                    names.add(name)
    return {name for name in names if name.startswith("_")}


FOLDERS = {module: module_name(path.parent / "__init__.py") for module, path in HOUSE.items()}
PRIVATE_NAMES = {folder: private_names_of(folder) for folder in set(FOLDERS.values())}


def foreign_attributes_of(module: str) -> set[str]:
    """Return the private attributes of other rooms that a module reads or sets."""
    known = PRIVATE_NAMES[FOLDERS[module]] | ASKED_ACROSS_ROOMS
    return {
        ast.unparse(node)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in known
    }


def test_no_room_reads_a_private_attribute_of_another() -> None:
    """`other._name` is written only in the folder that defines `_name`."""
    assert found(foreign_attributes_of, HOUSE) == {}


def test_modules_do_not_import_in_a_circle() -> None:
    """No module of the house needs itself, not even for its types.

    A door re-exports what is inside; who is inside does not wait for the door.
    """
    graph = {
        module: {
            target
            for target in targets_of(module) & HOUSE.keys() - {module}
            if not (target in DOORS and module.startswith(target + "."))
        }
        for module in HOUSE
    }

    assert list(circles(graph)) == []


@pytest.mark.parametrize("door", sorted(DOORS))
def test_what_stands_in_a_room_does_not_import_in_a_circle(door: str) -> None:
    """The files and sub-rooms of a room, each taken as one, stand above each other too.

    What only a type checker follows is left out: a protocol may name a type that is made above.
    """

    def part_of(module: str) -> str | None:
        """Return the file or sub-room of this room that a module is, or is in."""
        depth = door.count(".") + 2
        return ".".join(module.split(".")[:depth]) if module.startswith(door + ".") else None

    graph: dict[str, set[str]] = {}
    for module in HOUSE:
        own = part_of(module)
        if own is not None:
            needed = {part_of(each.target) for each in imports_of(module) if not each.is_for_types}
            graph.setdefault(own, set()).update({part for part in needed if part} - {own})

    assert list(circles(graph)) == []
