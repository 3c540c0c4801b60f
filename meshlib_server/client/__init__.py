"""A client of the HTTP API: typed, for programs that block and for those on asyncio.

    with MeshClient("http://127.0.0.1:8000", token="...") as mesh:
        mesh.put_worker("w1", model_id="m", url="http://w1", health=True, load=0.0)
        print(mesh.route("m", "a prompt").worker_id)

It needs the extra `client`, and nothing of the server.

answers.py   what comes back, as records; what a newer server adds is passed over
errors.py    what can go wrong
calls.py     what is sent and how the answer is read, without IO
sending.py   the two clients: the same calls, sent in two ways
"""

from __future__ import annotations

from meshlib_server.client.answers import (
    Admission,
    ClusterStatus,
    GlobalLimit,
    LimitRuleView,
    LimitUsage,
    MemberView,
    NodeHealth,
    PolicyView,
    ReservedUnits,
    RoutedTo,
    ServerEvent,
    SlotLease,
    StoreCounts,
    UsedLimit,
    WorkerView,
)
from meshlib_server.client.errors import ApiError, ClientError, UnreachableError
from meshlib_server.client.sending import AsyncMeshClient, MeshClient

__all__ = [
    "Admission",
    "ApiError",
    "AsyncMeshClient",
    "ClientError",
    "ClusterStatus",
    "GlobalLimit",
    "LimitRuleView",
    "LimitUsage",
    "MemberView",
    "MeshClient",
    "NodeHealth",
    "PolicyView",
    "ReservedUnits",
    "RoutedTo",
    "ServerEvent",
    "SlotLease",
    "StoreCounts",
    "UnreachableError",
    "UsedLimit",
    "WorkerView",
]
