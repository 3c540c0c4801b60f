"""What a node shows to somebody who looks on: one page, and the stream that it lives from.

overview.py   what is so now, read off the node and bounded
stream.py     what happens, as server-sent events
page.html     the page: its own styles and script, and nothing from elsewhere
"""

from __future__ import annotations

from meshlib_server.dashboard.overview import overview
from meshlib_server.dashboard.stream import EventFeed

__all__ = ["EventFeed", "overview"]
