"""How replicated entries travel: pushed at once, repaired by comparison, or as whole states.

dissemination.py   new entries, at once
anti_entropy.py    what was lost, found by comparing vectors
filling.py         who sends what is lacking: one peer at a time
state_transfer.py  a whole state, page by page, where the log no longer reaches back
outgoing.py        the pages of one, as many under way as the way holds
ways.py            how much the way to a peer holds
beginning.py       when a node is ready, and who begins when nobody is
early_writes.py    what was written before anybody was met, by a clock that may be wrong
handover.py        leaving without taking along what nobody else has
"""
