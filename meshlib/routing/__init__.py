"""Cache-aware routing: which worker has the most of a prompt cached, and may take it.

policy.py        CacheAwarePolicy
departures.py    workers that went and what trees still hold of them
leases.py        workers with a time to live
policy_types.py  which policies may be written
trees.py         one replicated routing tree for each model
records.py       what a tree is made of, and what a router is answered
"""

from meshlib.routing.departures import Departures
from meshlib.routing.leases import LEASE_DOCUMENT, VolatileUpdate, WorkerLeases
from meshlib.routing.policy import CACHE_AWARE, CacheAwareConfig, CacheAwarePolicy
from meshlib.routing.policy_types import PolicyTypes
from meshlib.routing.records import (
    RouteDecision,
    RouteReason,
    TreeInsert,
    TreeMatch,
    TreeOperation,
    TreeRemove,
    TreeState,
)
from meshlib.routing.trees import TREE_PREFIX, TreeDocument, TreeSync, model_of

__all__ = [
    "CACHE_AWARE",
    "LEASE_DOCUMENT",
    "TREE_PREFIX",
    "CacheAwareConfig",
    "CacheAwarePolicy",
    "Departures",
    "PolicyTypes",
    "RouteDecision",
    "RouteReason",
    "TreeDocument",
    "TreeInsert",
    "TreeMatch",
    "TreeOperation",
    "TreeRemove",
    "TreeState",
    "TreeSync",
    "VolatileUpdate",
    "WorkerLeases",
    "model_of",
]
