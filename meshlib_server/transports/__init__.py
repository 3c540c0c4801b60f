"""What carries the frames of a service to its peers.

websocket.py  WebSockets, on the port of the API itself
nats.py       NATS: its settings, and the transport that is made of them
bridged.py    WebSockets within a region, and NATS between the bridges
making.py     whichever of them is set
"""

from __future__ import annotations

from meshlib_server.transports.bridged import BridgingSettings, make_bridged_transport
from meshlib_server.transports.making import PeerCarrier, make_transport, mounted_of
from meshlib_server.transports.nats import NatsSettings, PeerTransport, make_nats_transport
from meshlib_server.transports.websocket import MountedWebSockets

__all__ = [
    "BridgingSettings",
    "MountedWebSockets",
    "NatsSettings",
    "PeerCarrier",
    "PeerTransport",
    "make_bridged_transport",
    "make_nats_transport",
    "make_transport",
    "mounted_of",
]
