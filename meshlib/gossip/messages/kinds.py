"""The messages between nodes, and how each is laid out on the wire.

A message is packed as a list: its code, then its fields in the order declared, each as its kind
says. Decoding checks every type and range; whatever does not fit is a `DecodeError` or a
`LimitExceeded` and nothing else.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from meshlib.codec import pack
from meshlib.errors import DecodeError
from meshlib.gossip.messages.fields import Layout
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
from meshlib.reading import is_integer, read_rows, read_tree

__all__ = [
    "MESSAGE_TYPES",
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

MESSAGE_TYPES: Final[tuple[type[Message], ...]] = get_args(Message)
"""Every kind of message."""

_LAYOUTS: Final[dict[type, Layout[Any]]] = {kind: Layout(kind) for kind in MESSAGE_TYPES}
_BY_CODE: Final[dict[int, Layout[Any]]] = {kind.code: _LAYOUTS[kind] for kind in MESSAGE_TYPES}
_WRITERS: Final = {kind: layout.write for kind, layout in _LAYOUTS.items()}


def encode_message(message: Message) -> bytes:
    """Pack one message. O(size)."""
    data: bytes = pack((message.code, *_WRITERS[type(message)](message)))
    return data


def decode_message(data: bytes) -> Message:
    """Unpack and check one message. O(size).

    Raises:
        DecodeError: malformed, of an unknown kind, or with a field out of its range.
        LimitExceeded: a field over its limit.
    """
    tree = read_rows(read_tree(data), "a message")
    layout = _BY_CODE.get(tree[0]) if tree and is_integer(tree[0]) else None
    if layout is None:
        raise DecodeError("not a message of a known kind")
    message: Message = layout.read(tree[1:])
    return message
