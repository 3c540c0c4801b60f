"""What inference engines say of themselves: vLLM and SGLang, and whatever speaks as they do.

events.py      how events of a cache are laid out in a message, and how they are read
cache.py       EngineCache: what one engine has cached, by its own word and by what is expected
feed.py        EngineFeed: the order of the messages, what was lost, and new starts
subscriber.py  EngineSubscriber: the sockets; the only file that needs pyzmq
sharing.py     EngineFollower: one router's index of all engines, whoever listens to them
duty.py        which router listens to which engine, and which would take over
poller.py      EnginePoller: load and health, from the metrics of the engines

Rule: an engine's word about a block wins over what was expected of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib_server.adapters.engines.cache import EngineCache
from meshlib_server.adapters.engines.duty import Duties, Duty, duty_of
from meshlib_server.adapters.engines.events import (
    EngineBatch,
    EngineCleared,
    EngineEvent,
    EngineRemoved,
    EngineStored,
    read_batch,
)
from meshlib_server.adapters.engines.feed import EngineFeed

if TYPE_CHECKING:
    from meshlib_server.adapters.engines.poller import EngineLoad, EnginePoller, read_load
    from meshlib_server.adapters.engines.sharing import Engine, EngineFollower
    from meshlib_server.adapters.engines.subscriber import EngineSubscriber

__all__ = [
    "Duties",
    "Duty",
    "Engine",
    "EngineBatch",
    "EngineCache",
    "EngineCleared",
    "EngineEvent",
    "EngineFeed",
    "EngineFollower",
    "EngineLoad",
    "EnginePoller",
    "EngineRemoved",
    "EngineStored",
    "EngineSubscriber",
    "duty_of",
    "read_batch",
    "read_load",
]


_BY_EXTRA = {
    "Engine": "meshlib_server.adapters.engines.sharing",
    "EngineFollower": "meshlib_server.adapters.engines.sharing",
    "EngineLoad": "meshlib_server.adapters.engines.poller",
    "EnginePoller": "meshlib_server.adapters.engines.poller",
    "EngineSubscriber": "meshlib_server.adapters.engines.subscriber",
    "read_load": "meshlib_server.adapters.engines.poller",
}
"""Names that are imported on their first use: they need the extra `engines`."""


def __getattr__(name: str) -> Any:
    """Import a name that needs the extra on its first use."""
    if name not in _BY_EXTRA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_BY_EXTRA[name]), name)
