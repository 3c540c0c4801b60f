"""What another process runs to replay histories: see `meshlib.testing.laws.processes`.

It finds the type by its reference: `module:NAME` or `path.py:NAME`, followed by `#` and a mutant's
name for one of its broken variants.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from meshlib.errors import ConfigError
from meshlib.testing.laws.history import History, Program
from meshlib.testing.laws.spec import CRDTSpec
from meshlib.testing.mutants.variants import mutants

__all__ = ["resolve_reference", "serve"]

_MUTANT_MARK: Final = "#"
_resolved: dict[str, CRDTSpec[Any]] = {}


def resolve_reference(reference: str) -> CRDTSpec[Any]:
    """Return the spec that a reference names.

    Raises:
        ConfigError: there is none.
    """
    if reference not in _resolved:
        place, _, mutant_name = reference.partition(_MUTANT_MARK)
        where, _, name = place.rpartition(":")
        spec = getattr(_load(where), name, None)
        if not isinstance(spec, CRDTSpec):
            raise ConfigError(f"{place} is not a CRDTSpec")
        if mutant_name:
            # The harmless ones too: whoever looks whether they are has a name for them.
            whole = evolve(spec, harmless={}, reference=place)
            spec = {mutant.name: mutant.spec for mutant in mutants(whole)}[mutant_name]
        _resolved[reference] = spec
    return _resolved[reference]


def _load(where: str) -> Any:
    if not where.endswith(".py"):
        return importlib.import_module(where)
    name = f"_referenced_{Path(where).stem}"
    if name in sys.modules and sys.modules[name].__file__ == where:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, where)
    if found is None or found.loader is None:
        raise ConfigError(f"{where} cannot be loaded")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def serve() -> None:
    """Answer one program a line until the input ends: what the other processes run."""
    for line in sys.stdin:
        reference, replica_count, program = ast.literal_eval(line)
        try:
            answer = _replay(resolve_reference(reference), replica_count, program)
        except Exception as error:  # noqa: BLE001 - it becomes the answer, which is compared
            answer = [f"{type(error).__name__}: {error}"]
        sys.stdout.write(ascii(answer) + "\n")
        sys.stdout.flush()


def _replay(spec: CRDTSpec[Any], replica_count: int, program: Program) -> list[str]:
    assert spec.codec is not None
    history = History(spec, replica_count=replica_count)
    history.run(program)
    return [spec.codec.encode(state).hex() for state in history.states()]
