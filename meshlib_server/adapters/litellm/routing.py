"""Which deployment of a model a prompt goes to: the one that has the most of it, and is free."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import define, field

from meshlib_server.client import AsyncMeshClient, ClientError

__all__ = ["DeploymentRouting"]

CALLS_MAX: Final = 100_000
"""Calls of one process that are remembered until they end."""


@define
class DeploymentRouting:
    """Chooses among the deployments of a model group, each of which is a worker of the mesh.

    Args:
        client: of a node.
        rng: chooses when the node cannot be asked.
        calls_max: calls that are remembered until they end; beyond them the oldest is taken for
            over.
    """

    client: AsyncMeshClient
    rng: random.Random = field(factory=random.Random)
    calls_max: int = CALLS_MAX
    _told: set[str] = field(factory=set)
    _calls: OrderedDict[str, tuple[str, str]] = field(factory=OrderedDict)

    async def choose(
        self, model: str, text: str, deployments: Sequence[Mapping[str, Any]], *, call_id: str
    ) -> Mapping[str, Any]:
        """Return the deployment that a prompt goes to.

        Args:
            model: the model group.
            text: the prompt.
            deployments: the elements of the router's list that may be chosen; at least one.
            call_id: the call's name, for `end`.
        """
        by_id = {_id_of(one): one for one in deployments}
        try:
            for worker_id in by_id.keys() - self._told:
                await self._tell(model, worker_id, by_id[worker_id])
            routed = await self.client.route(model, text)
        except ClientError:
            return self.rng.choice(list(deployments))
        await self.end(call_id)  # an attempt before this one is over
        self._calls[call_id] = (model, routed.request_id)
        while len(self._calls) > self.calls_max:
            await self.end(next(iter(self._calls)))
        chosen = by_id.get(routed.worker_id)
        return self.rng.choice(list(deployments)) if chosen is None else chosen

    async def end(self, call_id: str) -> None:
        """Say that a call has ended, however it did; a second time does nothing."""
        known = self._calls.pop(call_id, None)
        if known is None:
            return
        try:
            await self.client.complete(*known)
        except ClientError:
            return  # it counts for a while longer

    async def _tell(self, model: str, worker_id: str, deployment: Mapping[str, Any]) -> None:
        parameters = deployment.get("litellm_params") or {}
        url = parameters.get("api_base") or f"litellm:{worker_id}"
        await self.client.put_worker(worker_id, model_id=model, url=url, health=True, load=0.0)
        self._told.add(worker_id)


def _id_of(deployment: Mapping[str, Any]) -> str:
    return str((deployment.get("model_info") or {}).get("id") or id(deployment))
