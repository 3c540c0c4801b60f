"""Keeps a running node's state in its file, and begins with what is there.

Rules: what a file says of its age is when the node was last in contact with its cluster, not
when it was written: a node that was cut off for long must not come back as one that was not. What
is wrong with the storage is a problem in the node's health and never its end; a file that the node
must not begin with is set aside, and nothing is saved over it while that cannot be done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from meshlib.aio.storage.counts import SUFFIX, read_counts, write_counts
from meshlib.aio.storage.places import SnapshotRefusedError
from meshlib.aio.storage.snapshots import SavedState, SnapshotFile
from meshlib.aio.transport import QuietLog
from meshlib.errors import ConfigError, RejectReason, RemoteError
from meshlib.membership import MemberRecord
from meshlib.node import MeshNode

__all__ = ["SnapshotKeeper"]

_logger = logging.getLogger(__name__)

TOUCH_S = 60.0
"""How old the file may say it is while nothing changes."""

PAGES_PER_TURN = 4
"""Pages of counts that are made in one turn of the event loop: under a millisecond each."""

PAUSE_RATIO = 3.0
"""A save that takes long is made less often: at most a quarter of the time goes into it."""


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
        self._saved: tuple[int, int, tuple[MemberRecord, ...]] | None = None
        """The hash of the vector, the version, and who counted."""
        self._has_met = False
        self._refused: SnapshotRefusedError | None = None  # what lies at the path, and must not go
        self._aside: tuple[Path, str] | None = None
        self._log = QuietLog(_logger)
        self._counts_path = file.path.with_name(file.path.name + SUFFIX)
        self._counts_saved = 0
        self._counts_s = 0.0

    async def restore(self) -> bool:
        """Give the node the state that is kept, before it joins. O(size), on a thread.

        A file that it must not begin with is set aside, which its health tells.

        Returns:
            whether there was one that it began with.

        Raises:
            ConfigError: the folder is not there, another process uses the path, or this machine's
                clock is so far behind that the state is from its future. The file is as it was.
        """
        file = self._file
        await file.lock()
        try:
            saved = await file.load(newest=self._node.page_newest)
            if saved is not None:
                self._check_owner(saved)
                # Nobody else knows the node yet, so that it may be filled on the thread.
                await file.on_thread(lambda: self._fill(saved))
        except SnapshotRefusedError as error:
            self._refused = error
            await self._set_aside()
            return False
        await self._restore_counts()
        try:
            await file.probe()
        except OSError as error:
            self._tell_failure(str(error))
        return saved is not None

    async def _restore_counts(self) -> None:
        """Give the limiter what it kept of long limits; what cannot be read is told of."""
        config, keeper = self._node.config, self._node.limiter.keeper

        def fill() -> None:
            pages = read_counts(
                self._counts_path, cluster_name=config.cluster_name, node_name=config.name
            )
            for page in pages:
                keeper.restore(page, second=int(self._wall_clock()))

        try:
            await self._file.on_thread(fill)
        except (ConfigError, RemoteError) as error:
            _logger.warning("the counts of limits are not restored: %s", error)
            self._node.note_problem("storage counts", f"the counts of limits are lost: {error}")
        self._counts_saved = keeper.revision

    def _check_owner(self, saved: SavedState) -> None:
        """Refuse what another node wrote, or one of another cluster."""
        config, path = self._node.config, self._file.path
        if saved.cluster_name != config.cluster_name:
            raise SnapshotRefusedError(
                path, reason=f"it is of cluster {saved.cluster_name!r}, not {config.cluster_name!r}"
            )
        if saved.node_name != config.name:
            raise SnapshotRefusedError(
                path, reason=f"it is of node {saved.node_name!r}, not {config.name!r}"
            )

    def _fill(self, saved: SavedState) -> None:
        age_s = max(0.0, self._wall_clock() - saved.saved_at_s)
        try:
            self._node.restore(
                saved.state, age_s=age_s, now=time.monotonic(), members=saved.members
            )
        except RemoteError as error:
            if error.reason is RejectReason.CLOCK:
                # The file is well: it is for whoever runs this machine to set its clock.
                raise ConfigError(
                    f"{self._file.path} is from the future: this machine's clock is behind"
                ) from error
            reason = f"it cannot be read ({error})"
            raise SnapshotRefusedError(self._file.path, reason=reason) from error
        self._contact_at_s = min(saved.saved_at_s, self._contact_at_s)

    async def _set_aside(self) -> bool:
        """Have the refused file make way; tell whether it has."""
        refused = self._refused
        if refused is None:
            return True
        try:
            name = await self._file.set_aside()
        except OSError as error:
            reason = error.strerror or error
            self._tell_failure(f"{refused}; it cannot be set aside ({reason}): nothing is saved")
            return False
        self._refused = None
        if name is not None:
            self._aside = name, f"{refused}; it was set aside as {name.name}"
            _logger.error("%s", self._aside[1])
            self._node.note_problem("storage aside", self._aside[1])
        return True

    def _tell_failure(self, text: str) -> None:
        self._log.tell("the state is not saved", text)
        self._node.note_problem("storage", f"storage: {text}")

    async def run(self) -> None:
        """Save at intervals until cancelled."""
        file = self._file
        while True:
            took_s = file.counters.save_s + self._counts_s
            await asyncio.sleep(max(file.interval_s, PAUSE_RATIO * took_s))
            await self.save()

    async def save(self) -> None:
        """Save what has changed since the last time; a failure is a problem, and not raised."""
        node, file = self._node, self._file
        replica = node.replica
        if replica.is_rejoining:
            return  # its state is not whole, and what is kept is what it comes back with
        if not await self._set_aside():
            return
        self._note_contact()
        try:
            # As long as a member is of an earlier release this node may have to go back to it.
            version, members = node.page_version, node.counted_members()
            now_here = (replica.vector_hash(), version, members)
            if replica.has_open_writes or now_here != self._saved:
                saved_hash = await file.save(
                    replica,
                    cluster_name=node.config.cluster_name,
                    node_name=node.name,
                    wall_s=self._contact_at_s,
                    version=version,
                    members=members,
                )
                self._saved = saved_hash, version, members
            elif self._contact_at_s - file.counters.saved_at_s >= TOUCH_S:
                await file.touch(self._contact_at_s)
            elif node.has_problem("storage"):
                await file.probe()
            await self._save_counts()
        except OSError as error:
            self._tell_failure(str(error))
        else:
            node.note_problem("storage", "")
        await self._look_aside()

    async def _save_counts(self) -> None:
        """Save what is kept of long limits, when there is more than the last time."""
        keeper, config = self._node.limiter.keeper, self._node.config
        revision = keeper.revision
        if revision == self._counts_saved:
            return
        began_at = time.monotonic()
        pages: list[bytes] = []
        for page in keeper.pages():
            pages.append(page)
            if len(pages) % PAGES_PER_TURN == 0:
                await asyncio.sleep(0)
        await self._file.on_thread(
            lambda: write_counts(
                self._counts_path, pages, cluster_name=config.cluster_name, node_name=config.name
            )
        )
        self._counts_saved, self._counts_s = revision, time.monotonic() - began_at
        self._node.note_problem("storage counts", "")

    async def _look_aside(self) -> None:
        """Tell of a file that was set aside until somebody has taken it away."""
        if self._aside is not None:
            name = self._aside[0]
            if not await self._file.on_thread(name.exists):
                self._aside = None
                self._node.note_problem("storage aside", "")

    def _note_contact(self) -> None:
        """Move the moment of the last contact on, while there is contact."""
        node = self._node
        others = [member for member in node.members() if member.name != node.name]
        self._has_met = self._has_met or bool(others)
        is_alone_by_choice = node.has_joined and not self._has_met
        # Or the last one, which goes on alone, would look older than those that left before it.
        is_whole = node.has_joined and not node.counted_members()
        if is_alone_by_choice or is_whole or any(member.is_reachable for member in others):
            self._contact_at_s = self._wall_clock()

    def close(self) -> None:
        """End the file's thread once it has done its work."""
        self._file.close()
