"""Events of an engine's cache, as vLLM documents them and SGLang publishes them too.

A message is msgpack: `[timestamp, [event, ...], rank]`, and an event an array that begins with its
name. Engines leave out at the end what has its default, and later ones put more there; what this
does not know it passes over.

Rule: nothing here raises anything but `RemoteError`s on what was sent.
Source: the documentation of vLLM's `kv_events`, whose structures are arrays with tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from meshlib.errors import DecodeError
from meshlib.reading import read_integer, read_rows, read_tree

__all__ = [
    "EngineBatch",
    "EngineCleared",
    "EngineEvent",
    "EngineHash",
    "EngineRemoved",
    "EngineStored",
    "read_batch",
]

EngineHash = int | bytes
"""How an engine names a block: a number, or the bytes of a longer hash."""

HASH_BYTES_MAX: Final = 64
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
BLOCK_TOKENS_MAX: Final = 4096
TOKEN_MAX: Final = 2**32 - 1


@frozen(slots=True)
class EngineStored:
    """The engine has cached blocks that follow each other.

    Args:
        hashes: its names for them.
        parent: its name for what comes before the first; None at a beginning.
        tokens: of all of them, `block_tokens` each.
        block_tokens: tokens of a block.
        salt: what else they depend on, such as an adapter; empty for nothing.
        medium: where they are, such as `GPU`; None where it does not say.
    """

    hashes: tuple[EngineHash, ...]
    parent: EngineHash | None
    tokens: tuple[int, ...]
    block_tokens: int
    salt: str = ""
    medium: str | None = None


@frozen(slots=True)
class EngineRemoved:
    """The engine has evicted blocks, from one medium if it says so."""

    hashes: tuple[EngineHash, ...]
    medium: str | None = None


@frozen(slots=True)
class EngineCleared:
    """The engine has nothing cached any more."""


EngineEvent = EngineStored | EngineRemoved | EngineCleared


@frozen(slots=True)
class EngineBatch:
    """One message.

    Args:
        events: in their order.
        strange_count: events of names that are not known, which were passed over.
    """

    events: tuple[EngineEvent, ...]
    strange_count: int = 0


def read_batch(payload: bytes) -> EngineBatch:
    """Read one message. O(size).

    Raises:
        RemoteError: not what it should be.
    """
    batch = read_rows(read_tree(payload, bytes_max=BATCH_BYTES_MAX), "a batch of events")
    if len(batch) < 2:
        raise DecodeError("a batch of events must have a time and events")
    events: list[EngineEvent] = []
    strange_count = 0
    for row in read_rows(batch[1], "events"):
        event = _read_event(read_rows(row, "an event"))
        if event is None:
            strange_count += 1
        else:
            events.append(event)
    return EngineBatch(tuple(events), strange_count)


def _read_event(row: Sequence[Any]) -> EngineEvent | None:
    name = row[0] if row else None
    if name == "BlockStored":
        return _read_stored(row)
    if name == "BlockRemoved":
        if len(row) < 2:
            raise DecodeError("blocks that are removed must be named")
        return EngineRemoved(_read_hashes(row[1]), _read_label(row, 2))
    return EngineCleared() if name == "AllBlocksCleared" else None


def _read_stored(row: Sequence[Any]) -> EngineStored:
    if len(row) < 5:
        raise DecodeError("blocks that are stored must have a parent, tokens and a size")
    hashes = _read_hashes(row[1])
    parent = None if row[2] is None else _read_hash(row[2])
    block_tokens = read_integer(row[4], "the size of a block", minimum=1, maximum=BLOCK_TOKENS_MAX)
    tokens = tuple(
        read_integer(token, "a token", maximum=TOKEN_MAX) for token in read_rows(row[3], "tokens")
    )
    if len(tokens) != len(hashes) * block_tokens:
        raise DecodeError(f"{len(hashes)} blocks of {block_tokens} have {len(tokens)} tokens")
    return EngineStored(hashes, parent, tokens, block_tokens, _read_salt(row), _read_label(row, 6))


def _read_salt(row: Sequence[Any]) -> str:
    """Return what sets blocks apart that have the same tokens: the adapter, or other keys."""
    adapter = row[7] if len(row) > 7 and row[7] is not None else row[5] if len(row) > 5 else None
    extra = row[8] if len(row) > 8 else None
    parts = [repr(each) for each in (adapter, extra) if each is not None]
    # Keys that say nothing of any block, as an array of as many nothings, are none.
    return "|".join(parts) if adapter is not None or _says_something(extra) else ""


def _says_something(extra: Any) -> bool:
    return extra is not None and any(each is not None for each in read_rows(extra, "extra keys"))


def _read_label(row: Sequence[Any], at: int) -> str | None:
    label = row[at] if len(row) > at else None
    return None if label is None else str(label)[:64]


def _read_hashes(wire: Any) -> tuple[EngineHash, ...]:
    return tuple(_read_hash(each) for each in read_rows(wire, "hashes of blocks"))


def _read_hash(wire: Any) -> EngineHash:
    if type(wire) is int or (type(wire) is bytes and len(wire) <= HASH_BYTES_MAX):
        return wire
    raise DecodeError("the hash of a block must be an integer or bytes")
