"""What stands in a tree for a prompt, and for a session.

keys.py      how a prompt is written there, behind what its cached prefix depends on
hashed_trees.py  trees without text: hashes of blocks
sessions.py  which worker a session was with
"""

from meshlib.routing.prompts.keys import MARK, prompt_key
from meshlib.routing.prompts.sessions import (
    SESSION_TTL_MAX_S,
    SESSION_TTL_S,
    check_session,
    session_holder,
    session_key,
)

__all__ = [
    "MARK",
    "SESSION_TTL_MAX_S",
    "SESSION_TTL_S",
    "check_session",
    "prompt_key",
    "session_holder",
    "session_key",
]
