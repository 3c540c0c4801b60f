"""Everything public is exported, sorted, and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(
        path.relative_to(ROOT).with_suffix("").parts[: -1 if path.name == "__init__.py" else None]
    )
    for package in ("meshlib", "meshlib_server")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__main__.py"
)
DOORS = [name for name in MODULES if (ROOT / name.replace(".", "/")).is_dir()]


def exported(module: ModuleType) -> list[str]:
    """Return a module's `__all__`."""
    return list(getattr(module, "__all__", []))


@pytest.mark.parametrize("name", MODULES)
def test_exports_are_sorted_unique_and_exist(name: str) -> None:
    """Each `__all__` names what is there, once each, in ruff's sorted order (see RUF022)."""
    module = importlib.import_module(name)
    names = exported(module)

    assert [item for item in names if not hasattr(module, item)] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in DOORS])
def test_a_module_exports_what_it_defines_publicly(name: str) -> None:
    """A public class or function at the top of a module is in its `__all__`, or has a `_`."""
    module = importlib.import_module(name)
    if not hasattr(module, "__all__"):
        pytest.fail(f"{name} has no __all__")
    tree = ast.parse(Path(inspect.getfile(module)).read_text())
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    }
    unlisted = defined - set(exported(module))

    assert unlisted == set() or all(used_in_room(name, item) for item in unlisted)


def used_in_room(name: str, item: str) -> bool:
    """Tell whether another file of the same room uses a name that is not exported."""
    folder = (ROOT / name.replace(".", "/")).parent
    own = ROOT / (name.replace(".", "/") + ".py")
    return any(item in path.read_text() for path in folder.glob("*.py") if path != own)


@pytest.mark.parametrize("name", MODULES)
def test_everything_exported_has_a_docstring(name: str) -> None:
    """Exported classes and functions, and their public methods, say what they do."""
    module = importlib.import_module(name)
    silent = []
    for item in exported(module):
        value = getattr(module, item)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not inspect.getdoc(value):
            silent.append(item)
        if inspect.isclass(value) and value.__module__.startswith("meshlib"):
            silent += [
                f"{item}.{attribute}"
                for attribute, member in vars(value).items()
                if not attribute.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property | classmethod))
                and not inspect.getdoc(getattr(value, attribute))
            ]

    assert silent == []


def silent_members(tree: ast.AST, owner: str = "") -> Iterator[str]:
    """Yield the classes and functions without a docstring whose own name has no `_` before it.

    Those of private classes too: the name is what whoever reads a call sees.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If | ast.Try):
            yield from silent_members(node, owner)
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        words = {word.id for one in node.decorator_list for word in ast.walk(one)
                 if isinstance(word, ast.Name)}  # fmt: skip
        words |= {word.attr for one in node.decorator_list for word in ast.walk(one)
                  if isinstance(word, ast.Attribute)}  # fmt: skip
        is_told_elsewhere = bool(words & {"overload", "setter", "deleter"})
        if not (node.name.startswith("_") or is_told_elsewhere or ast.get_docstring(node)):
            yield f"{owner}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from silent_members(node, f"{node.name}.")


@pytest.mark.parametrize("name", MODULES)
def test_everything_with_a_public_name_has_a_docstring(name: str) -> None:
    """Exported or not, and on whatever class."""
    path = ROOT / name.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    assert [] == list(silent_members(ast.parse(source.read_text())))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_lives_there(name: str) -> None:
    """Each module has a docstring."""
    assert importlib.import_module(name).__doc__
