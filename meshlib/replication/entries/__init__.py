"""Log entries: kept, and waited for.

log.py         what a node still has of every writer's entries
gap_buffer.py  entries ahead of a gap, or of this node's clock
"""
