"""The counts of long limits survive the end of the process, in a file beside the state."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib import ConfigError
from meshlib.aio.storage.counts import read_counts, write_counts
from meshlib.identity import actor_id
from meshlib.limits import RATE_KEYS_PER_MESSAGE_MAX
from meshlib.ratelimit.leases.kept.keeper import Keeper
from meshlib.ratelimit.leases.kept.messages import Ceiling
from meshlib.ratelimit.leases.views import View


def new_keeper() -> Keeper:
    return Keeper("one", actor_id("one", 1), view=View(["one"], member_count=1))


def write(path: Path, pages: list[bytes]) -> None:
    write_counts(path, pages, cluster_name="c", node_name="one")


def read(path: Path, node_name: str = "one") -> list[bytes]:
    return read_counts(path, cluster_name="c", node_name=node_name)


def test_what_was_kept_is_what_is_read(tmp_path: Path) -> None:
    """Over several pages; of windows that are over nothing is taken back."""
    keeper, path = new_keeper(), tmp_path / "one.db.counts"
    count = 2 * RATE_KEYS_PER_MESSAGE_MAX + 1
    for number in range(count):
        keeper.keep(Ceiling(f"key {number}", 0, 86_400, number, 1), second=10)
    keeper.keep(Ceiling("over", 0, 100, 7, 0), second=10)
    write(path, list(keeper.pages()))
    again = new_keeper()
    for page in read(path):
        again.restore(page, second=1000)

    assert count == len(again)
    assert Ceiling("key 77", 0, 86_400, 77, 1) == again.get("key 77")
    assert again.get("over") is None


def test_there_is_nothing_before_the_first_time(tmp_path: Path) -> None:
    """And that is no error."""
    assert [] == read(tmp_path / "one.db.counts")


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    """Keys may name people."""
    path = tmp_path / "one.db.counts"
    write(path, [])

    assert 0o600 == path.stat().st_mode & 0o777


@pytest.mark.parametrize("harm", ["bit", "cut", "other", "text"])
def test_what_is_not_as_it_was_written_is_refused(tmp_path: Path, harm: str) -> None:
    """Damaged, another node's, or no such file at all."""
    path, keeper = tmp_path / "one.db.counts", new_keeper()
    keeper.keep(Ceiling("ann", 0, 100, 7, 0), second=10)
    write(path, list(keeper.pages()))
    data = bytearray(path.read_bytes())
    if harm == "bit":
        data[-3] ^= 1
    elif harm == "cut":
        del data[-5:]
    elif harm == "text":
        data = bytearray(b"counts?")
    path.write_bytes(data)

    with pytest.raises(ConfigError, match=r"one\.db\.counts"):
        read(path, "two" if harm == "other" else "one")
