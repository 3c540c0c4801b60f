"""Rate limits over the cluster, decided locally.

limiter.py   RateLimiter: decisions that never wait
config.py    RateLimitConfig, PartitionMode
tracking.py  one key on one node: what the owners said, and what share follows
shares.py    the arithmetic of shares and demand
exchange.py  what a node and the owners of its keys make of each other's messages
messages.py  those messages
store.py     RateLimitStore: the counters, as their owners hold them
settings.py  where limits are kept
records.py   what the limiter answers with
leases/      limits by units that are held: what is to take the place of shares
"""

from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.limiter import RateLimiter
from meshlib.ratelimit.messages import ANSWER_DOCUMENT, REPORT_DOCUMENT, RateMessage
from meshlib.ratelimit.records import GLOBAL_KEY, Decision, RateLimitStats
from meshlib.ratelimit.settings import (
    GLOBAL_LIMIT_CONFIG_KEY,
    LIMIT_CONFIG_PREFIX,
    LimitSettings,
)
from meshlib.ratelimit.store import RateLimitStore

__all__ = [
    "ANSWER_DOCUMENT",
    "GLOBAL_KEY",
    "GLOBAL_LIMIT_CONFIG_KEY",
    "LIMIT_CONFIG_PREFIX",
    "REPORT_DOCUMENT",
    "Decision",
    "LimitSettings",
    "PartitionMode",
    "RateLimitConfig",
    "RateLimitStats",
    "RateLimitStore",
    "RateLimiter",
    "RateMessage",
]
