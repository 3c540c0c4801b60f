"""What is started beside HTTP when a setting asks for it: the adapters, each by its name.

settings.py  what the settings of each adapter are
loading.py   how one is loaded, and what it has to offer

Rule: nothing imports an adapter. One is loaded by the name of its module once a setting has asked
for it, so that who needs none of them installs nothing for them.
"""

from __future__ import annotations

from meshlib_server.plugs.loading import Plug, load_plugs, serve_plugs
from meshlib_server.plugs.settings import EnvoySettings, OnFailure, WorkerSourceSettings

__all__ = [
    "EnvoySettings",
    "OnFailure",
    "Plug",
    "WorkerSourceSettings",
    "load_plugs",
    "serve_plugs",
]
