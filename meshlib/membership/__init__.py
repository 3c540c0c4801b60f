"""Who is in the cluster: the table of members, probes, suspicion, partitions, topology.

All of it is arithmetic on records; `meshlib.gossip` turns it into messages.
"""

from meshlib.membership.members import MemberRecord, MemberStatus, MemberTable
from meshlib.membership.partition import PartitionDetector, PartitionState, PartitionView
from meshlib.membership.probe import LocalHealth, Probe, ProbeOrder, RoundTrips
from meshlib.membership.suspicion import Suspicion, suspicion_bounds_s
from meshlib.membership.topology import (
    TopologyManager,
    push_receivers,
    sparse_graph,
    sparse_neighbours,
)

__all__ = [
    "LocalHealth",
    "MemberRecord",
    "MemberStatus",
    "MemberTable",
    "PartitionDetector",
    "PartitionState",
    "PartitionView",
    "Probe",
    "ProbeOrder",
    "RoundTrips",
    "Suspicion",
    "TopologyManager",
    "push_receivers",
    "sparse_graph",
    "sparse_neighbours",
    "suspicion_bounds_s",
]
