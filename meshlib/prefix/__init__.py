"""Indexes that answer who has the longest prefix of a request cached.

radix_tree.py   RadixTree: holds text
token_tree.py   TokenTree: holds token ids
prefix_tree.py  what the two trees share: insertion and removal
tree_reads.py   how they are asked
naming.py       texts by the hashes of their bytes
nodes.py        their nodes, in columns
columns.py      what a node is made of
comparing.py    how far two texts are the same
block_index.py  BlockIndex: holds chains of block hashes
block_reads.py  how it is asked
chains.py       how a text or tokens become a chain
runs.py         stretches of blocks with the same holders
recency.py      least recently used first
records.py      what the indexes take and answer

Each index is useful on its own.
"""

from meshlib.prefix.block_index import BlockIndex
from meshlib.prefix.chains import (
    BLOCK_BYTES,
    BLOCK_CHARACTERS,
    BLOCK_TOKENS,
    Chain,
    blocks_to_bytes,
    bytes_to_blocks,
    text_chain,
    token_blocks,
    token_chain,
)
from meshlib.prefix.comparing import common_bytes, common_prefix_length
from meshlib.prefix.radix_tree import RadixTree
from meshlib.prefix.records import (
    ACCESS_MAX,
    BlockEvent,
    BlocksCleared,
    BlocksRemoved,
    BlocksStored,
    Entry,
    Match,
    Placement,
    check_access,
    check_block,
    check_tenant,
    check_text,
)
from meshlib.prefix.token_tree import TokenTree

__all__ = [
    "ACCESS_MAX",
    "BLOCK_BYTES",
    "BLOCK_CHARACTERS",
    "BLOCK_TOKENS",
    "BlockEvent",
    "BlockIndex",
    "BlocksCleared",
    "BlocksRemoved",
    "BlocksStored",
    "Chain",
    "Entry",
    "Match",
    "Placement",
    "RadixTree",
    "TokenTree",
    "blocks_to_bytes",
    "bytes_to_blocks",
    "check_access",
    "check_block",
    "check_tenant",
    "check_text",
    "common_bytes",
    "common_prefix_length",
    "text_chain",
    "token_blocks",
    "token_chain",
]
