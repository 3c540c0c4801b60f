"""How routing policies do on a trace of prompts: real nodes, simulated workers, one virtual clock.

trace.py    what is asked for, and when
workers.py  what answers it: a queue and a cache of blocks
routers.py  the cluster of real nodes that decides
replay.py   a trace through all of them
report.py   what came of it
"""
