"""One room looks into what a peer sent: `meshlib.reading`.

What this shows: nobody else turns bytes into a tree, and no other function that reads a tree asks
what Python type a part of it has. What it does not show is that each part is asked for; that is
what `tests/fuzz` and the malformed states of the law kit are for.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READING = "meshlib/reading.py"

UNPACKERS = {
    READING: "the one room",
    "meshlib/codec.py": "where it is defined; `decode_value` thaws what users stored",
    "meshlib/testing/checkers/inside.py": "counts the messages of frames that a node has made",
    "meshlib/testing/laws/foreign.py": "reads and writes what one law of foreign types needs",
    "meshlib/testing/laws/spec.py": "reads what a type under test has written",
    "meshlib/testing/specs/registers.py": "a deliberate bug: it reads carelessly",
}
"""Modules that may name `unpack`, and why."""

UNPACK = {"unpack", "unpackb"}
BUILTIN = {"bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple"}

CORE = [
    path
    for path in sorted((ROOT / "meshlib").rglob("*.py"))
    if path.relative_to(ROOT).parts[1] not in ("testing", "codec.py", "reading.py")
]


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unpacks(tree: ast.AST) -> bool:
    """Tell whether a file has msgpack's or the codec's `unpack`; `struct.unpack` is another."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and {a.name for a in node.names} & UNPACK:
            return True
        if isinstance(node, ast.Attribute) and node.attr in UNPACK:
            is_of_struct = isinstance(node.value, ast.Name) and node.value.id == "struct"
            is_of_layout = node.attr == "unpack" and ast.unparse(node.value).isupper()
            if not is_of_struct and not is_of_layout:
                return True
    return False


def is_reader(function: ast.FunctionDef) -> bool:
    """Tell whether a function reads what came, by its name or by taking a `wire`."""
    name = function.name.strip("_")
    return any(word in name for word in ("from_wire", "from_version")) or (
        name.split("_")[0] in ("decode", "read")
        or any(argument.arg == "wire" for argument in function.args.args)
    )


def type_questions(function: ast.FunctionDef) -> list[str]:
    """Return where a function asks for the builtin type of something but `self` and `cls`."""
    return [
        ast.unparse(node)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and _asks(node)
    ]


def _asks(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    asked = ast.unparse(call.args[0]) if call.args else ""
    if called == "isinstance":
        return bool(BUILTIN & {n.id for n in ast.walk(call.args[1]) if isinstance(n, ast.Name)})
    if called == "map":
        return asked == "type"
    return called == "type" and asked not in ("self", "cls", "state", "child")


def test_only_the_reader_unpacks() -> None:
    """Bytes become a tree in one room; each other one that may do it says why."""
    users = {
        identify(path)
        for path in sorted((ROOT / "meshlib").rglob("*.py"))
        if unpacks(ast.parse(path.read_text()))
    }

    assert users == set(UNPACKERS)


@pytest.mark.parametrize("path", CORE, ids=identify)
def test_only_the_reader_asks_for_types(path: Path) -> None:
    """A function that reads what came asks `meshlib.reading`, and never for a type itself."""
    asked = {
        f"{node.name}: {question}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and is_reader(node)
        for question in type_questions(node)
    }

    assert asked == set()


@pytest.mark.parametrize(
    "source",
    [
        "def from_wire(wire):\n    if type(wire) is not int: raise ValueError",
        "def _read_rows(rows):\n    return isinstance(rows, tuple)",
        "def decode(data):\n    return set(map(type, data))",
        "def check(wire):\n    return isinstance(wire, (int, Stamp))",
    ],
)
def test_the_house_sees_a_reader_that_asks_by_itself(source: str) -> None:
    """Whatever the function is called and however it asks."""
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)

    assert is_reader(function)
    assert type_questions(function) != []
