"""Indexes that answer who has the longest prefix of a request cached.

`RadixTree` holds text, `BlockIndex` chains of block hashes. Both are useful on their own.
"""

from meshlib.prefix.radix_tree import RadixTree
from meshlib.prefix.records import ACCESS_MAX, Entry, Match, Placement

__all__ = ["ACCESS_MAX", "Entry", "Match", "Placement", "RadixTree"]
