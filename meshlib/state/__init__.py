"""The shared state of routers: stores, rate limits, cache-aware routing, and their manager."""

from meshlib.state.limit_settings import (
    GLOBAL_LIMIT_CONFIG_KEY,
    LIMIT_CONFIG_PREFIX,
    LimitSettings,
)
from meshlib.state.rate_limit import RateLimiter
from meshlib.state.rate_messages import ANSWER_DOCUMENT, REPORT_DOCUMENT, VolatileMessage
from meshlib.state.rate_owner import RateLimitStore
from meshlib.state.rate_tracking import PartitionMode, RateLimitConfig
from meshlib.state.records import (
    GLOBAL_KEY,
    Decision,
    PolicyState,
    RateLimitStats,
    RouteDecision,
    RouteReason,
    StateChange,
    StoreName,
    TreeInsert,
    TreeMatch,
    TreeOperation,
    TreeRemove,
    TreeState,
    WorkerState,
)
from meshlib.state.routing import CACHE_AWARE, CacheAwareConfig, CacheAwarePolicy
from meshlib.state.stores import AppStore, MembershipStore, PolicyStore, WorkerStore
from meshlib.state.subscription import Subscription
from meshlib.state.sync import MeshSyncManager
from meshlib.state.tree_sync import TREE_PREFIX, TreeDocument, TreeSync

__all__ = [
    "ANSWER_DOCUMENT",
    "CACHE_AWARE",
    "GLOBAL_KEY",
    "GLOBAL_LIMIT_CONFIG_KEY",
    "LIMIT_CONFIG_PREFIX",
    "REPORT_DOCUMENT",
    "TREE_PREFIX",
    "AppStore",
    "CacheAwareConfig",
    "CacheAwarePolicy",
    "Decision",
    "LimitSettings",
    "MembershipStore",
    "MeshSyncManager",
    "PartitionMode",
    "PolicyState",
    "PolicyStore",
    "RateLimitConfig",
    "RateLimitStats",
    "RateLimitStore",
    "RateLimiter",
    "RouteDecision",
    "RouteReason",
    "StateChange",
    "StoreName",
    "Subscription",
    "TreeDocument",
    "TreeInsert",
    "TreeMatch",
    "TreeOperation",
    "TreeRemove",
    "TreeState",
    "TreeSync",
    "VolatileMessage",
    "WorkerState",
    "WorkerStore",
]
