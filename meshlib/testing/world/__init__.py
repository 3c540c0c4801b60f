"""What is simulated: machines, the processes and clocks on them, the links between them.

hosts.py     one machine, and the process on it
nodes.py     how a machine starts a node
next_format.py  a test double of the next release
network.py   packets, and what becomes of them
scenario.py  what can go wrong
drawing.py   what of it does for one seed

It knows nothing of who looks on: `checkers` stands above it, and `simulation` above both.
"""
