"""What the endpoints work on: one node, or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from meshlib import MeshNode, MeshRuntime
from meshlib.aio import LeasedSlots
from meshlib_server.dashboard import EventFeed, overview
from meshlib_server.metrics import Sources
from meshlib_server.problems import Code, Unavailable

__all__ = ["Service", "mesh_of", "node_of", "service_of"]


class Service:
    """The one node of this process, and the way to end it.

    Args:
        mesh: the running node; None when the mesh is not enabled.
        shut_down: called once when a graceful end is asked for; returns at once.
        sources: what is counted beside the node.
        has_grace: whether requests are still answered once a graceful end was asked for; False
            begins to leave with it.
    """

    def __init__(
        self,
        mesh: MeshRuntime | None,
        *,
        shut_down: Callable[[], None],
        sources: Sources | None = None,
        has_grace: bool = True,
    ) -> None:
        self.sources = sources if sources is not None else Sources()
        self._mesh = mesh
        self._slots: LeasedSlots | None = None
        self.feed = EventFeed(self._overview, is_ending=lambda: self.is_draining)
        """What happens, for those who look on."""
        self._shut_down = shut_down
        self._status_key: tuple[int, ...] | None = None
        self._status_body = b""
        self._has_grace = has_grace
        self.is_draining = False
        """Whether the end was asked for: still answered, and not to be sent more."""
        self.is_leaving = False
        """Whether the node leaves the mesh: nothing is answered but 503."""

    @property
    def running(self) -> MeshRuntime | None:
        """The node, whatever it is doing; None when the mesh is not enabled."""
        return self._mesh

    @property
    def mesh(self) -> MeshRuntime:
        """The running node, with the verbs that need the time.

        Raises:
            Unavailable: the mesh is not enabled, or the node is leaving it.
        """
        if self._mesh is None:
            raise Unavailable("the mesh is not enabled", code=Code.NOT_ENABLED)
        if self.is_leaving:
            raise Unavailable("the node is leaving the mesh", code=Code.LEAVING)
        return self._mesh

    @property
    def node(self) -> MeshNode:
        """The node behind it, or `Unavailable` likewise."""
        return self.mesh.node

    @property
    def slots(self) -> LeasedSlots:
        """The slots that others hold by name at this node, or `Unavailable` as `mesh`."""
        mesh = self.mesh
        if self._slots is None:
            self._slots = LeasedSlots(mesh)
        return self._slots

    def _overview(self) -> dict[str, Any]:
        return overview(self.mesh, self.sources)

    def unready_reason(self) -> str:
        """Say in one line why no request should be sent here; empty when they may. O(members)."""
        if self._mesh is None:
            return "the mesh is not enabled"
        if self.is_draining:
            return "leaving"
        node = self._mesh.node
        if node.is_listening:
            return "told of no peer, and just started: members that know it may be about to dial it"
        return "" if node.is_ready else node.state_problem()

    def check_absence(self, what: str) -> None:
        """Refuse to say of something that it is not there, before the node can know that.

        Args:
            what: what was asked for.

        Raises:
            NotReadyError: it may come with the state of the cluster.
        """
        self.node.startup.check_absence(what)

    async def await_clock(self) -> None:
        """Wait until it is known how this node's clock stands, or that nobody says so.

        A node that has just started and was told of others knows it after a round trip; where no
        seed answers it waits for a second. What it wrote meanwhile with a clock that is far ahead
        would be invisible for so long, and then replace what is newer.
        """
        mesh = self._mesh
        if mesh is not None and mesh.is_running and mesh.node.is_comparing_clocks:
            node = mesh.node
            await mesh.wait_until(lambda: not node.is_comparing_clocks)

    def status_body(self) -> bytes:
        """Return the answer to `GET /status`, as JSON. O(1) while nothing changes.

        Routers and load balancers ask for it all the time, and it changes with the membership
        and with the sizes of the stores only.

        Raises:
            Unavailable: the mesh is not enabled, or the node is leaving it.
        """
        node = self.node
        sync = node.sync
        counts = (len(sync.workers), len(sync.policies), len(sync.app))
        key = (node.members_revision, *counts)
        if key != self._status_key:
            self._status_body = json.dumps(_status(node, counts), ensure_ascii=False).encode()
            self._status_key = key
        return self._status_body

    def shut_down(self) -> None:
        """Begin to end; idempotent."""
        if not self.is_draining:
            self.is_draining = True
            self.is_leaving = not self._has_grace
            self._shut_down()


def _status(node: MeshNode, counts: tuple[int, int, int]) -> dict[str, Any]:
    members = node.members()
    workers, policies, app = counts
    return {
        "node_name": node.name,
        "node_count": len(members),
        "nodes": [
            {
                "name": member.name,
                "address": member.address,
                "status": member.status,
                "version": member.version,
            }
            for member in members
        ],
        "stores": {
            "membership_count": len(members),
            "worker_count": workers,
            "policy_count": policies,
            "app_count": app,
        },
    }


def service_of(request: Request) -> Service:
    """Return the service of the application that a request came to."""
    service: Service = request.app.state.service
    return service


def mesh_of(request: Request) -> MeshRuntime:
    """Return the running node, or raise `Unavailable`; see `node_of`."""
    return service_of(request).mesh


def node_of(request: Request) -> MeshNode:
    """Return the node, or raise `Unavailable`.

    Called with the body read and nothing awaited after it: while a body comes in, the node may
    leave, and what is written to a node that has left is lost.
    """
    return service_of(request).node
