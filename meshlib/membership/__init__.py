"""Who is in the cluster: the table of members, probes, suspicion, partitions, topology.

members.py    MemberTable, MemberRecord: who is in the cluster, and in which state
probe.py      whom to probe, how long to wait, and how healthy this node is itself
suspicion.py  how long a suspected member may refute, and how late others did
partition.py  who counts for the majority, and whether it is in reach
told.py       whom this node was told of, and has never met
topology.py   who talks to whom

All of it is arithmetic on records; `meshlib.gossip` turns it into messages.
"""

from meshlib.membership.members import (
    VERSION_MAX,
    MemberRecord,
    MemberStatus,
    MemberTable,
    next_version,
    place_of,
)
from meshlib.membership.partition import (
    Electorate,
    MemberSet,
    PartitionDetector,
    PartitionState,
    PartitionView,
)
from meshlib.membership.probe import LocalHealth, Probe, ProbeOrder, RoundTrips
from meshlib.membership.suspicion import Lateness, Suspicion, suspicion_bounds_s
from meshlib.membership.told import ToldAddresses, ToldSeed
from meshlib.membership.topology import (
    TopologyManager,
    push_receivers,
    sparse_graph,
    sparse_neighbours,
)

__all__ = [
    "VERSION_MAX",
    "Electorate",
    "Lateness",
    "LocalHealth",
    "MemberRecord",
    "MemberSet",
    "MemberStatus",
    "MemberTable",
    "PartitionDetector",
    "PartitionState",
    "PartitionView",
    "Probe",
    "ProbeOrder",
    "RoundTrips",
    "Suspicion",
    "ToldAddresses",
    "ToldSeed",
    "TopologyManager",
    "next_version",
    "place_of",
    "push_receivers",
    "sparse_graph",
    "sparse_neighbours",
    "suspicion_bounds_s",
]
