"""So many requests at once, over the cluster, for programs.

limit.py   ConcurrencyLimit: slots that are given back by themselves
leased.py  LeasedSlots: slots by name, for those who ask from other processes
"""

from meshlib.aio.concurrency.leased import LeasedSlot, LeasedSlots
from meshlib.aio.concurrency.limit import ConcurrencyLimit, HeldSlot

__all__ = ["ConcurrencyLimit", "HeldSlot", "LeasedSlot", "LeasedSlots"]
