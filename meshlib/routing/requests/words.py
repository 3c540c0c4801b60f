"""That a request of another router is prefilled, over, or goes on.

Callers behind a load balancer say so to whichever router they reach. The name of a request says
whose it is, and the word is passed on to that one. It is said once: of a request whose end is lost
on the way the time is up after `EXPIRY_S`, as of one whose caller has gone.

Rule: bytes of such a word are written and read in this file alone; reading raises `RemoteError`s
and nothing else.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import Final

from attrs import frozen

from meshlib.codec import pack
from meshlib.errors import (
    DecodeError,
    RejectReason,
    UnknownKeyError,
    VersionMismatch,
)
from meshlib.identity import ActorId, actor_name_hash
from meshlib.limits import DECODED_TOKENS_MAX
from meshlib.reading import read_actor, read_integer, read_rows, read_text, read_tree, require
from meshlib.routing.load import SharedLoad

__all__ = ["WORD_DOCUMENT", "RequestWord", "Word", "hear_word", "router_of", "say"]

WORD_DOCUMENT: Final = "load:word"
"""The volatile document that these travel in."""

FORMAT_VERSION: Final = 1

_ACTOR_DIGITS: Final = 32
_REQUEST_BYTES_MAX: Final = 64


class Word(StrEnum):
    """What is said of a request."""

    FIRST_TOKEN = "first_token"  # noqa: S105 - of a prompt, and no secret
    """It is prefilled."""

    END = "end"
    """It is over, however it ended."""

    RENEW = "renew"
    """It goes on."""


def router_of(request_id: str) -> ActorId | None:
    """Return the start of the router that gave a request its name; None for no such name. O(1)."""
    digits, dash, number = request_id.partition("-")
    if len(digits) != _ACTOR_DIGITS or not dash or not number:
        return None
    try:
        return ActorId(bytes.fromhex(digits))
    except ValueError:
        return None


@frozen(slots=True)
class RequestWord:
    """One word.

    Args:
        actor: the start of the router that passes it on.
        word: what is said.
        request_id: of which request.
        decoded_tokens: what it has decoded so far, as far as was said, with `RENEW`.
    """

    actor: ActorId
    word: Word
    request_id: str
    decoded_tokens: int = 0

    def encode(self) -> bytes:
        """Write the word. O(1)."""
        data: bytes = pack(
            (FORMAT_VERSION, self.actor, str(self.word), self.request_id, self.decoded_tokens)
        )
        return data

    @classmethod
    def decode(cls, data: bytes) -> RequestWord:
        """Read a word. O(size).

        Raises:
            DecodeError: no such word.
            VersionMismatch: of a version that this node does not speak.
        """
        items = read_rows(read_tree(data), "a word of a request")
        require(len(items) >= 1, "a word of a request must not be empty")
        version = read_integer(items[0], "the version", minimum=1)
        if version != FORMAT_VERSION:
            raise VersionMismatch("a word of a request", ours=FORMAT_VERSION, theirs=version)
        require(len(items) == 5, "a word of a request must have 5 items")
        word = read_text(items[2], "a word", bytes_max=_REQUEST_BYTES_MAX)
        require(word in set(Word), f"{word!r} is no word of a request")
        request_id = read_text(items[3], "a request", bytes_max=_REQUEST_BYTES_MAX)
        decoded = read_integer(items[4], "decoded tokens", maximum=DECODED_TOKENS_MAX)
        return cls(read_actor(items[1]), Word(word), request_id, decoded)


def say(
    load: SharedLoad,
    word: Word,
    request_id: str,
    *,
    decoded_tokens: int | None = None,
    now: float,
) -> None:
    """Say a word of a request of this router's own; as the method of its name.

    Args:
        load: of this router.
        word: what is said.
        request_id: of which request.
        decoded_tokens: what it has decoded so far, with `RENEW`.
        now: monotonic seconds.

    Raises:
        UnknownKeyError: no such request is in flight here.
        LocalError: as `SharedLoad.renew`. State unchanged after either.
    """
    if word is Word.FIRST_TOKEN:
        load.first_token(request_id, now=now)
    elif word is Word.END:
        load.end(request_id, now=now)
    else:
        load.renew(request_id, decoded_tokens=decoded_tokens, now=now)


def hear_word(load: SharedLoad, payload: bytes, *, sender: str, now: float) -> None:
    """Take a word that another router passes on. O(requests at the worker).

    One of a request that is not in flight any more changes nothing.

    Args:
        load: of this router.
        payload: the word.
        sender: the name of the router that passes it on.
        now: monotonic seconds.

    Raises:
        RemoteError: no such word, or in another's name. State unchanged.
    """
    word = RequestWord.decode(payload)
    if word.actor[:8] != actor_name_hash(sender):
        raise DecodeError(f"{sender!r} speaks for another", reason=RejectReason.IDENTITY)
    with suppress(UnknownKeyError):
        say(load, word.word, word.request_id, decoded_tokens=word.decoded_tokens, now=now)
