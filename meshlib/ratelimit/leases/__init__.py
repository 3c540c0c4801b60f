"""Units that are held: who owns a key and may grant of it, who holds what, and what they say.

An owner grants units under the votes of a majority; a node admits from units that it holds, and
a refusal is the owner's word. What is granted of a key in a window is at most its limit.

asking.py     the keys of one node, and what it asks their owners
deciding.py   what a node admits: from what it holds, on credit, or alone
holder.py     one key on one node: what it holds, who waits, what it has asked
owner.py      the keys that a node owns, and when it may decide
granting.py   what an owner grants of them
owned.py      one key at its owner: what it has granted
votes.py      who votes for whom, and what a vote says
mandate.py    the majority that lets an owner decide
views.py      the members as one node sees them, and the owners that follow
windows.py    numbers of windows, which only grow
meters.py     what is used where there are no windows
questions.py  questions and answers, as bytes
kept/         what outlives an owner, because a majority keeps it
calls.py      calls for votes, votes and farewells, as bytes
wire.py       what these messages have in common
demand.py     how much one node is asked for
timers.py     what is due
"""

from meshlib.ratelimit.leases.holder import Ticket

__all__ = ["Ticket"]
