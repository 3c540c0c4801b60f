"""Where another process finds a spec: `module:NAME` or `path.py:NAME`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from meshlib.errors import ConfigError
from meshlib.testing.laws.spec import CRDTSpec

__all__ = ["find_reference"]

_found: dict[int, tuple[CRDTSpec[Any], str]] = {}


def find_reference(spec: CRDTSpec[Any]) -> str:
    """Return where another process finds a spec. O(names of all loaded modules), once a spec.

    Raises:
        ConfigError: it has no `reference`, and is no module's global.
    """
    if spec.reference is not None:
        return spec.reference
    kept = _found.get(id(spec))
    if kept is not None and kept[0] is spec:
        return kept[1]
    places = [
        (module_name, name)
        for module_name, module in list(sys.modules.items())
        if module_name != "__main__" or hasattr(module, "__file__")  # a prompt is in no file
        for name, value in list(getattr(module, "__dict__", {}).items())
        if value is spec
    ]
    if places:
        # Rather the module that its functions are from than one that has imported it.
        home = getattr(spec.value, "__module__", None)
        module_name, name = min(places, key=lambda place: place[0] != home)
        reference = f"{_module_reference(module_name, sys.modules[module_name])}:{name}"
        _found[id(spec)] = (spec, reference)
        return reference
    raise ConfigError(
        f"another process cannot find the spec {spec.name!r}: make it a global of its module, "
        "or name it by CRDTSpec(reference='path.py:NAME')"
    )


def _module_reference(name: str, module: Any) -> str:
    """Return a package's module by its name, and a test's or a script's by its path."""
    path = getattr(module, "__file__", None)
    if path is not None and (name == "__main__" or not _is_importable(name, path)):
        return str(Path(path).resolve())
    return name


def _is_importable(name: str, path: str) -> bool:
    root = Path(path).resolve().parents[name.count(".")]
    return any(Path(entry or ".").resolve() == root for entry in sys.path)
