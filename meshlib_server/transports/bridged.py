"""What is set of regions, and the transport that is made of it; bridges need the extra `nats`.

Rule: which node is a bridge is said by its address alone, so that all nodes may have one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from meshlib.aio import BridgedTransport, Regions
from meshlib.errors import ConfigError
from meshlib_server.transports.nats import NatsSettings, PeerTransport, make_nats_transport
from meshlib_server.transports.websocket import MountedWebSockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.aio import NatsTransport, TokenJudge

__all__ = ["BridgingSettings", "make_bridged_transport"]


@frozen(kw_only=True)
class BridgingSettings:
    """The regions of a cluster, and the bridges between them; the same on every node.

    Args:
        regions: `region=pattern` each, such as `eu=10.1.0.0/16` or `us=*.us.example`: a network, a
            domain, a host or an address that is of the region.
        bridges: `host:port` of the nodes that speak NATS too, as they are advertised.
    """

    regions: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()

    def made(self) -> Regions:
        """Return the regions.

        Raises:
            ConfigError: names the setting.
        """
        patterns: dict[str, list[str]] = {}
        for index, text in enumerate(self.regions):
            region, equals, pattern = (part.strip() for part in text.partition("="))
            if not (region and equals and pattern):
                path = f"mesh.bridging.regions[{index}]"
                raise ConfigError(f"{path}: must be such as eu=10.1.0.0/16, got {text!r}")
            patterns.setdefault(region, []).append(pattern)
        try:
            return Regions(patterns, bridges=self.bridges)
        except ConfigError as error:
            raise ConfigError(f"mesh.bridging: {error}") from None

    def check(self, transport: PeerTransport, *, region: str, peers: Sequence[str]) -> None:
        """Check that what is set goes together.

        Args:
            transport: what carries frames.
            region: of this node.
            peers: addresses that it joins by.

        Raises:
            ConfigError: names the setting.
        """
        if transport is not PeerTransport.BRIDGED:
            for name in ("regions", "bridges"):
                if getattr(self, name):
                    raise ConfigError(f"mesh.bridging.{name} needs mesh.transport: bridged")
            return
        if not self.regions:
            raise ConfigError("mesh.transport: bridged needs mesh.bridging.regions")
        regions = self.made()
        if region not in regions.names:
            known = ", ".join(regions.names)
            raise ConfigError(f"mesh.region: must be one of {known}, got {region!r}")
        for index, peer in enumerate(peers):
            if regions.region_of(peer) is None:
                raise ConfigError(
                    f"mesh.init_peer[{index}]: {peer} is of no region of mesh.bridging.regions"
                )


def make_bridged_transport(
    settings: BridgingSettings,
    *,
    inside: MountedWebSockets,
    region: str,
    nats: NatsSettings,
    token: str | None,
    judge: TokenJudge,
) -> BridgedTransport:
    """Make the transport of a node; one that is among the bridges speaks NATS too.

    Args:
        settings: checked.
        inside: carries frames within the region.
        region: of this node.
        nats: where NATS is, for a bridge.
        token: what is shown to peers; None shows none.
        judge: tells which tokens of peers are accepted.

    Raises:
        ConfigError: it is a bridge, and there are no servers of NATS or NATS cannot be used; or
            its address is of another region.
    """
    regions, address = settings.made(), inside.address
    found = regions.region_of(address)
    if found != region:
        where = "of no region" if found is None else f"of {found}"
        raise ConfigError(f"mesh.region: {region} it is to be, and {address} is {where}")
    between: NatsTransport | None = None
    if regions.is_bridge(address):
        if not nats.servers:
            raise ConfigError(
                f"mesh.nats.servers: {address} is among mesh.bridging.bridges, and needs them"
            )
        between = make_nats_transport(nats, address=address, token=token, judge=judge)
    return BridgedTransport(inside, region=region, regions=regions, between=between)
