"""Settings that cannot hold are refused by name."""

from __future__ import annotations

import pytest

from meshlib.errors import ConfigError
from meshlib.limits import GAP_BUFFER_BYTES_MAX, LOG_BYTES_MAX
from meshlib.replication import ReplicationConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_bytes_max", 1023),
        ("log_bytes_max", LOG_BYTES_MAX + 1),
        ("gap_buffer_bytes_max", 0),
        ("gap_buffer_bytes_max", GAP_BUFFER_BYTES_MAX + 1),
        ("tombstone_grace_s", -1.0),
        ("tombstone_grace_s", float("inf")),
        ("tombstone_grace_s", float("nan")),
        ("rejections_max", 0),
        ("changes_max", 0),
        ("events_max", 0),
    ],
)
def test_a_setting_that_cannot_hold_is_named(name: str, value: float) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=name):
        ReplicationConfig(**{name: value})  # type: ignore[arg-type]  # one name at a time


def test_the_defaults_hold() -> None:
    """The limits of the package are the defaults."""
    assert LOG_BYTES_MAX == ReplicationConfig().log_bytes_max
