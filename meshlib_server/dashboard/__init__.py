"""What a node shows to somebody who looks on: one page, and the stream that it lives from.

overview.py   what is so now, read off the node and bounded
views.py      who hears whom, as each node says
stream.py     what happens, as server-sent events
page.html     the page: its own styles and script, and nothing from elsewhere
"""

from __future__ import annotations

from meshlib_server.dashboard.overview import overview
from meshlib_server.dashboard.stream import EventFeed
from meshlib_server.dashboard.views import tell_unheard

__all__ = ["EventFeed", "overview", "tell_unheard"]
