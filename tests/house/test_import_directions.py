"""The house: every import goes down, none goes up or round in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOORS = {
    "errors": 1, "limits": 1, "hashing": 1,
    "clock": 2, "codec": 2, "identity": 2, "ring": 2, "prefix": 2,
    "crdt": 3, "membership": 3,
    "replication": 4, "state": 4.5,
    "gossip": 5, "ratelimit": 5, "routing": 5,
    "sync": 6, "node": 6.5,
    "aio": 7, "testing": 7,
}  # fmt: skip

SANS_IO_FORBIDDEN = {
    "asyncio", "socket", "ssl", "threading", "multiprocessing", "subprocess", "time", "datetime",
    "os", "io", "pathlib", "sqlite3", "select", "selectors", "signal", "secrets", "uuid",
    "pickle", "logging",
}  # fmt: skip

SERVER_MAY_IMPORT = {"meshlib"} | {f"meshlib.{room}" for room in FLOORS}


def python_files(package: str) -> list[Path]:
    """Return the package's modules, sorted."""
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    """Return the dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            assert node.module is not None
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str) -> str | None:
    """Return the room of a module of the library, or None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "meshlib" else None


LIBRARY = python_files("meshlib")
SERVER = python_files("meshlib_server")


def identify(path: Path) -> str:
    return module_name(path)


def test_every_room_has_a_floor() -> None:
    """A new room must be given its floor before it is imported."""
    rooms = {room_of(module_name(path)) for path in LIBRARY} - {None}

    assert rooms <= set(FLOORS)


@pytest.mark.parametrize("path", LIBRARY, ids=identify)
def test_a_room_imports_only_rooms_on_lower_floors(path: Path) -> None:
    """A module imports its own room, or rooms on floors below its own."""
    own = room_of(module_name(path))
    if own is None:
        return
    upward = {
        name
        for name in imported_modules(path)
        if (room := room_of(name)) in FLOORS and room != own and FLOORS[room] >= FLOORS[own]
    }

    assert upward == set()


@pytest.mark.parametrize("path", LIBRARY, ids=identify)
def test_the_core_is_without_io(path: Path) -> None:
    """Below floor 7 nothing imports asyncio, sockets, threads, files or clocks."""
    own = room_of(module_name(path))
    if own is None or FLOORS[own] >= 7:
        return
    tops = {name.split(".")[0] for name in imported_modules(path)}

    assert tops & SANS_IO_FORBIDDEN == set()


@pytest.mark.parametrize("path", LIBRARY, ids=identify)
def test_third_party_modules_are_confined(path: Path) -> None:
    """Only `codec` imports msgpack, only `hashing` imports xxhash; the library has no others."""
    module = module_name(path)
    tops = {name.split(".")[0] for name in imported_modules(path)}

    assert "msgpack" not in tops or module == "meshlib.codec"
    assert "xxhash" not in tops or module == "meshlib.hashing"
    assert "meshlib_server" not in tops
    if room_of(module) != "testing":
        assert tops & {"hypothesis", "starlette", "click", "yaml", "cattrs"} == set()


@pytest.mark.parametrize("path", SERVER, ids=identify)
def test_the_server_imports_only_what_the_library_exports(path: Path) -> None:
    """The server uses the rooms' public doors, never the modules inside them."""
    inner = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (name := node.module or "").startswith("meshlib.")
        if name not in SERVER_MAY_IMPORT
    }

    assert inner == set()


def test_modules_of_a_package_do_not_import_in_a_circle() -> None:
    """Inside a room the imports form no circle either."""
    modules = {module_name(path): path for path in (*LIBRARY, *SERVER)}
    graph = {
        name: {target for target in imported_modules(path) if target in modules and target != name}
        for name, path in modules.items()
    }
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == 2:
            return
        assert state.get(name) != 1, " -> ".join((*trail, name))
        state[name] = 1
        for target in sorted(graph[name]):
            # A package's door re-exports what is inside; importing a sibling is not a circle.
            if target in packages and name.startswith(target + "."):
                continue
            visit(target, (*trail, name))
        state[name] = 2

    for name in sorted(graph):
        visit(name, ())
