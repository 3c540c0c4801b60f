"""What carries the frames of a service to its peers.

websocket.py  WebSockets, on the port of the API itself
nats.py       NATS: its settings, and the transport that is made of them
"""

from __future__ import annotations

from meshlib_server.transports.nats import NatsSettings, PeerTransport, make_nats_transport
from meshlib_server.transports.websocket import MountedWebSockets

__all__ = ["MountedWebSockets", "NatsSettings", "PeerTransport", "make_nats_transport"]
