"""What a node keeps of long rate limits, in a file beside its state: a start goes on from there.

Rules: as for the state, the file is whole at any moment, and only the thread of this room touches
the disk. It holds counts that end with their windows, so one that cannot be read is no reason not
to start: the node begins without them, asks the others, and says so in its health.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from meshlib.codec import pack
from meshlib.errors import ConfigError, RemoteError
from meshlib.hashing import hash64
from meshlib.limits import CLUSTER_NAME_BYTES_MAX, FRAME_BYTES_MAX, RATE_CEILINGS_MAX
from meshlib.reading import read_bytes, read_integer, read_name, read_rows, read_text, read_tree

__all__ = ["SUFFIX", "read_counts", "write_counts"]

SUFFIX: Final = ".counts"
"""What is put behind the name of the state's file."""

FORMAT_VERSION: Final = 1
HASH_MAX: Final = (1 << 64) - 1
FILE_BYTES_MAX: Final = 2048 * RATE_CEILINGS_MAX
"""Keys of their greatest length, and what is counted of each."""


def write_counts(path: Path, pages: list[bytes], *, cluster_name: str, node_name: str) -> None:
    """Put the counts in the place of those before. O(size).

    Args:
        path: the file.
        pages: as `Keeper.pages` makes them.
        cluster_name: the cluster that they are of.
        node_name: the node that keeps them.

    Raises:
        OSError: it could not be written. The file is as it was before.
    """
    body: bytes = pack((FORMAT_VERSION, cluster_name, node_name, pages))
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pack((hash64(body), body)))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_counts(path: Path, *, cluster_name: str, node_name: str) -> list[bytes]:
    """Return the pages that were written; none when there is no file. O(size).

    Raises:
        ConfigError: it is damaged, of a later version, or another node's. Nothing was changed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        digest, body = read_rows(read_tree(data, bytes_max=FILE_BYTES_MAX), "counts", count=2)
        body = read_bytes(body, "the counts", bytes_max=FILE_BYTES_MAX)
        if read_integer(digest, "the digest", maximum=HASH_MAX) != hash64(body):
            raise ConfigError(f"{path}: the content is not what was written")
        tree = read_tree(body, bytes_max=FILE_BYTES_MAX)
        version, cluster, node, rows = read_rows(tree, "counts", count=4)
        if read_integer(version, "the version") != FORMAT_VERSION:
            raise ConfigError(f"{path} has format {version}: another release wrote it")
        cluster = read_text(cluster, "the cluster's name", bytes_max=CLUSTER_NAME_BYTES_MAX)
        if (cluster, read_name(node, "the node's name")) != (cluster_name, node_name):
            raise ConfigError(f"{path} is of node {node!r} of cluster {cluster!r}")
        pages = read_rows(rows, "pages", count_max=RATE_CEILINGS_MAX)
        return [read_bytes(page, "a page", bytes_max=FRAME_BYTES_MAX) for page in pages]
    except RemoteError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
