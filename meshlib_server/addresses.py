"""Where a node listens, and what it tells its peers to dial.

Rule: an address that peers could not reach is never advertised; a node that has none does not
start.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from meshlib.aio import is_unspecified, join_address, split_address
from meshlib.errors import ConfigError

__all__ = ["Way", "advertised_address", "find_way", "is_loopback", "listening_address"]

_PROBE_HOSTS = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Documentation addresses (RFC 5737, RFC 3849): they name a route and no machine."""


class Way(NamedTuple):
    """How packets of this machine go to another.

    Args:
        local: this machine's own address on the way.
        remote: the address that the other's name resolved to.
    """

    local: str
    remote: str


FindWay = Callable[[str], Way | None]


def is_loopback(host: str) -> bool:
    """Tell whether a host, literal or name, is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_way(peer: str) -> Way | None:
    """Return the way to a peer, or None when its name does not resolve or no route leads there.

    Asks the routing table by connecting a UDP socket, which sends nothing. Resolves a name,
    and so may block for as long as the resolver does.

    Args:
        peer: `host:port`.
    """
    host, port = split_address(peer)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return None
    for family, kind, protocol, _, address in found:
        if family not in _PROBE_HOSTS:
            continue
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return Way(str(probe.getsockname()[0]), str(address[0]))
        except OSError:
            continue
    return None


def listening_address(self_addr: str, *, is_loopback_only: bool) -> str:
    """Return where to listen.

    Args:
        self_addr: as configured.
        is_loopback_only: listen on the loopback instead of every interface (`--insecure`).

    Raises:
        ConfigError: a single other interface was asked for, which loopback only cannot mean.
    """
    host, port = split_address(self_addr)
    if not is_loopback_only or is_loopback(host):
        return self_addr
    if is_unspecified(host):
        return join_address("::1" if _family(host) == socket.AF_INET6 else "127.0.0.1", port)
    raise ConfigError(
        f"--insecure listens on loopback only, and mesh.self_addr is {self_addr}; "
        "configure tokens, or listen on 127.0.0.1"
    )


def advertised_address(
    *,
    listening: str,
    advertise_addr: str | None,
    peers: Sequence[str],
    find: FindWay = find_way,
) -> str:
    """Return the address that peers are told to dial.

    `advertise_addr` when given; else the interface that is listened on; else, listening on
    every interface, this machine's address on the way to the first peer that resolves, or,
    without one, on the way out.

    Args:
        listening: what is really listened on, with its final port.
        advertise_addr: as configured; port 0 stands for the port that is listened on.
        peers: as configured.
        find: finds the way to a peer.

    Raises:
        ConfigError: there is none that peers could reach.
    """
    host, port = split_address(listening)
    if advertise_addr is not None:
        advertised_host, advertised_port = split_address(advertise_addr)
        if is_unspecified(advertised_host):
            raise ConfigError(f"mesh.advertise_addr: {advertise_addr} is no address to dial")
        return join_address(advertised_host, advertised_port or port)
    ways = {peer: find(peer) for peer in peers}
    if is_unspecified(host):
        host = _local_address(host, ways, find)
    _check_reachable(host, ways)
    return join_address(host, port)


def _local_address(listening_host: str, ways: Mapping[str, Way | None], find: FindWay) -> str:
    for way in ways.values():
        if way is not None:
            return way.local
    way_out = find(join_address(_PROBE_HOSTS[_family(listening_host)], 9))
    if way_out is None or is_loopback(way_out.local):
        raise ConfigError(
            "there is no address that peers could reach: set mesh.advertise_addr (--advertise)"
        )
    return way_out.local


def _family(host: str) -> socket.AddressFamily:
    """Return the family of a literal that means every interface; mapped into IPv6, it is IPv4."""
    try:
        is_ipv4 = ipaddress.IPv6Address(host).ipv4_mapped is not None
    except ValueError:
        is_ipv4 = True
    return socket.AF_INET if is_ipv4 else socket.AF_INET6


def _check_reachable(host: str, ways: Mapping[str, Way | None]) -> None:
    """Refuse to tell peers on other machines to dial this machine's loopback."""
    if not is_loopback(host):
        return
    for peer, way in ways.items():
        if way is not None and not is_loopback(way.local) and way.local != way.remote:
            raise ConfigError(
                f"there is no address that the peer {peer} could reach, since this node would "
                f"be dialled at {host}: set mesh.self_addr (--listen) or mesh.advertise_addr "
                "(--advertise)"
            )
