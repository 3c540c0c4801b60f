"""The messages between nodes, and how each is laid out on the wire.

A message is packed as a tuple: its code, then its fields in the order declared here. Decoding
checks every type and range; whatever does not fit is a `DecodeError` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib.codec import pack, unpack
from meshlib.errors import DecodeError
from meshlib.gossip.messages.membership import (
    ConflictNotice,
    IndirectPingFailed,
    IndirectPingRequest,
    JoinRequest,
    JoinResponse,
    MemberNews,
    MemberUpdates,
    PingRequest,
    PingResponse,
    table_pages,
)
from meshlib.gossip.messages.replication import (
    EntriesMessage,
    ExchangeEqual,
    ExchangeRequest,
    GapRequest,
    TransferAvailable,
    TransferNext,
    TransferPageMessage,
    TransferRequest,
    VectorExchange,
    VolatileMessage,
)

__all__ = [
    "ConflictNotice",
    "EntriesMessage",
    "ExchangeEqual",
    "ExchangeRequest",
    "GapRequest",
    "IndirectPingFailed",
    "IndirectPingRequest",
    "JoinRequest",
    "JoinResponse",
    "MemberNews",
    "MemberUpdates",
    "Message",
    "PingRequest",
    "PingResponse",
    "TransferAvailable",
    "TransferNext",
    "TransferPageMessage",
    "TransferRequest",
    "VectorExchange",
    "VolatileMessage",
    "decode_message",
    "encode_message",
    "table_pages",
]

Message = (
    PingRequest
    | PingResponse
    | IndirectPingRequest
    | IndirectPingFailed
    | JoinRequest
    | JoinResponse
    | ConflictNotice
    | MemberUpdates
    | EntriesMessage
    | GapRequest
    | ExchangeRequest
    | ExchangeEqual
    | VectorExchange
    | TransferAvailable
    | TransferRequest
    | TransferPageMessage
    | TransferNext
    | VolatileMessage
)

_DECODERS: dict[int, Callable[[tuple[Any, ...]], Message]] = {
    kind.code: kind.from_wire
    for kind in (
        PingRequest, PingResponse, IndirectPingRequest, IndirectPingFailed, JoinRequest,
        JoinResponse, ConflictNotice, MemberUpdates, EntriesMessage, GapRequest, ExchangeRequest,
        ExchangeEqual, VectorExchange, TransferAvailable, TransferRequest, TransferPageMessage,
        TransferNext, VolatileMessage,
    )
}  # fmt: skip


def encode_message(message: Message) -> bytes:
    """Pack one message. O(size)."""
    data: bytes = pack((message.code, *message.to_wire()))
    return data


def decode_message(data: bytes) -> Message:
    """Unpack and check one message. O(size).

    Raises:
        DecodeError: malformed, of an unknown kind, or with a field out of its range.
        LimitExceeded: a field over its limit.
    """
    tree = unpack(data)
    if type(tree) is not tuple or not tree or type(tree[0]) is not int:
        raise DecodeError("not a message")
    decoder = _DECODERS.get(tree[0])
    if decoder is None:
        raise DecodeError(f"unknown message {tree[0]}")
    return decoder(tree[1:])
