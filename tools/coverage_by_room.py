"""Prints what a run of the tests reached, room by room, from the JSON of coverage.py.

Figures are lines and branches together, as coverage.py counts them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def room_of(path: str) -> str:
    """Return the room of a file: its folder in the package, or its own name at the top of it."""
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:2]) if len(parts) > 1 else parts[0]


def main() -> None:
    """Print a line for each room, and one for all."""
    files = json.loads(Path(sys.argv[1]).read_text())["files"]
    reached: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for path, figures in files.items():
        summary = figures["summary"]
        for room in (room_of(path), "all"):
            reached[room] += summary["covered_lines"] + summary.get("covered_branches", 0)
            there[room] += summary["num_statements"] + summary.get("num_branches", 0)
    for room in [*sorted(there.keys() - {"all"}), "all"]:
        if there[room]:
            sys.stdout.write(f"{room:32}{reached[room]:>8,} of {there[room]:>7,}")
            sys.stdout.write(f"{reached[room] / there[room]:>8.1%}\n")


if __name__ == "__main__":
    main()
