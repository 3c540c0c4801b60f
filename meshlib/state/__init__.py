"""The replicated stores of the specification: workers, policies, configuration, members.

documents.py     a replica as the stores use it
stores.py        WorkerStore, PolicyStore, AppStore, MembershipStore
defaults.py      what the files of the nodes say, for whatever nobody has written
records.py       what they keep, and the checks of what goes into them
limit.py         one limit: a rate, a period, and how it is counted
limit_rule.py    limits for the keys of a pattern, and which of them a key is under
names.py         which names of documents are the library's own
written_off.py   members that do not come back
subscription.py  who wants to hear of changes
"""

from meshlib.state.defaults import (
    DEFAULTS_DOCUMENT,
    LIMITS,
    POLICIES,
    RULES,
    ConfiguredDefaults,
    Default,
    DefaultKey,
    Defaults,
)
from meshlib.state.documents import Documents, ReadChecks
from meshlib.state.limit import MONTH, Algorithm, Limit, parse
from meshlib.state.limit_rule import LimitRule, RuleIndex, check_rate_key
from meshlib.state.names import RESERVED_NAMES, RESERVED_PREFIXES, check_free_name
from meshlib.state.records import (
    LIMIT_PER_SECOND_MAX,
    PolicyState,
    StateChange,
    StoreName,
    WorkerState,
    check_identifier,
    check_limit,
    check_text,
)
from meshlib.state.stores import (
    APP_DOCUMENT,
    POLICIES_DOCUMENT,
    WORKERS_DOCUMENT,
    AppStore,
    MembershipStore,
    MemberView,
    PolicyStore,
    WorkerStore,
)
from meshlib.state.subscription import Subscription
from meshlib.state.written_off import WRITTEN_OFF_DOCUMENT, WrittenOff

__all__ = [
    "APP_DOCUMENT",
    "DEFAULTS_DOCUMENT",
    "LIMITS",
    "LIMIT_PER_SECOND_MAX",
    "MONTH",
    "POLICIES",
    "POLICIES_DOCUMENT",
    "RESERVED_NAMES",
    "RESERVED_PREFIXES",
    "RULES",
    "WORKERS_DOCUMENT",
    "WRITTEN_OFF_DOCUMENT",
    "Algorithm",
    "AppStore",
    "ConfiguredDefaults",
    "Default",
    "DefaultKey",
    "Defaults",
    "Documents",
    "Limit",
    "LimitRule",
    "MemberView",
    "MembershipStore",
    "PolicyState",
    "PolicyStore",
    "ReadChecks",
    "RuleIndex",
    "StateChange",
    "StoreName",
    "Subscription",
    "WorkerState",
    "WorkerStore",
    "WrittenOff",
    "check_free_name",
    "check_identifier",
    "check_limit",
    "check_rate_key",
    "check_text",
    "parse",
]
