"""What is set of a transport over NATS, and what the messages of its links are.

A link carries a stream of frames, each after its length, in pieces to the inbox of the peer. Each
message begins with one letter, and names in its reply subject where the link is answered. NATS
promises neither that a message arrives nor that a slow reader is waited for: pieces are numbered,
so that a gap ends the link, and no more of them are on their way than the peer has acknowledged.
"""

from __future__ import annotations

import ssl
from struct import Struct
from typing import Final

from attrs import field, frozen

from meshlib.aio.settings import check_not_negative, check_positive
from meshlib.arguments import checked_types
from meshlib.errors import ConfigError

__all__ = [
    "ABORT",
    "ACKNOWLEDGED",
    "CLOSED",
    "COUNT",
    "FINISH",
    "HELLO",
    "PIECE",
    "WELCOME",
    "NatsAccess",
    "NatsConfig",
    "NatsCredentials",
]

HELLO: Final = b"h"
"""From the dialling side: the token follows, as over TCP."""

PIECE: Final = b"d"
"""From the dialling side: the number of the piece follows, then the piece."""

FINISH: Final = b"e"
"""From the dialling side: nothing more comes; answered by CLOSED once all was handed on."""

ABORT: Final = b"x"
"""From the dialling side: forget the link."""

WELCOME: Final = b"w"
"""From the accepting side: the hello is accepted; how many bytes may be on their way follows."""

ACKNOWLEDGED: Final = b"a"
"""From the accepting side: how many bytes of the stream were handed on in all follows."""

CLOSED: Final = b"c"
"""From the accepting side: the link is over; a word of `LinkFault` may follow."""

COUNT: Final = Struct(">Q")


@frozen(slots=True, kw_only=True, repr=False, field_transformer=checked_types)
class NatsCredentials:
    """What a node shows to NATS. Nothing of it is ever logged.

    Args:
        user: a name, with `password`.
        password: with `user`.
        token: in place of both.
        file: the path of a file with a JWT and the seed of its key; needs the package `nkeys`.
        seed_file: the path of a file with the seed of a key; needs the package `nkeys`.

    Raises:
        ConfigError: more than one way, or half of one.
    """

    user: str | None = None
    password: str | None = None
    token: str | None = None
    file: str | None = None
    seed_file: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.user is None) != (self.password is None):
            raise ConfigError("NATS needs a user and a password, or neither")
        ways = (self.user, self.token, self.file, self.seed_file)
        if sum(way is not None for way in ways) > 1:
            raise ConfigError("NATS takes one of: user and password, token, file, seed_file")

    def __repr__(self) -> str:
        return "NatsCredentials(...)"


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class NatsConfig:
    """How the connection to NATS is kept, and how much is on its way.

    Args:
        connect_timeout_s: how long one attempt may take, over all servers.
        retry_s: the pause between two attempts, shortened at random by up to a half.
        ping_interval_s: how often NATS is asked whether it is there. One that has not answered
            when it is asked again is given up.
        settle_s: for how long after the connection is back nobody is held to be silent: others
            may still be connecting. Keep it over `retry_s` and `connect_timeout_s` together.
        window_bytes: what a peer that reads nothing may have sent on one link.
        piece_bytes_max: one message; NATS's own limit holds beside it.
        queue_bytes_max: what waits in this process for the connection to NATS, of all links.
        accepted_bytes_max: what was received and waits for the node, of all links.
    """

    connect_timeout_s: float = field(default=2.0, validator=check_positive)
    retry_s: float = field(default=0.25, validator=check_positive)
    ping_interval_s: float = field(default=1.0, validator=check_positive)
    settle_s: float = field(default=3.0, validator=check_not_negative)
    window_bytes: int = field(default=256 * 1024, validator=check_positive)
    piece_bytes_max: int = field(default=64 * 1024, validator=check_positive)
    queue_bytes_max: int = field(default=1024 * 1024, validator=check_positive)
    accepted_bytes_max: int = field(default=64 * 1024 * 1024, validator=check_positive)

    def __attrs_post_init__(self) -> None:
        if self.window_bytes < 4 * self.piece_bytes_max:
            raise ConfigError("window_bytes must be at least four times piece_bytes_max")


@frozen(slots=True, kw_only=True)
class NatsAccess:
    """Where NATS is, and how this node is let in.

    Args:
        servers: URLs; one that is gone is replaced by another.
        tls: for the connection; None: as the URLs say, with the system's authorities.
        tls_hostname: the name that the servers' certificates must have; None: that of the URL.
        credentials: what is shown.
        name: what NATS's own tools call this connection.
    """

    servers: tuple[str, ...]
    tls: ssl.SSLContext | None
    tls_hostname: str | None
    credentials: NatsCredentials
    name: str
