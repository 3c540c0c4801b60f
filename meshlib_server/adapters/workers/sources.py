"""Where workers are read from: a file, and names of which every address is a worker.

Rule: what cannot be read now says nothing. It is no list without workers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from attrs import frozen

from meshlib.aio import join_address, split_address
from meshlib.errors import ConfigError
from meshlib_server.structure import read_yaml

__all__ = ["DnsWorkers", "FileWorkers", "Found", "WorkerSource", "split_named"]

_KEYS: Final = {"model_id", "url", "health"}


@frozen
class Found:
    """One worker as its source has it.

    Args:
        model_id: the model that it serves.
        url: where it is reached.
        is_healthy: whether it may be chosen.
    """

    model_id: str
    url: str
    is_healthy: bool = True


class WorkerSource(Protocol):
    """Something that knows workers."""

    @property
    def prefix(self) -> str:
        """What the ids of its workers begin with, and no other's do."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it reads."""
        ...

    async def look(self) -> Mapping[str, Found]:
        """Return the workers by id.

        Raises:
            ConfigError, OSError: it cannot be asked now; nothing is known of its workers.
        """
        ...


def split_named(text: str) -> tuple[str, str]:
    """Return the two parts of `MODEL=PLACE`.

    Raises:
        ConfigError: one of them is missing.
    """
    model, _, place = text.rpartition("=")
    if not model or not place:
        raise ConfigError(f"expected MODEL=PLACE, got {text!r}")
    return model, place


class FileWorkers:
    """A file of workers: `workers:` with `model_id` and `url` each, and `health` if it is false.

    Args:
        path: the file.

    Raises:
        ConfigError: it cannot be read, or holds something that is no worker.
    """

    prefix = "file:"

    def __init__(self, path: str) -> None:
        self.files = (path,)
        self._read()

    async def look(self) -> Mapping[str, Found]:
        """Return what the file says now."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Mapping[str, Found]:
        (path,) = self.files
        tree = read_yaml(path)
        items = tree.get("workers") or []
        if set(tree) - {"workers"} or type(items) is not list:
            raise ConfigError(f"{path}: expected a list of `workers`, and nothing else")
        found: dict[str, Found] = {}
        for index, item in enumerate(items):
            worker = _worker(item, f"{path}: workers[{index}]")
            worker_id = self.prefix + urlsplit(worker.url).netloc
            if worker_id in found:
                raise ConfigError(f"{path}: workers[{index}].url: stands here twice")
            found[worker_id] = worker
        return found


def _worker(item: Any, where: str) -> Found:
    if type(item) is not dict or set(item) - _KEYS:
        raise ConfigError(f"{where}: expected {', '.join(sorted(_KEYS))}")
    model_id, url, is_healthy = item.get("model_id"), item.get("url"), item.get("health", True)
    if type(model_id) is not str or not model_id:
        raise ConfigError(f"{where}.model_id: must be text")
    try:
        host = urlsplit(url).hostname if type(url) is str else None
    except ValueError:
        host = None
    if not host:
        raise ConfigError(f"{where}.url: must be one such as http://10.0.0.1:8000")
    if type(is_healthy) is not bool:
        raise ConfigError(f"{where}.health: must be true or false")
    return Found(model_id, str(url), is_healthy)


Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


async def _look_up(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in found]


class DnsWorkers:
    """Names of which every address is a worker, as of a headless service.

    Args:
        names: `MODEL=HOST:PORT` each.
        resolver: looks up a host; by default the system's.

    Raises:
        ConfigError: a name that is none.
    """

    prefix = "dns:"
    files: tuple[str, ...] = ()

    def __init__(self, names: Iterable[str], *, resolver: Resolver = _look_up) -> None:
        self._names: list[tuple[str, str, int]] = []
        for name in names:
            model, address = split_named(name)
            self._names.append((model, *split_address(address)))
        self._resolver = resolver

    async def look(self) -> Mapping[str, Found]:
        """Look all names up; one that fails fails all, for nothing is known of its workers."""
        found: dict[str, Found] = {}
        for model, host, port in self._names:
            try:
                hosts = await self._resolver(host, port)
            except UnicodeError as error:
                raise OSError(f"{host}: {error}") from None
            for one in hosts:
                address = join_address(one, port)
                found[self.prefix + address] = Found(model, f"http://{address}")
        return found
