"""The map of last writers, of which the stores are made.

entries.py  the numbered entry, and its join
lww_map.py  LWWMap: keys to entries
digests.py  digests of a large map, kept up with its changes
wire.py     the layout of a map on the wire
"""
