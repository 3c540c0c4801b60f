"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

__all__ = ["WATCH_S", "watch_files"]

WATCH_S: Final = 2.0
"""How often they are looked at: by their time, size and place, which is one call each."""

Mark = tuple[tuple[int, int, int] | None, ...]


async def watch_files(
    paths: Iterable[str], changed: Callable[[], None], *, interval_s: float = WATCH_S
) -> None:
    """Call back when one of some files has changed, and has been the same for one look since.

    So a pair of files that are replaced one after the other is read when both are there. A file
    that is a link to elsewhere, as those of Kubernetes' secrets are, is followed.

    Args:
        paths: the files; with none it returns at once.
        changed: called in the event loop; must not raise.
        interval_s: between two looks, over 0.
    """
    watched = [Path(path) for path in paths]
    if not watched:
        return
    known = seen = await asyncio.to_thread(_look, watched)
    while True:
        await asyncio.sleep(interval_s)
        found = await asyncio.to_thread(_look, watched)
        if found != known and found == seen:
            known = found
            changed()
        seen = found


def _look(paths: list[Path]) -> Mark:
    """Return what tells one state of the files from another; None for one that is not there."""
    marks: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            marks.append(None)
        else:
            marks.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(marks)
