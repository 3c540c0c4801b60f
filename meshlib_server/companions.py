"""What runs beside a node: it logs what happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs

from meshlib import MeshRuntime
from meshlib.gossip import Event, PacketRejected
from meshlib_server.logs import get_logger

__all__ = ["companions"]


@contextlib.asynccontextmanager
async def companions(runtime: MeshRuntime) -> AsyncIterator[None]:
    """Run beside the node inside the block.

    Args:
        runtime: the node, started.
    """
    tasks = [
        asyncio.create_task(_log_readiness(runtime)),
        asyncio.create_task(_log_events(runtime)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _log_readiness(runtime: MeshRuntime) -> None:
    """Log that the node is ready, and which defaults of its file others have written over."""
    await runtime.wait_ready(None)
    log = get_logger()
    log.info("ready", state=runtime.state)
    for model_id in sorted(runtime.config.defaults.policies):
        policy = runtime.sync.get_policy_state(model_id)
        if policy is not None and policy.default_of is None:
            message = "the cluster has a policy for the model"
            log.info(message, model=model_id, version=policy.version)


async def _log_events(runtime: MeshRuntime) -> None:
    """Log what happens to the node: one line for each event."""
    log = get_logger()
    async for event in runtime.events():
        if not isinstance(event, PacketRejected):  # those the runtime logs itself, and not each
            log.info(type(event).__name__, **_fields(event))


def _fields(event: Event) -> dict[str, Any]:
    """Return an event's fields, as plain values."""
    fields: dict[str, Any] = {}
    for name, value in attrs.asdict(event, recurse=False).items():
        fields[name] = getattr(value, "name", None) or str(value)
    return fields
