"""Rate limits over the cluster.

limiter.py   RateLimiter: decisions, at once or confirmed by the key's owner
config.py    RateLimitConfig, PartitionMode
leases/      units that are held: owners, holders, votes, and what they say
settings.py  where limits are kept
records.py   what the limiter answers with
"""

from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.leases import Ticket
from meshlib.ratelimit.limiter import RateLimiter
from meshlib.ratelimit.records import GLOBAL_KEY, Decision, RateLimitStats, RateMessage
from meshlib.ratelimit.settings import (
    GLOBAL_LIMIT_CONFIG_KEY,
    LIMIT_CONFIG_PREFIX,
    LimitSettings,
)

__all__ = [
    "GLOBAL_KEY",
    "GLOBAL_LIMIT_CONFIG_KEY",
    "LIMIT_CONFIG_PREFIX",
    "Decision",
    "LimitSettings",
    "PartitionMode",
    "RateLimitConfig",
    "RateLimitStats",
    "RateLimiter",
    "RateMessage",
    "Ticket",
]
