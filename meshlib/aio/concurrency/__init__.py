"""So many requests at once, over the cluster, for programs.

limit.py   ConcurrencyLimit: slots that are given back by themselves
"""

from meshlib.aio.concurrency.limit import ConcurrencyLimit, HeldSlot

__all__ = ["ConcurrencyLimit", "HeldSlot"]
