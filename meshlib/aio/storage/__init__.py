"""A node's state on a disk.

snapshots.py  the file
keeper.py     keeps a running node's state in it, and begins with what is there
counts.py     what it keeps of long rate limits, in a file beside that
places.py     whose that file is, and where one that is not to be used goes
"""

from meshlib.aio.storage.keeper import SnapshotKeeper
from meshlib.aio.storage.places import SnapshotRefusedError
from meshlib.aio.storage.snapshots import SavedState, SnapshotCounters, SnapshotFile

__all__ = [
    "SavedState",
    "SnapshotCounters",
    "SnapshotFile",
    "SnapshotKeeper",
    "SnapshotRefusedError",
]
