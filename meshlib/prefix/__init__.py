"""Indexes that answer who has the longest prefix of a request cached.

radix_tree.py   RadixTree: holds text
nodes.py        its nodes
block_index.py  BlockIndex: holds chains of block hashes
recency.py      least recently used first
records.py      what the indexes take and answer

Both indexes are useful on their own.
"""

from meshlib.prefix.block_index import (
    BLOCK_CHARACTERS,
    BLOCK_TOKENS,
    BlockIndex,
    text_chain,
    token_chain,
)
from meshlib.prefix.nodes import common_prefix_length
from meshlib.prefix.radix_tree import RadixTree
from meshlib.prefix.records import (
    ACCESS_MAX,
    Entry,
    Match,
    Placement,
    check_access,
    check_block,
    check_tenant,
)

__all__ = [
    "ACCESS_MAX",
    "BLOCK_CHARACTERS",
    "BLOCK_TOKENS",
    "BlockIndex",
    "Entry",
    "Match",
    "Placement",
    "RadixTree",
    "check_access",
    "check_block",
    "check_tenant",
    "common_prefix_length",
    "text_chain",
    "token_chain",
]
