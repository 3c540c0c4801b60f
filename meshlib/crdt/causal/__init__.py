"""Types that see what a write had seen: a context of dots, and what is kept by them.

context.py      CausalContext, Dot: a version vector and a cloud of gaps, always exact
dotted.py       what every type with dots has in common
or_set.py       ORSet: an addition wins over a concurrent removal
remove_wins.py  RemoveWinsSet: the removal wins
or_map.py       ORMap: keys to causal types
embedded.py     any other lattice as a value of a map
flags.py        EnableWinsFlag, DisableWinsFlag
"""
