"""Shared load: what all routers together have in flight at each worker.

shared.py      the sum of what this router has and what others have told: SharedLoad
in_flight.py   what this router has in flight
prefilling.py  what of that one worker still has to prefill
peers.py       what other routers have told of theirs
speeds.py      how fast workers prefill
telling.py     what is to be told, and when
messages.py    what routers tell each other
"""

from meshlib.routing.load.messages import LOAD_DOCUMENT, LoadMessage, LoadRow
from meshlib.routing.load.shared import SharedLoad, check_decoded_tokens
from meshlib.routing.load.speeds import DEFAULT_SPEED

__all__ = [
    "DEFAULT_SPEED",
    "LOAD_DOCUMENT",
    "LoadMessage",
    "LoadRow",
    "SharedLoad",
    "check_decoded_tokens",
]
