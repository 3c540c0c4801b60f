"""The same work done by each prefix index, as its users would do it.

A contender holds texts of tenants and answers who has the longest prefix. A method that a
library has no call for is left out: pygtrie finds whole stored keys only, so it has no half
match, no tenants and no eviction.
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from meshlib.prefix import BlockIndex, RadixTree, text_chain

__all__ = ["WORKERS", "Contender", "Tree", "available", "worker"]

WORKERS = 8


def worker(number: int) -> str:
    return f"http://worker-{number % WORKERS}:8000"


class Contender:
    """An index; the texts go in by `insert` and are asked for by `match`."""

    label = ""
    distribution = "meshlib-crdt"
    text_count = 1000

    def version(self) -> str:
        return version(self.distribution)

    def request(self, text: str) -> Any:
        """Make of a text what `insert` and `match` take; timed by itself where it is work."""
        return text


class Tree(Contender):
    """Ours, over text."""

    label = "RadixTree"

    def __init__(self) -> None:
        self.tree = RadixTree()

    def insert(self, request: str, number: int) -> None:
        self.tree.insert(request, tenant=worker(number), access=number)

    def match(self, request: str) -> int:
        return self.tree.match(request).matched


class Blocks(Contender):
    """Ours, over the hashes of blocks of 64 characters."""

    label = "BlockIndex"
    hashes_first = True

    def __init__(self) -> None:
        self.index = BlockIndex()

    def request(self, text: str) -> tuple[int, ...]:
        return text_chain(text, block_characters=64)

    def insert(self, request: tuple[int, ...], number: int) -> None:
        self.index.insert(request, tenant=worker(number), access=number)

    def match(self, request: tuple[int, ...]) -> int:
        return self.index.match(request).matched * 64


class Dynamo(Contender):
    """NVIDIA Dynamo's tree of KV events (Rust); an event is given as the JSON that it reads."""

    label = "Dynamo RadixTree"
    distribution = "ai-dynamo-runtime"
    hashes_first = True

    def __init__(self) -> None:
        core: Any = import_module("dynamo._core")
        self.tree = core.RadixTree()
        self._hash = core.compute_block_hash_for_seq

    def request(self, text: str) -> list[int]:
        # A character in four stands for a token, so that blocks of 16 are of 64 characters.
        hashes: list[int] = self._hash(list(text.encode()[::4]), 16)
        return hashes

    def insert(self, request: list[int], number: int) -> None:
        blocks = [{"block_hash": block, "tokens_hash": block} for block in request]
        stored = {"stored": {"parent_hash": None, "blocks": blocks}}
        event = {"event_id": number, "data": stored, "dp_rank": 0}
        self.tree.apply_event(number % WORKERS, json.dumps(event).encode())

    def match(self, request: list[int]) -> int:
        return 64 * max(self.tree.find_matches(request).scores.values(), default=0)


class CharTrie(Contender):
    """A node for each character, so it is given few texts."""

    label = "pygtrie CharTrie"
    distribution = "pygtrie"
    text_count = 20

    def __init__(self) -> None:
        self.trie: Any = import_module("pygtrie").CharTrie()

    def insert(self, request: str, number: int) -> None:
        self.trie[request] = worker(number)

    def match(self, request: str) -> int:
        return len(self.trie.longest_prefix(request).key or "")


def available() -> list[type[Contender]]:
    """Return the contenders that are installed, ours first."""
    found: list[type[Contender]] = []
    for each in (Tree, Blocks, Dynamo, CharTrie):
        try:
            version(each.distribution)
        except PackageNotFoundError:
            print(f"not installed, left out: {each.distribution}")
            continue
        found.append(each)
    return found
