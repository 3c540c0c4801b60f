"""Other processes that replay a history, so that bytes can be compared across PYTHONHASHSEED.

A process for each seed is started once, is given one program a line, and answers with the
encoded states of the replicas (`serve`). It finds the type
by its reference: `module:NAME` or `path.py:NAME`, followed by `#` and a mutant's name for one of
its broken variants. Programs travel as literals, never as code.
"""

from __future__ import annotations

import ast
import atexit
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from meshlib.errors import ConfigError, InternalError
from meshlib.testing.laws.history import History, Program
from meshlib.testing.laws.profile import current_profile
from meshlib.testing.laws.references import find_reference
from meshlib.testing.laws.spec import CRDTSpec
from meshlib.testing.mutants.variants import mutants

__all__ = ["replay_elsewhere", "resolve_reference", "serve"]

_MUTANT_MARK: Final = "#"
_workers: dict[int, subprocess.Popen[str]] = {}
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


def replay_elsewhere(
    spec: CRDTSpec[Any], *, replica_count: int, program: Program
) -> list[tuple[int, list[str]]]:
    """Return, for each PYTHONHASHSEED of the profile, the encoded states of the replicas in hex.

    Args:
        spec: the type, which another process must be able to find.
        replica_count: how many replicas.
        program: the steps; their arguments must be literals.

    Raises:
        ConfigError: the spec cannot be found, or an argument is no literal.
        InternalError: the other process ended.
    """
    request = ascii((find_reference(spec), replica_count, list(program)))
    try:
        is_literal = ast.literal_eval(request)[2] == list(program)
    except (ValueError, SyntaxError):
        is_literal = False
    if not is_literal:
        raise ConfigError("arguments of operations must be literals to reach a process")
    seeds = current_profile().hash_seeds
    for seed in seeds:
        _send(_worker(seed), request)
    return [(seed, _answer(_worker(seed))) for seed in seeds]


def _worker(seed: int) -> subprocess.Popen[str]:
    if seed not in _workers:
        if not _workers:
            atexit.register(_stop_workers)
        _workers[seed] = subprocess.Popen(
            [sys.executable, "-c", "from meshlib.testing.laws.processes import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": str(seed),
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            },
        )
    return _workers[seed]


def _send(worker: subprocess.Popen[str], request: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(request + "\n")
    worker.stdin.flush()


def _answer(worker: subprocess.Popen[str]) -> list[str]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise InternalError("a process that replays histories has ended; see its error output")
    answer: list[str] = ast.literal_eval(line)
    return answer


def _stop_workers() -> None:
    for worker in _workers.values():
        worker.communicate()
    _workers.clear()


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
