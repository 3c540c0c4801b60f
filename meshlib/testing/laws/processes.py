"""Other processes that replay a history, so that bytes can be compared across PYTHONHASHSEED.

A process for each seed is started once, is given one program a line, and answers with the
encoded states of the replicas. It runs `meshlib.testing.mutants.replaying`, for it must find
mutants too, and this room is what mutants are made of: it is started there and not imported.
Programs travel as literals, never as code.
"""

from __future__ import annotations

import ast
import atexit
import os
import subprocess
import sys
from typing import Any

from meshlib.errors import ConfigError, InternalError
from meshlib.testing.laws.history import Program
from meshlib.testing.laws.profile import current_profile
from meshlib.testing.laws.references import find_reference
from meshlib.testing.laws.spec import CRDTSpec

__all__ = ["replay_elsewhere"]

_workers: dict[int, subprocess.Popen[str]] = {}


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
            [sys.executable, "-c", "from meshlib.testing.mutants.replaying import serve; serve()"],
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
