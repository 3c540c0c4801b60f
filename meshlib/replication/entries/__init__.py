"""Log entries: kept, and waited for.

log.py         what a node still has of every writer's entries
joining.py     neighbours in a log become one entry
shortening.py  entries without what their readers have
gap_buffer.py  entries ahead of a gap, or of this node's clock
restamping.py  own writes, stamped by a clock that was ahead, before anybody has them
"""
