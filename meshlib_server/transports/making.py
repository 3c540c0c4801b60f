"""The transport of a service, whichever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from meshlib.aio import BridgedTransport
from meshlib_server.access.tls import Tls
from meshlib_server.transports.bridged import BridgingSettings, make_bridged_transport
from meshlib_server.transports.nats import NatsSettings, PeerTransport, make_nats_transport
from meshlib_server.transports.websocket import MountedWebSockets

if TYPE_CHECKING:
    from meshlib.aio import NatsTransport, TokenJudge

__all__ = ["PeerCarrier", "make_transport", "mounted_of"]

PeerCarrier: TypeAlias = "MountedWebSockets | NatsTransport | BridgedTransport"
"""Any of them: a `meshlib.aio.Transport` whose token can be changed."""


def make_transport(
    kind: PeerTransport,
    *,
    nats: NatsSettings,
    bridging: BridgingSettings,
    region: str,
    address: str,
    token: str | None,
    judge: TokenJudge,
    tls: Tls | None,
    accepted_max: int,
) -> PeerCarrier:
    """Make what carries frames between a node and its peers.

    Args:
        kind: which one is set.
        nats: where NATS is, checked.
        bridging: the regions, checked.
        region: of the node.
        address: what peers call the node, as `host:port`.
        token: what is shown to peers; None shows none.
        judge: tells which tokens of peers are accepted, where HTTP does not.
        tls: what is shown to peers that are dialled, and asked of them; None: there is no TLS.
        accepted_max: connections of peers that are held at once.

    Raises:
        ConfigError: what is set cannot hold for a node of this address.
    """
    if kind is PeerTransport.NATS:
        return make_nats_transport(nats, address=address, token=token, judge=judge)
    mounted = MountedWebSockets(address, token=token, tls=tls, accepted_max=accepted_max)
    if kind is PeerTransport.WEBSOCKET:
        return mounted
    return make_bridged_transport(
        bridging, inside=mounted, region=region, nats=nats, token=token, judge=judge
    )


def mounted_of(transport: PeerCarrier) -> MountedWebSockets | None:
    """Return the WebSockets that a route takes for a transport; None: it has no such."""
    parts = transport.parts if isinstance(transport, BridgedTransport) else (transport,)
    return next((part for part in parts if isinstance(part, MountedWebSockets)), None)
