"""Indexes that answer who has the longest prefix of a request cached.

`RadixTree` holds text, `BlockIndex` chains of block hashes. Both are useful on their own.
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
