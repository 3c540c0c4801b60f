"""What becomes of a request, said at another router than the one that has it in flight.

words.py  that another router's request is prefilled, over, or goes on
"""

from meshlib.routing.requests.words import (
    WORD_DOCUMENT,
    RequestWord,
    Word,
    hear_word,
    router_of,
    say,
)

__all__ = ["WORD_DOCUMENT", "RequestWord", "Word", "hear_word", "router_of", "say"]
