"""A node's state in one SQLite file, so that a whole cluster may be restarted.

Rules: the file at the path is whole at any moment: a new one is written beside it, flushed, and
renamed over it; nothing is ever changed in place. A file that is not this node's, is damaged or is
of a later version is never overwritten: `SnapshotKeeper` sets it aside. One of an earlier version
is read, and is written in the newest once every member speaks that. Only the thread of this room
touches the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import define, frozen

from meshlib.aio.storage.places import PathLock, SnapshotRefusedError, set_aside
from meshlib.arguments import check_number, check_path
from meshlib.codec import pack
from meshlib.errors import ConfigError, RemoteError
from meshlib.gossip import record_from_wire, record_to_wire
from meshlib.hashing import hash64, hash64_hex
from meshlib.identity import ActorId
from meshlib.limits import (
    ACTORS_MAX,
    CLUSTER_NAME_BYTES_MAX,
    DOCUMENT_NAME_BYTES_MAX,
    FRAME_BYTES_MAX,
    MEMBERS_MAX,
)
from meshlib.membership import MemberRecord
from meshlib.reading import (
    read_actor,
    read_bytes,
    read_integer,
    read_name,
    read_number,
    read_rows,
    read_text,
    read_tree,
    require,
)
from meshlib.replication import PAGE_VERSION, Replica, ReplicaState, TransferPage

__all__ = ["SavedState", "SnapshotCounters", "SnapshotFile"]

_T = TypeVar("_T")

APPLICATION_ID: Final = 0x6D65_7368
"""`mesh`: marks the file as ours, as SQLite provides for."""

VECTOR_BYTES_MAX: Final = 4 * 1024 * 1024
"""A vector of `limits.ACTORS_MAX` writers: 65,536 times 16 + 9 bytes and their heads."""

MEMBERS_BYTES_MAX: Final = 8 * 1024 * 1024
"""`limits.MEMBERS_MAX` records of up to 1.3 kB each, and their heads."""

BATCH_BYTES: Final = 256 * 1024
"""Pages made and written at a time, before it is seen whether the save was given up."""

_SCHEMA: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE pages (number INTEGER PRIMARY KEY, document TEXT NOT NULL, state BLOB NOT NULL)",
)


@frozen(slots=True, kw_only=True)
class SavedState:
    """What a file held.

    Args:
        state: for `MeshNode.restore`.
        saved_at_s: when the node was last in contact with its cluster, in seconds since 1970.
        cluster_name: the cluster that it was of.
        node_name: the node that wrote it.
        version: of the file and of the pages in it.
        members: who counted beside it.
    """

    state: ReplicaState
    saved_at_s: float
    cluster_name: str
    node_name: str
    version: int = PAGE_VERSION
    members: tuple[MemberRecord, ...] = ()


@define(slots=True, kw_only=True)
class SnapshotCounters:
    """What was kept so far.

    Args:
        saves: states written.
        saves_failed: attempts that failed; the file is as it was before.
        saved_bytes: size of the last one's pages.
        save_s: how long the last one took, in seconds.
        saved_at_s: the moment that the file names, in seconds since 1970; 0.0: none yet.
    """

    saves: int = 0
    saves_failed: int = 0
    saved_bytes: int = 0
    save_s: float = 0.0
    saved_at_s: float = 0.0


class _Digest:
    """A running hash of what the file holds, in the order in which it is written."""

    __slots__ = ("value",)

    def __init__(self, vector: bytes, facts: Sequence[str]) -> None:
        self.value = hash64(vector + pack(tuple(facts)))

    def add(self, document: str, state: bytes) -> None:
        """Go on with the next page. O(size)."""
        self.value = hash64(pack((self.value, document)) + state)

    def hex(self) -> str:
        """Return the digest of all that was added, as text."""
        return hash64_hex(self.value.to_bytes(8, "big"))


class _Writer:
    """Writes a new file beside the present one. Lives on the thread."""

    def __init__(self, path: Path, *, vector: bytes, facts: dict[str, Any], version: int) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".new")
        self._facts = facts
        self._digest = _Digest(vector, (facts["cluster"], facts["node"]))
        self._count = 0
        self._temporary.unlink(missing_ok=True)
        # It may hold prompts: nobody else is to read it.
        os.close(os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(self._temporary, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        for statement in _SCHEMA:
            self._database.execute(statement)
        self._database.execute(f"PRAGMA user_version = {version:d}")
        self._database.execute("BEGIN")
        self._put("clock", vector)

    def _put(self, name: str, value: Any) -> None:
        self._database.execute("INSERT INTO facts VALUES (?, ?)", (name, value))

    def add(self, pages: Iterator[TransferPage]) -> int:
        """Make and write some pages behind those before.

        Returns:
            how many bytes they have; 0 once there are no more.
        """
        size = 0
        for page in pages:
            self._digest.add(page.document, page.state)
            row = (self._count, page.document, page.state)
            self._database.execute("INSERT INTO pages VALUES (?, ?, ?)", row)
            self._count += 1
            size += len(page.state)
            if size >= BATCH_BYTES:
                break
        return size

    def finish(self) -> None:
        """Put the new file in the place of the one before, whole and on the disk."""
        for name, value in self._facts.items():
            self._put(name, value)
        self._put("page_count", self._count)
        self._put("digest", self._digest.hex())
        self._database.execute("COMMIT")
        self._database.close()
        _put_in_place(self._temporary, self._path)

    def discard(self) -> None:
        """Leave the present file alone."""
        self._database.close()
        self._temporary.unlink(missing_ok=True)


def _put_in_place(new: Path, path: Path) -> None:
    """Rename a file that is complete over the one before, each step on the disk."""
    _flush_to_disk(new)
    new.replace(path)
    _flush_to_disk(path.parent)


def _flush_to_disk(path: Path) -> None:
    """Have the operating system put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode_vector(actor: ActorId, vector: Sequence[tuple[ActorId, int]]) -> bytes:
    data: bytes = pack((actor, tuple(vector)))
    return data


def _decode_vector(data: object) -> tuple[ActorId, dict[ActorId, int]]:
    packed = read_bytes(data, "the clock", bytes_max=VECTOR_BYTES_MAX)
    tree = read_tree(packed, bytes_max=VECTOR_BYTES_MAX)
    actor, pairs = read_rows(tree, "the clock", count=2)
    vector = {}
    for pair in read_rows(pairs, "a vector", count_max=ACTORS_MAX):
        writer, number = read_rows(pair, "a row of a vector", count=2)
        vector[read_actor(writer)] = read_integer(number, "a number of a vector")
    require(len(vector) == len(pairs), "a vector must name an actor once")
    return read_actor(actor), vector


def _encode_members(members: Sequence[MemberRecord]) -> bytes:
    rows = pack(tuple(record_to_wire(member) for member in members))
    data: bytes = pack((hash64(rows), rows))
    return data


def _decode_members(data: object) -> tuple[MemberRecord, ...]:
    """Read who counted; an earlier release kept nothing of them."""
    if data is None:
        return ()
    packed = read_bytes(data, "the members", bytes_max=MEMBERS_BYTES_MAX)
    tree = read_tree(packed, bytes_max=MEMBERS_BYTES_MAX)
    digest, content = read_rows(tree, "the members", count=2)
    rows = read_bytes(content, "the members", bytes_max=MEMBERS_BYTES_MAX)
    require(digest == hash64(rows), "the members are not those that were written")
    tree = read_tree(rows, bytes_max=MEMBERS_BYTES_MAX)
    return tuple(map(record_from_wire, read_rows(tree, "the members", count_max=MEMBERS_MAX)))


def _read(path: Path, newest: int) -> SavedState | None:
    """Read and check a whole file; None when there is none."""
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder, so {path.name} cannot be kept in it")
    if not path.exists():
        return None
    try:
        # Nobody changes it in place: so it is read without looking for journals, or making any.
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            return _read_database(database, newest)
    except (sqlite3.Error, OSError, RemoteError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, ConfigError) else f"it cannot be read ({error})"
        raise SnapshotRefusedError(path, reason=reason) from error


def _read_database(database: sqlite3.Connection, newest: int) -> SavedState:
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise ConfigError("this is no snapshot of a node")
    if version > newest:
        raise ConfigError(
            f"it has format {version}, and the newest known here is {newest}: "
            "a later release wrote it"
        )
    if version < 1:
        raise ConfigError(f"it has format {version}, which no release has written")
    facts = dict(database.execute("SELECT name, value FROM facts"))
    actor, vector = _decode_vector(facts["clock"])
    cluster = read_text(facts["cluster"], "the cluster's name", bytes_max=CLUSTER_NAME_BYTES_MAX)
    node = read_name(facts["node"], "the node's name")
    digest = _Digest(facts["clock"], (cluster, node))
    pages: list[TransferPage] = []
    for row in database.execute("SELECT document, state FROM pages ORDER BY number"):
        document = read_text(row[0], "a document", bytes_max=DOCUMENT_NAME_BYTES_MAX)
        state = read_bytes(row[1], "a page", bytes_max=FRAME_BYTES_MAX)
        pages.append(TransferPage(document, state))
        digest.add(document, state)
    if len(pages) != facts["page_count"] or digest.hex() != facts["digest"]:
        raise ConfigError("the content is not what was written")
    return SavedState(
        state=ReplicaState(actor, vector, tuple(pages)),
        saved_at_s=read_number(facts["saved_at_s"], "when it was saved"),
        cluster_name=cluster,
        node_name=node,
        version=version,
        members=_decode_members(facts.get("members")),
    )


class SnapshotFile:
    """Keeps a replica's state in one file.

    One runtime may use a path at a time, and an object of this.

    Args:
        path: the file; its folder must exist.
        interval_s: how often a runtime saves what has changed; over 0. What was acknowledged
            after the last save is lost when every node is lost at once.

    Raises:
        ConfigError: the interval is not over 0.
        InvalidTypeError: no path, or an interval that is no number.
    """

    def __init__(self, path: Path | str, *, interval_s: float = 5.0) -> None:
        check_path("path", path)
        check_number("interval_s", interval_s)
        if not interval_s > 0:
            raise ConfigError(f"interval_s must be over 0, got {interval_s}")
        self.path = Path(path)
        self.interval_s = interval_s
        self.counters = SnapshotCounters()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="meshlib-snapshot")
        self._lock = asyncio.Lock()
        self._lock_of_path = PathLock(self.path)
        self._is_closed = False

    async def lock(self) -> None:
        """Claim the path until `close`, as its one user. Waits a little for a former one to end.

        Raises:
            ConfigError: another runtime or process uses the path.
        """
        await self._lock_of_path.take()

    async def load(self, *, newest: int = PAGE_VERSION) -> SavedState | None:
        """Read the state that is kept, or None when there is none yet. O(size), on a thread.

        Args:
            newest: the newest version of a file that is read.

        Raises:
            SnapshotRefusedError: the file is damaged, of a later version or no snapshot at all.
            ConfigError: the folder is not there. In each case nothing was changed.
        """
        return await self.on_thread(lambda: _read(self.path, newest))

    async def probe(self) -> None:
        """See whether a state could be saved. O(1).

        Raises:
            OSError: the folder cannot be written to. Nothing was changed.
        """
        await self.on_thread(self._probe)

    def _probe(self) -> None:
        probe = self.path.with_name(self.path.name + ".new")
        try:
            probe.unlink(missing_ok=True)
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            probe.unlink()
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error

    async def set_aside(self) -> Path | None:
        """Give the file a name under which nothing touches it again. O(1).

        Returns:
            that name; None when there is no file.

        Raises:
            OSError: it cannot be renamed, or `ASIDE_MAX` are set aside already. It stays.
        """
        return await self.on_thread(lambda: set_aside(self.path))

    async def save(
        self,
        replica: Replica,
        *,
        cluster_name: str,
        node_name: str,
        wall_s: float,
        version: int = PAGE_VERSION,
        members: Sequence[MemberRecord] = (),
    ) -> int:
        """Write the state of a replica as it is now. O(size), all but a copy of it on a thread.

        Args:
            replica: not one that `is_rejoining`, whose state is not whole.
            cluster_name: to be found in `SavedState`.
            node_name: likewise.
            wall_s: when the node was last in contact, in seconds since 1970.
            version: of the file, one that whoever may have to read it knows.
            members: who counts beside the node.

        Returns:
            the hash of the vector that the state is of.

        Raises:
            OSError: it could not be written. The file is as it was before.
        """
        async with self._lock:
            began_at = time.monotonic()
            try:
                vector_hash, size = await self._save(
                    replica,
                    {
                        "cluster": cluster_name,
                        "node": node_name,
                        "saved_at_s": wall_s,
                        "members": _encode_members(members),
                    },
                    version,
                )
            except (OSError, sqlite3.Error) as error:
                self.counters.saves_failed += 1
                raise OSError(f"{self.path} cannot be written: {error}") from error
            counters = self.counters
            counters.saves += 1
            counters.saved_bytes = size
            counters.save_s = time.monotonic() - began_at
            counters.saved_at_s = wall_s
            return vector_hash

    async def _save(self, replica: Replica, facts: dict[str, Any], version: int) -> tuple[int, int]:
        pages = replica.export_pages(page_version=version)
        vector_hash = replica.vector_hash()
        vector = _encode_vector(replica.actor, sorted(pages.vector.items()))
        writer = await self.on_thread(
            lambda: _Writer(self.path, vector=vector, facts=facts, version=version)
        )
        size = 0
        try:
            while written := await self.on_thread(lambda: writer.add(pages)):
                size += written
            await self.on_thread(writer.finish)
        except BaseException:
            self._thread.submit(writer.discard)
            raise
        return vector_hash, size

    async def touch(self, wall_s: float) -> None:
        """Note that the node is in contact, though nothing has changed. O(size), on a thread.

        Raises:
            OSError: it could not be noted. The file is as it was before.
        """
        async with self._lock:
            try:
                await self.on_thread(lambda: self._touch(wall_s))
            except (OSError, sqlite3.Error) as error:
                self.counters.saves_failed += 1
                raise OSError(f"{self.path} cannot be written: {error}") from error
            self.counters.saved_at_s = wall_s

    def _touch(self, wall_s: float) -> None:
        """Change a copy and put it in the place of the file, so that no moment sees half of it."""
        copy = self.path.with_name(self.path.name + ".new")
        copy.unlink(missing_ok=True)
        try:
            os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            shutil.copyfile(self.path, copy)
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as database:
                database.execute("PRAGMA journal_mode = OFF")
                database.execute("UPDATE facts SET value = ? WHERE name = 'saved_at_s'", (wall_s,))
            _put_in_place(copy, self.path)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """End the thread once it has done what it was given. Idempotent; does not wait."""
        if not self._is_closed:
            self._is_closed = True
            self._thread.submit(self._lock_of_path.release)
            self._thread.shutdown(wait=False)

    async def on_thread(self, work: Callable[[], _T]) -> _T:
        """Do something that touches the disk, in the order in which it was asked for."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
