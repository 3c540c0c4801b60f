"""Frames between regions: each speaks what it likes inside, and bridges carry what goes between.

places.py     which region an address is of, and who its bridges are
envelopes.py  a frame on its way to another region
choosing.py   which bridge is asked, and which were lost
ways.py       who is reached by which bridge
passing.py    the work of a bridge: what is of others goes on
admitting.py  which envelopes belong here, and what counts them
hearing.py    what the two transports deliver and report
transport.py  all of it: BridgedTransport
"""

from meshlib.aio.bridged.admitting import BridgeCounters
from meshlib.aio.bridged.places import Regions
from meshlib.aio.bridged.transport import BridgedTransport

__all__ = ["BridgeCounters", "BridgedTransport", "Regions"]
