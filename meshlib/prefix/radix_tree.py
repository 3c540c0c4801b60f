"""A radix tree over text: who has which prefix cached.

Rule: how a text becomes bytes and how characters are counted must live in this file.

Edges are kept in UTF-8, so a text takes a byte a character where it is ASCII and one typographic
quote or emoji makes it a few bytes longer, not two or four times as large as it would be in a
`str`. Everything is counted in characters (code points) all the same, and a match ends between
two characters. The price is wide text: 3 bytes a character of Chinese, where a `str` takes 2, and a
request in it is encoded once.
"""

from __future__ import annotations

from typing import ClassVar

from meshlib.limits import TEXT_CHARACTERS_MAX, TREE_CHARACTERS_MAX
from meshlib.prefix.prefix_tree import PrefixTree
from meshlib.prefix.records import check_text

__all__ = ["RadixTree"]

_ENCODING = "utf-8"
_SURROGATES = "surrogatepass"


class RadixTree(PrefixTree[str]):
    """Texts by prefix, each with the tenants that hold it and when they last used it.

    For any Unicode, lone surrogates included. The shape follows from the entries alone: every
    node but the root ends an entry or parts two.

    `characters_max` counts the distinct characters of the whole tree, over all tenants: a prefix
    that many texts and tenants share counts once. An insertion whose new characters would cross
    it is refused and changes nothing; the caller evicts first. So a text longer than
    `characters_max` never fits, unless enough of its beginning is there already.

    Args:
        characters_max: how many characters the tree may hold, 67,108,864 by default, and up to
            4 times that.

    Raises:
        InvalidValueError: `characters_max` under 1.
        LimitError: `characters_max` over 4 times 67,108,864.
    """

    __slots__ = ()

    _what: ClassVar[str] = "characters"
    _width: ClassVar[int] = 1

    def __init__(self, *, characters_max: int = TREE_CHARACTERS_MAX) -> None:
        super().__init__(characters_max)

    @property
    def characters_max(self) -> int:
        """How many characters the tree may hold."""
        return self._units_max

    @property
    def characters_total(self) -> int:
        """The same as `size`: how many characters the tree holds. O(1)."""
        return self._units

    def characters(self, tenant: str) -> int:
        """Count the characters of the nodes that a tenant holds; 0 when unknown. O(1)."""
        holding = self._holdings.get(tenant)
        return 0 if holding is None else holding.units

    @staticmethod
    def _check_key(key: object) -> None:
        if type(key) is not str or not 0 < len(key) <= TEXT_CHARACTERS_MAX:
            check_text(key)

    @staticmethod
    def _encoded(key: str) -> bytes:
        return key.encode(_ENCODING, _SURROGATES)

    @staticmethod
    def _decoded(data: bytes) -> str:
        return data.decode(_ENCODING, _SURROGATES)

    @staticmethod
    def _first(edge: bytes) -> str:
        lead = edge[0]
        if lead < 0x80:
            return chr(lead)
        width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        return edge[:width].decode(_ENCODING, _SURROGATES)

    @staticmethod
    def _whole_units(edge: bytes, common: int) -> tuple[int, int]:
        # A byte of the form 10xxxxxx goes on with a character.
        while common < len(edge) and edge[common] & 0xC0 == 0x80:
            common -= 1
        return common, len(edge[:common].decode(_ENCODING, _SURROGATES))
