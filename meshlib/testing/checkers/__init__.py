"""What must hold of a simulated cluster: at every moment, and after the faults.

watch.py         a watch for each running node, after every event
beginnings.py    who says that it is ready, and whether it may
decisions.py     what is decided before a node is ready, and by whose word
majorities.py    who takes itself for the larger side, and whether it may
cluster.py       what checkers see of a simulation
documents.py     trees, counters and sets: what somebody wrote, and no less than before
calm.py          after the faults: agreement, then rest
limits.py        what was granted of rate limits, by window
slots.py         what is in use of slots at once
meetings.py      which processes have met: the others are no cluster
ledger.py        what was written to maps, and must be there at the end
other_writes.py  the same of trees, counters and sets
observer.py      the nodes' events, and what of them is interesting
sometimes.py     counters of the interesting states
inside.py        what a node shows of itself by its diagnostics
"""
