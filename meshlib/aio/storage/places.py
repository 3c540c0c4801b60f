"""The place of a file that one process alone may use, and files that are out of use but kept.

Rule: nothing here deletes or overwrites what somebody may want back.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Final

from meshlib.errors import ConfigError

if sys.platform != "win32":
    import fcntl

__all__ = ["ASIDE_MAX", "PathLock", "SnapshotRefusedError", "set_aside"]

ASIDE_MAX: Final = 8
"""Files that are set aside beside one path, at most: more are a fault that somebody must see."""

LOCK_WAIT_S: Final = 5.0
"""How long a former user of a path may take to end."""

LOCK_LOOK_S: Final = 0.05


class SnapshotRefusedError(ConfigError):
    """A file that a node must not begin with. It is as it was.

    Args:
        path: the file.
        reason: why, in one line.
    """

    def __init__(self, path: Path, *, reason: str) -> None:
        super().__init__(f"{path} is not used: {reason}")
        self.path = path
        self.reason = reason


class PathLock:
    """Keeps two processes from one path, by a lock that ends with its process.

    Where the folder cannot be written to, or the system has no such locks, it keeps nobody out.

    Args:
        path: what is locked; the lock is on a file beside it, `.lock` appended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    async def take(self) -> None:
        """Take the lock; waits for a former holder that is ending. Idempotent.

        Raises:
            ConfigError: another one holds it.
        """
        ends_at = time.monotonic() + LOCK_WAIT_S
        while not self._try():
            if time.monotonic() >= ends_at:
                raise ConfigError(f"{self._path} is in use by another node or process")
            await asyncio.sleep(LOCK_LOOK_S)

    def _try(self) -> bool:
        if self._descriptor is not None or sys.platform == "win32":
            return True
        try:
            descriptor = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError:
            return True  # nothing can be saved there either, which is told by the first attempt
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)  # a file system without locks
            return True
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def set_aside(path: Path) -> Path | None:
    """Rename a file to the first free name of `ASIDE_MAX`, `.aside-1` and so on appended.

    Returns:
        the new name; None when there is no file.

    Raises:
        OSError: no name is free, or it cannot be renamed. It stays where it is.
    """
    if not path.exists():
        return None
    names = (path.with_name(f"{path.name}.aside-{n}") for n in range(1, ASIDE_MAX + 1))
    free = next((name for name in names if not name.exists()), None)
    if free is None:
        raise OSError(f"{ASIDE_MAX} files are set aside beside it already; move some away")
    path.rename(free)
    return free
