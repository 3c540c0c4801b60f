"""The replicated stores of the specification: workers, policies, configuration, members.

documents.py     a replica as the stores use it
stores.py        WorkerStore, PolicyStore, AppStore, MembershipStore
records.py       what they keep, and the checks of what goes into them
subscription.py  who wants to hear of changes
"""

from meshlib.state.documents import Documents
from meshlib.state.records import PolicyState, StateChange, StoreName, WorkerState
from meshlib.state.stores import AppStore, MembershipStore, PolicyStore, WorkerStore
from meshlib.state.subscription import Subscription

__all__ = [
    "AppStore",
    "Documents",
    "MembershipStore",
    "PolicyState",
    "PolicyStore",
    "StateChange",
    "StoreName",
    "Subscription",
    "WorkerState",
    "WorkerStore",
]
