"""Everything public is exported, sorted, and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import ModuleType

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


def found(look: Callable[[str], Collection[str]]) -> dict[str, Collection[str]]:
    """Return what a look finds in each module in which it finds anything."""
    return {name: here for name in MODULES if (here := look(name))}


def wrong_exports(name: str) -> list[str]:
    """Return the names of `__all__` that are not there, and those that are twice in it."""
    module = importlib.import_module(name)
    names = exported(module)
    missing = [item for item in names if not hasattr(module, item)]
    return missing + [item for item, count in Counter(names).items() if count > 1]


def test_exports_are_sorted_unique_and_exist() -> None:
    """Each `__all__` names what is there, once each, in ruff's sorted order (see RUF022)."""
    assert found(wrong_exports) == {}


def unlisted_names(name: str) -> set[str]:
    """Return the public names of a module that are neither exported nor used in its room."""
    if name in DOORS:
        return set()
    module = importlib.import_module(name)
    if not hasattr(module, "__all__"):
        return {"__all__"}
    tree = ast.parse(Path(inspect.getfile(module)).read_text())
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    }
    unlisted = defined - set(exported(module))
    return {item for item in unlisted if not used_in_room(name, item)}


def test_a_module_exports_what_it_defines_publicly() -> None:
    """A public class or function at the top of a module is in its `__all__`, or has a `_`."""
    assert found(unlisted_names) == {}


def used_in_room(name: str, item: str) -> bool:
    """Tell whether another file of the same room uses a name that is not exported."""
    folder = (ROOT / name.replace(".", "/")).parent
    own = ROOT / (name.replace(".", "/") + ".py")
    return any(item in path.read_text() for path in folder.glob("*.py") if path != own)


def silent_exports(name: str) -> list[str]:
    """Return the exported classes, functions and public methods without a docstring."""
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
    return silent


def test_everything_exported_has_a_docstring() -> None:
    """Exported classes and functions, and their public methods, say what they do."""
    assert found(silent_exports) == {}


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


def silent_names(name: str) -> list[str]:
    """Return the classes and functions of a module's source without a docstring."""
    path = ROOT / name.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return list(silent_members(ast.parse(source.read_text())))


def test_everything_with_a_public_name_has_a_docstring() -> None:
    """Exported or not, and on whatever class."""
    assert found(silent_names) == {}


def test_every_module_says_what_lives_there() -> None:
    """Each module has a docstring."""
    assert [name for name in MODULES if not importlib.import_module(name).__doc__] == []
