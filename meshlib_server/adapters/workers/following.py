"""What sources know is written into the mesh, and what has gone from them is removed.

Rule: every node follows its own sources, and they need not agree at one time. A worker that a
source has and the mesh has not is written by whoever sees it; one is removed by whoever has seen it
go. So what one node has still, or already, is neither lost nor written for ever. A worker that the
API is told of is none of them, whatever its address: ids of a source begin with its prefix.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from attrs import define, field

from meshlib import MeshError, MeshRuntime
from meshlib.errors import ConfigError
from meshlib_server.adapters.workers.kubernetes import KubernetesWorkers
from meshlib_server.adapters.workers.sources import DnsWorkers, FileWorkers, Found, WorkerSource
from meshlib_server.logs import get_logger
from meshlib_server.plugs import WorkerSourceSettings
from meshlib_server.service import Service

__all__ = ["WORKERS_MAX", "WorkersPlug", "plug"]

WORKERS_MAX: Final = 4096
"""Of one source; those beyond are left out, the same on every node."""


@define
class _Followed:
    """A source, and what was last seen of it."""

    source: WorkerSource
    seen: Mapping[str, Found] | None = None
    is_failing: bool = False
    is_refused: bool = False

    async def follow(self, mesh: MeshRuntime) -> None:
        """Look once, and write what is different."""
        log = get_logger()
        try:
            found = await self.source.look()
        except (ConfigError, OSError) as error:
            if not self.is_failing:
                message = "workers stay as they are: their source cannot be read"
                log.warning(message, source=self.source.prefix, detail=str(error))
            self.is_failing = True
            return
        self.is_failing = False
        kept = {worker_id: found[worker_id] for worker_id in sorted(found)[:WORKERS_MAX]}
        try:
            self._write(mesh, kept)
        except MeshError as error:  # it is tried again with the next look
            if not self.is_refused:
                log.warning("a worker cannot be written", detail=str(error))
            self.is_refused = True
            return
        self.is_refused = False
        self.seen = kept

    def _write(self, mesh: MeshRuntime, found: Mapping[str, Found]) -> None:
        before = self.seen
        for worker_id, worker in found.items():
            known = mesh.sync.workers.get(worker_id)
            is_healthy = worker.is_healthy
            if known is not None:
                # What else was written of its health stays, until the source says another thing.
                last = None if before is None else before.get(worker_id)
                if last is not None and last.is_healthy == is_healthy:
                    is_healthy = known.health
                if (known.model_id, known.url, known.health) == (
                    worker.model_id, worker.url, is_healthy,
                ):  # fmt: skip
                    continue
            mesh.sync.sync_worker_state(
                worker_id,
                model_id=worker.model_id,
                url=worker.url,
                health=is_healthy,
                load=0.0 if known is None else known.load,
            )
        for worker_id in self._gone(mesh, found):
            if mesh.sync.workers.get(worker_id) is not None:
                mesh.sync.remove_worker_state(worker_id)

    def _gone(self, mesh: MeshRuntime, found: Mapping[str, Found]) -> list[str]:
        """Return what the source had and has not; at first, what is left of an earlier life."""
        if self.seen is not None:
            return [worker_id for worker_id in self.seen if worker_id not in found]
        prefix = self.source.prefix
        known = [worker.worker_id for worker in mesh.sync.workers.all()]
        return [one for one in known if one.startswith(prefix) and one not in found]


@define
class WorkersPlug:
    """Follows sources of workers while a node runs.

    Args:
        sources: what is followed.
        refresh_s: how often each is asked, in seconds, over 0.
    """

    sources: Sequence[WorkerSource]
    refresh_s: float
    _changed: asyncio.Event = field(factory=asyncio.Event)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the sources read; they are read with every look."""
        return tuple(path for source in self.sources for path in source.files)

    def reload(self) -> None:
        """Look at once."""
        self._changed.set()

    @contextlib.asynccontextmanager
    async def serve(self, service: Service) -> AsyncIterator[None]:
        """Follow inside the block, whenever the node is ready.

        Args:
            service: the node, which need not have started.
        """
        task = asyncio.create_task(self._follow(service))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _follow(self, service: Service) -> None:
        followed = [_Followed(source) for source in self.sources]
        while True:
            for one in followed:
                mesh = _ready(service)
                if mesh is not None:
                    await one.follow(mesh)
            is_ready = _ready(service) is not None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.refresh_s if is_ready else 0.1):
                    await self._changed.wait()
            self._changed.clear()


def _ready(service: Service) -> MeshRuntime | None:
    """Return the node while it may be told of workers."""
    mesh = service.running
    try:
        is_ready = mesh is not None and mesh.is_ready and not service.is_leaving
    except MeshError:  # it has not started, or has ended
        is_ready = False
    return mesh if is_ready else None


def plug(settings: WorkerSourceSettings) -> WorkersPlug:
    """Make what `meshlib_server.plugs` starts.

    Args:
        settings: which sources there are.

    Raises:
        ConfigError: a source that is none, or cannot be read.
    """
    sources: list[WorkerSource] = []
    if settings.file is not None:
        sources.append(FileWorkers(settings.file))
    if settings.dns_names:
        sources.append(DnsWorkers(settings.dns_names))
    if settings.kubernetes_services:
        services = settings.kubernetes_services
        sources.append(KubernetesWorkers(services, kubeconfig=settings.kubeconfig))
    return WorkersPlug(sources, settings.refresh_s)
