"""Every parameter of a test that is a fixture is given its type, so that mypy reads the test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = sorted(TESTS.rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    """Return the functions of a file, those of its classes too."""
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def fixture_name(function: Function) -> str | None:
    """Return the name that tests ask for a fixture by; None when it is none."""
    for decorator in function.decorator_list:
        if ast.unparse(decorator).startswith("pytest.fixture"):
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            named = [ast.literal_eval(k.value) for k in keywords if k.arg == "name"]
            return str(named[0]) if named else function.name
    return None


def fixtures_of(path: Path) -> set[str]:
    """Return the fixtures that a file may ask for: its own, and those of the folders above."""
    folders = [folder for folder in path.parents if folder == TESTS or TESTS in folder.parents]
    homes = [path, *(folder / "conftest.py" for folder in folders)]
    found = {fixture_name(f) for home in homes if home.exists() for f in functions(home)}
    return {name for name in found if name is not None}


def vague(path: Path) -> Iterator[str]:
    """Yield each use of a fixture whose type is `Any`, whole or in part, or not given."""
    known = fixtures_of(path)
    for function in functions(path):
        is_fixture = fixture_name(function) is not None
        if not (is_fixture or function.name.startswith("test_")):
            continue
        if is_fixture and _is_any(function.returns):
            yield f"{function.name} returns Any"
        for argument in (*function.args.args, *function.args.kwonlyargs):
            if argument.arg in known and _is_any(argument.annotation):
                yield f"{function.name} takes {argument.arg}: Any"


def _is_any(annotation: ast.expr | None) -> bool:
    return annotation is None or ast.unparse(annotation) in {"Any", "Iterator[Any]", "list[Any]"}


@pytest.mark.slow
def test_no_fixture_is_any() -> None:
    """A shared class has a home in `tests/support`, from where it can be imported."""
    found = {str(path.relative_to(TESTS)): here for path in FILES if (here := list(vague(path)))}

    assert FILES
    assert found == {}
