"""Which region an address is of, and which nodes are the bridges of each.

Rule: an address is of one region or of none, and the same on every node that is told the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import Final

from meshlib.arguments import check_kind, check_text
from meshlib.errors import ConfigError, LocalError, check_several
from meshlib.identity import check_address, check_name
from meshlib.limits import ADDRESS_BYTES_MAX

__all__ = ["Regions"]

REGIONS_MAX: Final = 64
PATTERNS_MAX: Final = 1024
BRIDGES_MAX: Final = 256
"""In all regions together; a region wants two or three."""

_KEPT_MAX: Final = 4096
_WILD: Final = "*."

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Regions:
    """The regions of a cluster: what their addresses are, and who their bridges are.

    The same on every node. Each pattern is a network such as `10.1.0.0/16` or `fd00:1::/48`, a
    domain such as `*.eu.example`, a host such as `router-1.eu.example` or `10.1.0.7`, or an
    address such as `10.1.0.7:7000`. Of several that an address is covered by, the address itself
    counts before a host, a host before a network, and of two networks, or domains, the smaller.

    Args:
        patterns: for each region what its addresses are: 1 to 64 regions, 1,024 patterns in all.
        bridges: `host:port` of the nodes that have both transports, at most 256; each is of the
            region that its address is of. Of several regions each needs one, and should have two.

    Raises:
        ConfigError: a pattern that is none or is given twice, a bridge that is no address, is
            given twice or is of no region, or a region without a bridge beside others.
        InvalidTypeError: an argument of another type.
    """

    __slots__ = (
        "_addresses",
        "_all_bridges",
        "_bridges",
        "_domains",
        "_hosts",
        "_kept",
        "_networks",
        "_seen",
    )

    def __init__(
        self, patterns: Mapping[str, Collection[str]], *, bridges: Collection[str] = ()
    ) -> None:
        check_kind("patterns", patterns, Mapping, wanted="a mapping of regions to their addresses")
        check_several("bridges", bridges)
        if not 1 <= len(patterns) <= REGIONS_MAX:
            raise ConfigError(f"there must be 1 to {REGIONS_MAX} regions, and not {len(patterns)}")
        self._addresses: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._domains: dict[str, str] = {}
        self._networks: list[tuple[_Network, str]] = []
        self._seen: set[str] = set()
        self._kept: dict[str, str | None] = {}
        for region, several in patterns.items():
            self._add(region, several)
        self._networks.sort(key=lambda found: -found[0].prefixlen)
        self._all_bridges: set[str] = set()
        self._bridges: dict[str, list[str]] = {region: [] for region in patterns}
        if len(bridges) > BRIDGES_MAX:
            raise ConfigError(f"there may be {BRIDGES_MAX} bridges, and not {len(bridges):,}")
        for bridge in bridges:
            self._add_bridge(bridge)
        for region, found in self._bridges.items():
            if len(patterns) > 1 and not found:
                raise ConfigError(f"region {region!r} has no bridge, so nobody could reach it")

    @property
    def names(self) -> tuple[str, ...]:
        """The regions, in the order in which they were given."""
        return tuple(self._bridges)

    def bridges_of(self, region: str) -> tuple[str, ...]:
        """Return the addresses of a region's bridges; none for a region that is not known."""
        return tuple(self._bridges.get(region, ()))

    def is_bridge(self, address: str) -> bool:
        """Tell whether an address is that of a bridge, of whichever region. O(1)."""
        return address in self._all_bridges

    def region_of(self, address: str) -> str | None:
        """Return the region of an address; None for one that no pattern covers.

        O(1) for one that was asked for lately, otherwise O(networks + parts of its name).
        """
        try:
            return self._kept[address]
        except KeyError:
            found = self._look_up(address)
        if len(self._kept) >= _KEPT_MAX:  # peers choose what is asked for: it must not grow
            self._kept.clear()
        self._kept[address] = found
        return found

    # Inside

    def _add(self, region: str, several: Collection[str]) -> None:
        try:
            check_name("a region", region)
        except LocalError as error:
            raise ConfigError(str(error)) from None
        check_several(f"what region {region!r} is of", several)
        if not several:
            raise ConfigError(f"region {region!r} has no address: name its networks or hosts")
        for pattern in several:
            check_text("a pattern of addresses", pattern)
            self._add_pattern(region, pattern.lower())

    def _add_pattern(self, region: str, pattern: str) -> None:
        network = _network(pattern)
        key = pattern if network is None else str(network)
        if key in self._seen:
            raise ConfigError(f"{pattern!r} is given twice, and can be of one region only")
        if len(self._seen) >= PATTERNS_MAX:
            raise ConfigError(f"there may be {PATTERNS_MAX:,} patterns of addresses at most")
        self._seen.add(key)
        if network is not None:
            self._networks.append((network, region))
        elif pattern.startswith(_WILD):
            _check_host(pattern.removeprefix(_WILD), pattern)
            self._domains[pattern.removeprefix(_WILD)] = region
        elif _is_address(pattern):
            self._addresses[pattern] = region
        else:
            _check_host(pattern, pattern)
            self._hosts[_plain(pattern)] = region

    def _add_bridge(self, bridge: str) -> None:
        check_text("a bridge", bridge)
        try:
            check_address("a bridge", bridge)
        except LocalError as error:
            raise ConfigError(str(error)) from None
        region = self.region_of(bridge)
        if region is None:
            raise ConfigError(f"the bridge {bridge} is of no region")
        if bridge in self._all_bridges:
            raise ConfigError(f"the bridge {bridge} is given twice")
        self._all_bridges.add(bridge)
        self._bridges[region].append(bridge)

    def _look_up(self, address: str) -> str | None:
        if not address.isascii() or len(address) > ADDRESS_BYTES_MAX:
            return None  # no such address travels
        address = address.lower()
        host = _plain(address.rpartition(":")[0])
        found = self._addresses.get(address) or self._hosts.get(host)
        if found is not None:
            return found
        try:
            literal = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return self._domain_of(host)
        for network, region in self._networks:
            if literal in network:
                return region
        return None

    def _domain_of(self, host: str) -> str | None:
        domain = host
        while domain:
            domain = domain.partition(".")[2]
            if domain in self._domains:
                return self._domains[domain]
        return None


def _network(pattern: str) -> _Network | None:
    if "/" not in pattern:
        return None
    try:
        return ipaddress.ip_network(pattern)
    except ValueError as error:
        raise ConfigError(f"{pattern!r} is no network: {error}") from None


def _plain(host: str) -> str:
    """Return a host as it is compared: without brackets, and without the root's dot."""
    return host.removeprefix("[").removesuffix("]").removesuffix(".")


def _is_address(pattern: str) -> bool:
    try:
        check_address("a pattern", pattern)
    except LocalError:
        return False
    return True


def _check_host(host: str, pattern: str) -> None:
    literal = f"[{host}]" if ":" in host and not host.startswith("[") else host
    try:
        check_address("a pattern", f"{literal}:1")
    except LocalError:
        raise ConfigError(
            f"{pattern!r} is no pattern of addresses: it must be a network, a host, an address, "
            "or a domain such as *.eu.example"
        ) from None
