"""Settings of a replica."""

from __future__ import annotations

from attrs import frozen

from meshlib.arguments import checked_types
from meshlib.errors import ConfigError
from meshlib.limits import (
    EVENTS_QUEUED_MAX,
    GAP_BUFFER_BYTES_MAX,
    LOG_BYTES_MAX,
    SUBSCRIPTION_QUEUE_MAX,
)

__all__ = ["ReplicationConfig"]


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class ReplicationConfig:
    """What a replica keeps, and for how long.

    Args:
        log_bytes_max: bytes of the log; a peer that is behind it gets a state transfer. At least
            1,024 and at most `limits.LOG_BYTES_MAX`.
        gap_buffer_bytes_max: bytes of entries that wait behind a gap or for their clock; one
            writer may fill a quarter of it.
        tombstone_grace_s: seconds that a removal is kept after this node has received it, on
            top of its being stable. Longer than any packet is under way, than news of a member
            takes, and than twice the `skew_max_s` of the hybrid clocks, so that what a new
            start writes is stamped later: minutes. 0 is for tests with equal clocks.
        rejections_max: how often an entry that cannot be read is asked for again before it is
            passed over, with an event; over 0.
        changes_max: changes that nobody has drained yet; one more and all of them go, with the
            event `ChangesDropped`: who missed one reads the state again.
        known_bytes_min: how many bytes the beginning of a text must have to be named instead of
            pushed, where peers are likely to have it: 1 or more, and more than `limits.
            ENTRY_BYTES_MAX` to push all texts whole.
        events_max: events that nobody has drained yet; beyond it the oldest goes, counted.
    """

    log_bytes_max: int = LOG_BYTES_MAX
    gap_buffer_bytes_max: int = GAP_BUFFER_BYTES_MAX
    tombstone_grace_s: float = 300.0
    rejections_max: int = 3
    known_bytes_min: int = 64
    changes_max: int = SUBSCRIPTION_QUEUE_MAX
    events_max: int = EVENTS_QUEUED_MAX

    def __attrs_post_init__(self) -> None:
        """Check that the settings can hold.

        Raises:
            ConfigError: names the setting and what it must be.
            InvalidTypeError: a setting of another type, before any of these checks.
        """
        if not 1024 <= self.log_bytes_max <= LOG_BYTES_MAX:
            raise ConfigError(f"log_bytes_max must be 1,024 to {LOG_BYTES_MAX:,}")
        if not 1024 <= self.gap_buffer_bytes_max <= GAP_BUFFER_BYTES_MAX:
            raise ConfigError(f"gap_buffer_bytes_max must be 1,024 to {GAP_BUFFER_BYTES_MAX:,}")
        if not 0 <= self.tombstone_grace_s < float("inf"):
            raise ConfigError("tombstone_grace_s must be 0 or more, and finite")
        for name in ("rejections_max", "known_bytes_min", "changes_max", "events_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
