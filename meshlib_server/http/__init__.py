"""HTTP as uvicorn speaks it, with bounds: nobody outside can hold this server.

gate.py       who is connected, who must go, and how many may come
accepting.py  connections are taken one at a time, and never more than there are descriptors for
protocol.py   one connection: its deadlines, the size of its heads, and how it is closed
gossip.py     one connection that became a WebSocket
server.py     uvicorn's server over these, and how it ends
"""

from __future__ import annotations

from meshlib_server.http.gate import HttpSettings, share_descriptors
from meshlib_server.http.server import HttpServer

__all__ = ["HttpServer", "HttpSettings", "share_descriptors"]
