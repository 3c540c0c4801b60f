"""How a prompt is written in a tree: as it is, or behind its salt.

Rule: two prompts have one key only if both their salts and their texts are equal, whoever chose
them. A key that begins with `MARK` says how long the salt behind it is; a text of that beginning
has a salt of no characters before it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MARK", "SESSION_MARK", "prompt_key"]

MARK: Final = "\x1f"
"""What a key begins with that is not just a text."""

SESSION_MARK: Final = f"{MARK}session:"
"""What the key of a session begins with."""


def prompt_key(text: str, *, salt: str = "") -> str:
    """Return the key of a prompt; it ends in the text. O(length).

    Prompts of one salt share as long a beginning as their texts do, behind a salt of that length;
    those of different salts are told apart before their texts begin.

    Args:
        text: the prompt.
        salt: what else its cached prefix depends on.
    """
    if not salt and not text.startswith(MARK):
        return text
    return f"{MARK}{len(salt)}:{salt}{text}"
