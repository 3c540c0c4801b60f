"""Keeps a running node's state in its file, and begins with what is there.

Rule: what a file says of its age is when the node was last in contact with its cluster, not
when it was written: a node that was cut off for long must not come back as one that was not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from meshlib.aio.snapshots import SnapshotFile
from meshlib.aio.transport import QuietLog
from meshlib.errors import ConfigError, RemoteError
from meshlib.node import MeshNode

__all__ = ["SnapshotKeeper"]

_logger = logging.getLogger(__name__)

TOUCH_S = 60.0
"""How old the file may say it is while nothing changes."""

PAUSE_RATIO = 10.0
"""A save that takes long is made less often: at most a tenth of the time goes into it."""


class SnapshotKeeper:
    """Saves what has changed, at intervals and at the end.

    Args:
        file: where.
        node: whose state.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self, file: SnapshotFile, node: MeshNode, *, wall_clock: Callable[[], float]
    ) -> None:
        self._file = file
        self._node = node
        self._wall_clock = wall_clock
        self._contact_at_s = wall_clock()
        self._saved_hash: int | None = None
        self._has_met = False
        self._log = QuietLog(_logger)

    async def restore(self) -> bool:
        """Give the node the state that is kept, before it joins. O(size).

        Returns:
            whether there was one.

        Raises:
            ConfigError: the file is not to be used; it is left as it is.
        """
        saved = await self._file.load()
        if saved is None:
            return False
        cluster_name = self._node.config.cluster_name
        if saved.cluster_name != cluster_name:
            raise ConfigError(
                f"{self._file.path} is of cluster {saved.cluster_name!r}, not {cluster_name!r}"
            )
        age_s = max(0.0, self._wall_clock() - saved.saved_at_s)
        try:
            self._node.restore(saved.state, age_s=age_s, now=time.monotonic())
        except RemoteError as error:
            raise ConfigError(f"{self._file.path} cannot be read: {error}") from error
        self._contact_at_s = min(saved.saved_at_s, self._contact_at_s)
        return True

    async def run(self) -> None:
        """Save at intervals until cancelled."""
        file = self._file
        while True:
            await asyncio.sleep(max(file.interval_s, PAUSE_RATIO * file.counters.save_s))
            await self.save()

    async def save(self) -> None:
        """Save what has changed since the last time; a failure is logged, not raised."""
        node, file = self._node, self._file
        replica = node.replica
        if replica.is_rejoining:
            return  # its state is not whole, and what is kept is what it comes back with
        self._note_contact()
        try:
            if replica.has_open_writes or replica.vector_hash() != self._saved_hash:
                self._saved_hash = await file.save(
                    replica,
                    cluster_name=node.config.cluster_name,
                    node_name=node.name,
                    wall_s=self._contact_at_s,
                )
            elif self._contact_at_s - file.counters.saved_at_s >= TOUCH_S:
                await file.touch(self._contact_at_s)
        except OSError as error:
            self._log.tell("the state was not saved", str(error))

    def _note_contact(self) -> None:
        """Move the moment of the last contact on, while there is contact."""
        node = self._node
        others = [member for member in node.members() if member.name != node.name]
        self._has_met = self._has_met or bool(others)
        is_alone_by_choice = node.has_joined and not self._has_met
        if is_alone_by_choice or any(member.is_reachable for member in others):
            self._contact_at_s = self._wall_clock()

    def close(self) -> None:
        """End the file's thread once it has done its work."""
        self._file.close()
