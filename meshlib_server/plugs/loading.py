"""How an adapter is loaded, and what it has to offer."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol

from meshlib.errors import ConfigError
from meshlib_server.plugs.settings import EnvoySettings, WorkerSourceSettings
from meshlib_server.service import Service

__all__ = ["Plug", "load_plugs", "serve_plugs"]


class Plug(Protocol):
    """An adapter that was made and is not started."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are read again when they change."""
        ...

    def reload(self) -> None:
        """Read them again; raises ConfigError, and stays as it was, when they cannot be."""
        ...

    def serve(self, service: Service) -> contextlib.AbstractAsyncContextManager[None]:
        """Serve inside the block; raises ConfigError when that cannot be."""
        ...


_ENVOY: Final = ("meshlib_server.adapters.envoy", "envoy")
_WORKERS: Final = ("meshlib_server.adapters.workers", "kubernetes")


def load_plugs(
    envoy: EnvoySettings, workers: WorkerSourceSettings | None = None
) -> tuple[Plug, ...]:
    """Make the adapters that the settings ask for.

    Args:
        envoy: the section of Envoy.
        workers: the section of sources of workers; None: there is none.

    Raises:
        ConfigError: what one needs is not installed, or a file of it holds a mistake.
    """
    plugs: list[Plug] = []
    if envoy.listen is not None:
        plugs.append(_load(*_ENVOY).plug(envoy))
    if workers is not None and workers.is_set:
        plugs.append(_load(*_WORKERS).plug(workers))
    return tuple(plugs)


def _load(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("meshlib"):
            raise
        raise ConfigError(
            f"mesh.{extra} needs more than is installed ({error.name}): "
            f"pip install 'meshlib-crdt[server,{extra}]'"
        ) from None


@contextlib.asynccontextmanager
async def serve_plugs(plugs: Sequence[Plug], service: Service) -> AsyncIterator[None]:
    """Serve what was made inside the block.

    Args:
        plugs: the adapters.
        service: the node.

    Raises:
        ConfigError: one of them cannot be served. Those before it were ended.
    """
    async with contextlib.AsyncExitStack() as stack:
        for one in plugs:
            await stack.enter_async_context(one.serve(service))
        yield
