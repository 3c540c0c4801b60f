"""Log entries: kept, waited for, absorbed.

log.py         what a node still has of every writer's entries
gap_buffer.py  entries ahead of a gap, or of this node's clock
intake.py      entries from peers: absorbed, held back or refused
"""
