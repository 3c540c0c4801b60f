"""Runs a module with a wall clock that is as far ahead as a file says, whenever it is read.

Not a test: the tests beside it start it, with the path of that file and the rest of a command line,
`python -m module ...`.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path


def main(path: str, module: str, *arguments: str) -> None:
    """Set the clock, and run the module as the main program."""
    right = time.time
    ahead = Path(path)
    time.time = lambda: right() + float(ahead.read_text())
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _, where, _python, _flag, name, *rest = sys.argv
    main(where, name, *rest)
