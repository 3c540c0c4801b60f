"""What outlives an owner: up to what it may grant in long windows, which a majority keeps.

raising.py   the ceilings that an owner has kept
keeper.py    those that a node keeps for owners, after a restart too
messages.py  what they say to each other, as bytes
"""

from meshlib.ratelimit.leases.kept.keeper import Keeper
from meshlib.ratelimit.leases.kept.messages import Ceiling
from meshlib.ratelimit.leases.kept.raising import Ceilings

__all__ = ["Ceiling", "Ceilings", "Keeper"]
