"""What a cluster will take, before there is one: bytes, CPU, memory and time to spread of a node.

measured.py  what was measured, and where it is from
model.py     what follows from it for a cluster of a size under a load
"""

from meshlib_server.planning.measured import MEASURED, Measured
from meshlib_server.planning.model import Load, NodePlan, Plan, cpu_ms_per_s, plan

__all__ = ["MEASURED", "Load", "Measured", "NodePlan", "Plan", "cpu_ms_per_s", "plan"]
