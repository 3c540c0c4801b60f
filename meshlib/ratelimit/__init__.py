"""Rate limits over the cluster.

limiter.py   RateLimiter: of one node, for whoever drives it
verbs.py     its verbs: decisions at once or confirmed by the key's owner, all or nothing
config.py    RateLimitConfig, PartitionMode
leases/      units that are held: owners, holders, votes, and what they say
settings.py  where limits are kept, and under which a key is
lines.py     those who wait for units, first come first served
reservations.py
             units that are settled later
slots/       so many requests of a key at once
rules.py     where rules are kept: limits for patterns of keys
records.py   what the limiter answers with
"""

from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.leases import Ticket
from meshlib.ratelimit.limiter import RateLimiter
from meshlib.ratelimit.records import (
    GLOBAL_KEY,
    Decision,
    KeyUse,
    LimitUsage,
    RateLimitStats,
    RateMessage,
    Reservation,
)
from meshlib.ratelimit.rules import RULE_CONFIG_PREFIX
from meshlib.ratelimit.settings import (
    GLOBAL_LIMIT_CONFIG_KEY,
    LIMIT_CONFIG_PREFIX,
    LimitSettings,
    Slot,
)
from meshlib.ratelimit.slots import ConcurrencySlot, SlotTicket
from meshlib.state import MONTH, Algorithm, Limit, LimitRule, parse

__all__ = [
    "GLOBAL_KEY",
    "GLOBAL_LIMIT_CONFIG_KEY",
    "LIMIT_CONFIG_PREFIX",
    "MONTH",
    "RULE_CONFIG_PREFIX",
    "Algorithm",
    "ConcurrencySlot",
    "Decision",
    "KeyUse",
    "Limit",
    "LimitRule",
    "LimitSettings",
    "LimitUsage",
    "PartitionMode",
    "RateLimitConfig",
    "RateLimitStats",
    "RateLimiter",
    "RateMessage",
    "Reservation",
    "Slot",
    "SlotTicket",
    "Ticket",
    "parse",
]
