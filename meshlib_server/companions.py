"""What runs beside a node: it logs what happens, and has the collector look often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from meshlib import MeshRuntime
from meshlib.gossip import (
    EntryRejected,
    LocalPause,
    MemberDown,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRecovered,
    MemberSuspected,
    MessageUnsendable,
    NameConflict,
    PacketRejected,
    StateDiverged,
    StateRestored,
)
from meshlib_server.dashboard import tell_unheard
from meshlib_server.dashboard.stream import fields_of
from meshlib_server.lag import COLLECTED_EACH_S, collect_often, freeze_what_came
from meshlib_server.logs import get_logger
from meshlib_server.metrics import Sources

__all__ = ["companions"]

_LOOK_S: Final = 2.0
"""How often the health is looked at: `ProblemAges` looks as often."""

_WARNED: Final = frozenset(
    kind.__name__
    for kind in (
        MemberJoined, MemberSuspected, MemberRecovered, MemberDown, MemberLeft, MemberForgotten,
        NameConflict, LocalPause, EntryRejected, MessageUnsendable, StateDiverged,
    )
)  # fmt: skip
"""What an operator is told who looks at warnings alone: who comes and goes, and what is wrong."""


@contextlib.asynccontextmanager
async def companions(runtime: MeshRuntime, *, sources: Sources) -> AsyncIterator[None]:
    """Run beside the node inside the block.

    Args:
        runtime: the node, started.
        sources: where what happens is counted.
    """
    freeze_what_came()  # its file was read
    tasks = [
        asyncio.create_task(_log_readiness(runtime)),
        asyncio.create_task(_log_events(runtime, sources)),
        asyncio.create_task(_log_problems(runtime)),
        asyncio.create_task(tell_unheard(runtime)),
        asyncio.create_task(collect_often(each_s=COLLECTED_EACH_S)),
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


async def _log_events(runtime: MeshRuntime, sources: Sources) -> None:
    """Count what happens to the node, and log it: one line for each event.

    What a peer's state has brought is frozen as soon as it is told of.
    """
    log = get_logger()
    async for event in runtime.events():
        sources.note_event(event)
        if isinstance(event, StateRestored):
            freeze_what_came()
        if not isinstance(event, PacketRejected):  # those the runtime logs itself, and not each
            name = type(event).__name__
            tell = log.warning if name in _WARNED else log.info
            tell(name, **fields_of(event))


async def _log_problems(runtime: MeshRuntime) -> None:
    """Log each problem of the health as it comes, and as it goes."""
    log = get_logger()
    known: frozenset[str] = frozenset()
    while True:
        found = frozenset(runtime.node.health().problems)
        for text in sorted(found - known):
            log.warning("problem", problem=text)
        for text in sorted(known - found):
            log.info("problem solved", problem=text)
        known = found
        await asyncio.sleep(_LOOK_S)
