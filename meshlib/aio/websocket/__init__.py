"""Frames over WebSockets, as `meshlib-server` carries them; needs the extra `websocket`.

dialling.py   the dialling side, which a node of any kind uses
accepting.py  the accepting side of a node that serves nothing else on its port
transport.py  both: WebSocketTransport
"""

from meshlib.aio.websocket.dialling import (
    CLOSE_TIMEOUT_S,
    GOING_AWAY,
    GOSSIP_PATH,
    MESSAGE_TOO_BIG,
    POLICY_VIOLATION,
    TRY_AGAIN_LATER,
    UNSUPPORTED_DATA,
    DialledTls,
    WebSocketDialler,
)
from meshlib.aio.websocket.transport import WebSocketTransport

__all__ = [
    "CLOSE_TIMEOUT_S",
    "GOING_AWAY",
    "GOSSIP_PATH",
    "MESSAGE_TOO_BIG",
    "POLICY_VIOLATION",
    "TRY_AGAIN_LATER",
    "UNSUPPORTED_DATA",
    "DialledTls",
    "WebSocketDialler",
    "WebSocketTransport",
]
