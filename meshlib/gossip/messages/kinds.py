"""The messages between nodes: every kind there is.

A message is packed as a list: its code, then its fields in the order declared, each as its kind
says; `dialects.py` tells how that is done in each format.
"""

from __future__ import annotations

from typing import Final, get_args

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
    SeedAnswer,
    SeedQuestion,
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
    "SeedAnswer",
    "SeedQuestion",
    "TransferAvailable",
    "TransferNext",
    "TransferPageMessage",
    "TransferRequest",
    "VectorExchange",
    "VolatileMessage",
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
    | SeedQuestion
    | SeedAnswer
)

MESSAGE_TYPES: Final[tuple[type[Message], ...]] = get_args(Message)
"""Every kind of message."""
