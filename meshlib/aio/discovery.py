"""Where peers may be found: fixed seeds, names and services in the DNS, a file.

What is found are seeds, not members: the node dials them, and who is there is told by gossip.
A source that fails keeps what it last knew, so that a name server's bad minute isolates nobody.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from meshlib.aio.transport import QuietLog, join_address, split_address
from meshlib.arguments import check_callable, check_kind, check_path, check_text
from meshlib.errors import ConfigError, check_several

__all__ = [
    "Discovery",
    "DnsSeeds",
    "FileSeeds",
    "FixedSeeds",
    "SeveralSources",
    "SrvSeeds",
    "address_towards",
    "is_same_endpoint",
]

_logger = logging.getLogger(__name__)
_SEED_FILE_BYTES_MAX = 1 << 20
_SRV_RECORDS_MAX = 1024
_SRV_TIMEOUT_S = 5.0

_SERVICE: Final = re.compile(r"_[^.]+\._[^.]+\..+")

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Looks up a host for a port; returns IP addresses, or raises OSError."""

ServiceResolver = Callable[[str], Awaitable[Sequence[tuple[str, int]]]]
"""Looks up a service; returns the host and port of each of its records, or raises OSError."""


@runtime_checkable
class Discovery(Protocol):
    """A source of seeds, asked at the start and again from time to time."""

    @property
    def is_fixed(self) -> bool:
        """Whether the answer never changes, so that asking once is enough."""
        ...

    async def addresses(self) -> tuple[str, ...]:
        """Return the seeds known now, as `host:port`, without repetition. Never raises."""
        ...


class FixedSeeds:
    """Seeds that were configured. A host name among them is looked up at each dial.

    Args:
        addresses: `host:port` each.

    Raises:
        ConfigError: one of them is no address.
        InvalidTypeError: one text in place of several, or one of them is no text.
    """

    is_fixed = True

    def __init__(self, addresses: Iterable[str]) -> None:
        check_several("seeds", addresses)
        given = tuple(addresses)
        for address in given:
            check_text("a seed", address)
            split_address(address)
        self._addresses = tuple(dict.fromkeys(given))

    async def addresses(self) -> tuple[str, ...]:
        """Return the seeds."""
        return self._addresses


async def _look_up(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(socket_address[0]) for _, _, _, _, socket_address in found]


class DnsSeeds:
    """Names of which every address is a seed, as of a headless service.

    Args:
        names: `host:port` each; looked up again whenever this is asked.
        resolver: looks up a host; by default the system's.

    Raises:
        ConfigError: one of the names is no address.
        InvalidTypeError: one text in place of several, or one of them is no text.
    """

    is_fixed = False

    def __init__(self, names: Iterable[str], *, resolver: Resolver = _look_up) -> None:
        check_several("names of seeds", names)
        check_callable("resolver", resolver, wanted="a function")
        given = tuple(names)
        for name in given:
            check_text("a name of seeds", name)
            split_address(name)
        self._names = tuple(dict.fromkeys(given))
        self._resolver = resolver
        self._known: dict[str, tuple[str, ...]] = {}
        self._log = QuietLog(_logger)

    async def addresses(self) -> tuple[str, ...]:
        """Return the addresses of all names, sorted; for a name that fails, those of before."""
        await asyncio.gather(*(self._refresh(name) for name in self._names))
        return tuple(sorted({a for found in self._known.values() for a in found}))

    async def _refresh(self, name: str) -> None:
        host, port = split_address(name)
        try:
            found = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            self._log.tell("seed name not found", f"{name}: {error}")
            return
        self._known[name] = tuple(join_address(host, port) for host in found)


async def _look_up_service(name: str) -> Sequence[tuple[str, int]]:
    """Ask the system's name servers for the SRV records of a name."""
    import dns.asyncresolver
    import dns.exception

    try:
        found = await dns.asyncresolver.resolve(name, "SRV", lifetime=_SRV_TIMEOUT_S)
    except dns.exception.DNSException as error:
        raise OSError(str(error)) from error
    records = ((record.target.to_text(omit_final_dot=True), record.port) for record in found)
    # A target that is the root says that there is no such service.
    return [(host, port) for host, port in records if host not in ("", ".") and port]


class SrvSeeds:
    """Services of which every address of every target is a seed; the records name the ports.

    Their priorities and weights are for those who choose one target; a node dials all of them.

    Args:
        names: of services, such as `_mesh._tcp.example.com`; looked up again whenever this is
            asked.
        services: looks up a service; by default the system's name servers are asked, which needs
            the extra `srv`.
        resolver: looks up the targets; by default the system's.

    Raises:
        ConfigError: a name that begins with no `_service._protocol`, or the extra is missing.
        InvalidTypeError: one text in place of several, or one of them is no text.
    """

    is_fixed = False

    def __init__(
        self,
        names: Iterable[str],
        *,
        services: ServiceResolver = _look_up_service,
        resolver: Resolver = _look_up,
    ) -> None:
        check_several("names of services", names)
        check_callable("services", services, wanted="a function")
        check_callable("resolver", resolver, wanted="a function")
        given = tuple(names)
        for name in given:
            check_text("a name of a service", name)
            if not _SERVICE.fullmatch(name):
                raise ConfigError(
                    f"{name!r} is no name of a service: it must be like _mesh._tcp.example.com"
                )
        if services is _look_up_service and importlib.util.find_spec("dns") is None:
            raise ConfigError("services need the extra `srv`: pip install 'meshlib-crdt[srv]'")
        self._names = tuple(dict.fromkeys(given))
        self._services = services
        self._resolver = resolver
        self._known: dict[str, tuple[str, ...]] = {}
        self._log = QuietLog(_logger)

    async def addresses(self) -> tuple[str, ...]:
        """Return the addresses of all services, sorted; of one that fails, those of before.

        A target that is not found is left out as long as another one is.
        """
        await asyncio.gather(*(self._refresh(name) for name in self._names))
        return tuple(sorted({a for found in self._known.values() for a in found}))

    async def _refresh(self, name: str) -> None:
        try:
            records = await self._services(name)
        except (OSError, UnicodeError) as error:
            self._log.tell("seed service not found", f"{name}: {error}")
            return
        targets = list(dict.fromkeys(records))[:_SRV_RECORDS_MAX]
        found = await asyncio.gather(*(self._look_up(name, *target) for target in targets))
        if any(found) or not targets:
            self._known[name] = tuple(address for each in found for address in each)

    async def _look_up(self, name: str, host: str, port: int) -> list[str]:
        try:
            return [join_address(found, port) for found in await self._resolver(host, port)]
        except (OSError, UnicodeError) as error:
            self._log.tell("target of a seed service not found", f"{name}: {host}: {error}")
            return []


class FileSeeds:
    """A file with one address in each line, read again whenever this is asked.

    Empty lines and what follows a `#` are ignored; so is a line that is no address, with a
    warning.

    Args:
        path: the file; it may come into being later.

    Raises:
        InvalidTypeError: it is no path.
    """

    is_fixed = False

    def __init__(self, path: Path | str) -> None:
        check_path("path", path)
        self._path = Path(path)
        self._known: tuple[str, ...] = ()
        self._log = QuietLog(_logger)

    async def addresses(self) -> tuple[str, ...]:
        """Return the addresses in the file; those of before when it cannot be read."""
        try:
            text = await asyncio.to_thread(self._read)
        except (OSError, UnicodeError) as error:
            self._log.tell("seed file not read", str(error))
            return self._known
        found: dict[str, None] = {}
        for line in text.splitlines():
            address = line.partition("#")[0].strip()
            if not address:
                continue
            try:
                split_address(address)
            except ConfigError as error:
                self._log.tell("seed file", f"{self._path}: {error}")
                continue
            found[address] = None
        self._known = tuple(found)
        return self._known

    def _read(self) -> str:
        with self._path.open("rb") as file:
            return file.read(_SEED_FILE_BYTES_MAX).decode()


class SeveralSources:
    """The seeds of several sources together.

    Args:
        sources: asked at the same time.

    Raises:
        InvalidTypeError: one source in place of several, or one of them is none.
    """

    def __init__(self, sources: Iterable[Discovery]) -> None:
        check_several("sources", sources)
        self._sources = tuple(sources)
        for source in self._sources:
            check_kind("a source", source, Discovery, wanted="a Discovery, such as FixedSeeds")

    @property
    def is_fixed(self) -> bool:
        """Whether every source is fixed."""
        return all(source.is_fixed for source in self._sources)

    async def addresses(self) -> tuple[str, ...]:
        """Return what the sources return, in their order, without repetition."""
        found = await asyncio.gather(*(source.addresses() for source in self._sources))
        return tuple(dict.fromkeys(address for some in found for address in some))


async def address_towards(peer: str, *, resolver: Resolver = _look_up) -> str:
    """Return the host by which this machine would reach a peer: what it can advertise there.

    No packet is sent: a UDP socket is connected, and its own end is read.

    Args:
        peer: `host:port`.
        resolver: looks up the peer's host.

    Returns:
        an IP address without a port.

    Raises:
        ConfigError: `peer` is no address.
        OSError: the peer's host is not found, or there is no route to it.
    """
    host, port = split_address(peer)
    try:
        found = await resolver(host, port)
    except UnicodeError as error:
        raise OSError(f"{host!r} is no name of a host") from error
    if not found:
        raise OSError(f"{host!r} has no address")
    family = socket.AF_INET6 if ":" in found[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((found[0], port or 1))
        return str(probe.getsockname()[0])


async def is_same_endpoint(one: str, other: str, *, resolver: Resolver = _look_up) -> bool:
    """Tell whether two addresses lead to the same port of the same hosts.

    For a list of seeds that names the node itself by another of its names.

    Raises:
        ConfigError: one of them is no address.
    """
    if one == other:
        return True
    (one_host, one_port), (other_host, other_port) = split_address(one), split_address(other)
    if one_port != other_port:
        return False
    try:
        found = await asyncio.gather(resolver(one_host, one_port), resolver(other_host, other_port))
    except (OSError, UnicodeError):
        return False
    return bool(found[0]) and set(found[0]) == set(found[1])
