"""What runs beside a node: it publishes the configured policies, and logs what happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs

from meshlib import MeshRuntime
from meshlib.errors import LocalError
from meshlib.gossip import Event, PacketRejected
from meshlib_server.config import ModelSettings
from meshlib_server.logs import get_logger

__all__ = ["companions"]


@contextlib.asynccontextmanager
async def companions(runtime: MeshRuntime, models: Sequence[ModelSettings]) -> AsyncIterator[None]:
    """Run beside the node inside the block.

    Args:
        runtime: the node, started.
        models: the models of the configuration file.
    """
    tasks = [
        asyncio.create_task(_publish_policies(runtime, models)),
        asyncio.create_task(_log_events(runtime)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _publish_policies(runtime: MeshRuntime, models: Sequence[ModelSettings]) -> None:
    """Publish the policies that the cluster does not have, once it is known what it has."""
    log = get_logger()
    await runtime.wait_ready(None)
    log.info("ready", state=runtime.state)
    sync = runtime.sync
    for model in models:
        held = sync.get_policy_state(model.model_id)
        if held is not None:
            log.info("the cluster has a policy for the model", model=model.model_id,
                     version=held.version)  # fmt: skip
            continue
        try:
            sync.sync_policy_state(
                model.model_id,
                policy_type=model.policy.type,
                config=model.policy.config_text(),
            )
        except LocalError as error:
            message = "the policy of a model cannot be published"
            log.warning(message, model=model.model_id, detail=str(error))


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
