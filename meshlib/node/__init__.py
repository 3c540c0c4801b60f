"""One whole node, without IO: membership, replication, stores, rate limits, routing.

mesh_node.py  MeshNode: bytes, time and verbs in; packets and events out
config.py     MeshConfig: who a node is, and its settings
health.py     how the cluster looks from it
routing.py    the verbs of routing that it has
clocks.py     what it says and does about wall clocks that differ
departed.py   whose names are those of nodes that are gone for long
volatile.py   what limits, leases and loads say to those of other nodes
"""

from meshlib.gossip import NodeState
from meshlib.node.config import MeshConfig
from meshlib.node.health import Health, HealthStatus
from meshlib.node.mesh_node import MeshNode

__all__ = ["Health", "HealthStatus", "MeshConfig", "MeshNode", "NodeState"]
