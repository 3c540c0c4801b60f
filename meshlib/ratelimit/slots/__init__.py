"""Slots: so many requests of a key at once, over the cluster.

both.py     one node's slots: what it holds and what it grants, and what is sent for them
holding.py  what a node holds, and who waits for more
owning.py   what the owner of a key has granted, and to whom
wire.py     reports and grants, as bytes

A node reports to a key's owner how many slots it uses and how many it wants, and the owner answers
with how many it may use, for `SLOT_LEASE_S`. It owns a key under the same mandate as its rate
limits. What a node uses is known to that node: so an owner that begins knows it too, once all
who live have reported, or what they held has ended.
"""

from meshlib.ratelimit.slots.both import ClusterSlots
from meshlib.ratelimit.slots.holding import ConcurrencySlot, SlotTicket

__all__ = ["ClusterSlots", "ConcurrencySlot", "SlotTicket"]
