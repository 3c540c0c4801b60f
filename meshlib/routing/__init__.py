"""Routing: which worker a prompt goes to, by what it has cached and what it has to do.

policy.py         CacheAwarePolicy: how one model's prompts are routed
asking.py         what a caller asks beside the prompt
protocol.py       what a policy is asked
cache_aware.py    the longest prefix, as long as loads are in balance
expected_time.py  the soonest first token
simple.py         round robin, random, hashes and the like
settings.py       how the configuration of a policy is read
policies.py       those of this package by their names
policy_types.py   which policies may be written
departures.py     workers that went and what trees still hold of them
ages.py           workers that came
leases.py         workers with a time to live
trees.py          one replicated routing tree for each model
tree_documents.py  what its document is called and holds, and when something was used
records.py        what a tree is made of, and what a router is answered
load/             what all routers have in flight: SharedLoad
requests/         what becomes of a request, said at another router
prompts/          what stands in a tree for a prompt, and for a session; trees without text
"""

from meshlib.routing.ages import WorkerAges
from meshlib.routing.departures import Departure, Departures
from meshlib.routing.expected_time import EXPECTED_TIME, ExpectedTimeConfig
from meshlib.routing.leases import LEASE_DOCUMENT, VolatileUpdate, WorkerLeases
from meshlib.routing.load import DEFAULT_SPEED, LOAD_DOCUMENT, SharedLoad
from meshlib.routing.policies import POLICIES
from meshlib.routing.policy import CACHE_AWARE, CacheAwareConfig, CacheAwarePolicy
from meshlib.routing.policy_types import PolicyTypes
from meshlib.routing.prompts import SESSION_TTL_S
from meshlib.routing.prompts.hashed_trees import (
    HashedTreeDocument,
    HashedTreeSync,
    PrefixSync,
    tree_sync,
)
from meshlib.routing.protocol import Policy, Question
from meshlib.routing.records import (
    RouteDecision,
    RouteReason,
    TreeInsert,
    TreeMatch,
    TreeOperation,
    TreeRemove,
    TreeState,
)
from meshlib.routing.requests import (
    WORD_DOCUMENT,
    RequestWord,
    Word,
    hear_word,
    router_of,
    say,
)
from meshlib.routing.settings import parse_config
from meshlib.routing.tree_documents import TREE_PREFIX, TreeDocument, model_of
from meshlib.routing.trees import TreeSync

__all__ = [
    "CACHE_AWARE",
    "DEFAULT_SPEED",
    "EXPECTED_TIME",
    "LEASE_DOCUMENT",
    "LOAD_DOCUMENT",
    "POLICIES",
    "SESSION_TTL_S",
    "TREE_PREFIX",
    "WORD_DOCUMENT",
    "CacheAwareConfig",
    "CacheAwarePolicy",
    "Departure",
    "Departures",
    "ExpectedTimeConfig",
    "HashedTreeDocument",
    "HashedTreeSync",
    "Policy",
    "PolicyTypes",
    "PrefixSync",
    "Question",
    "RequestWord",
    "RouteDecision",
    "RouteReason",
    "SharedLoad",
    "TreeDocument",
    "TreeInsert",
    "TreeMatch",
    "TreeOperation",
    "TreeRemove",
    "TreeState",
    "TreeSync",
    "VolatileUpdate",
    "Word",
    "WorkerAges",
    "WorkerLeases",
    "hear_word",
    "model_of",
    "parse_config",
    "router_of",
    "say",
    "tree_sync",
]
