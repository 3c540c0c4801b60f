"""Limits by units that are held: not in force yet, beside the limiter of shares.

An owner grants units under the votes of a majority; a node admits from units that it holds, and
a refusal is the owner's word. What is granted of a key in a window is at most its limit.

limiter.py    LeaseLimiter: decisions, at once or confirmed
config.py     LeaseConfig
holder.py     one key on one node: what it holds, who waits, what it has asked
owner.py      the keys that a node owns: what it has granted
votes.py      the majority that lets an owner decide, and what is handed on
views.py      the members as one node sees them, and the owners that follow
windows.py    numbers of windows, which only grow
questions.py  the messages between nodes and owners
records.py    what the limiter answers with
demand.py, timers.py
              how much is asked for; what is due
"""

from meshlib.ratelimit.leases.config import LeaseConfig
from meshlib.ratelimit.leases.holder import Ticket
from meshlib.ratelimit.leases.limiter import LeaseLimiter
from meshlib.ratelimit.leases.records import HeldDecision

__all__ = ["HeldDecision", "LeaseConfig", "LeaseLimiter", "Ticket"]
