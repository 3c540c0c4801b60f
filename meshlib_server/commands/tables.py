"""Tables for a person.

Rule: this file and `screen.py` alone import rich.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshlib_server.commands.printing import printable

__all__ = ["print_table"]


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to standard output; where that is no terminal, no line is folded.

    Args:
        columns: the heads.
        rows: the cells of each row, as many.
    """
    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal else 10_000)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:  # as text: what a peer is called is no markup
        table.add_row(*(Text(printable(value)) for value in row))
    console.print(table)
