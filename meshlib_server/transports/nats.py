"""What is set of NATS, and the transport that is made of it; needs the extra `nats`.

Rule: secrets are in files, which are read once, at the start. Nothing of them is ever logged.
"""

from __future__ import annotations

import ssl
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from meshlib.errors import ConfigError

if TYPE_CHECKING:
    from meshlib.aio import NatsTransport, TokenJudge

__all__ = ["NatsSettings", "PeerTransport", "make_nats_transport"]


class PeerTransport(StrEnum):
    """What carries frames between the nodes."""

    WEBSOCKET = "websocket"
    """WebSockets, on the port of the API."""

    NATS = "nats"
    """NATS: no peer is dialled, and none dials."""

    BRIDGED = "bridged"
    """WebSockets within the region, and NATS between the bridges."""

    @classmethod
    def named(cls, name: str) -> PeerTransport:
        """Return the one of a name.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in set(cls):
            raise ConfigError(f"transport must be one of {', '.join(cls)}, got {name!r}")
        return cls(name)


@frozen(kw_only=True)
class NatsSettings:
    """Where NATS is, and how this node is let in.

    Args:
        servers: URLs such as `nats://10.0.0.1:4222` or `tls://nats.example:4222`.
        subject: the subject below which the cluster's are, the same on every node.
        user: shown with the password in `password_file`.
        password_file: a file with nothing else.
        token_file: a file with a token, in place of both.
        credentials_file: a file with a JWT and a seed, as NATS's own tools write it.
        seed_file: a file with the seed of a key.
        ca_file: the authority of the servers' certificates; None: the system's.
        certificate_file: shown to the servers, with its key.
        key_file: its key; None: it is in the same file.
    """

    servers: tuple[str, ...] = ()
    subject: str = "meshlib"
    user: str | None = None
    password_file: str | None = None
    token_file: str | None = None
    credentials_file: str | None = None
    seed_file: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    def check(self, transport: PeerTransport) -> None:
        """Check that what is set goes together.

        Raises:
            ConfigError: names the setting.
        """
        if transport is PeerTransport.NATS and not self.servers:
            raise ConfigError("mesh.transport: nats needs mesh.nats.servers")
        if transport is PeerTransport.WEBSOCKET and self.servers:
            raise ConfigError("mesh.nats.servers needs mesh.transport: nats, or bridged")
        if any("@" in url for url in self.servers):
            raise ConfigError("mesh.nats.servers: a URL here holds no secret: set one of the files")
        if (self.user is None) != (self.password_file is None):
            raise ConfigError("mesh.nats.user needs mesh.nats.password_file, and it a user")
        if self.key_file is not None and self.certificate_file is None:
            raise ConfigError("mesh.nats.key_file needs mesh.nats.certificate_file")


def make_nats_transport(
    settings: NatsSettings, *, address: str, token: str | None, judge: TokenJudge
) -> NatsTransport:
    """Make the transport of a node, and read the secrets.

    Args:
        settings: checked.
        address: what peers call this node, as `host:port`.
        token: what is shown to peers; None shows none.
        judge: tells which tokens of peers are accepted.

    Raises:
        ConfigError: the extra is not installed, a file cannot be read, or a setting cannot hold.
    """
    try:
        from meshlib.aio import NatsCredentials, NatsTransport
    except ModuleNotFoundError as error:
        raise ConfigError(f"mesh.transport: {error}") from None
    credentials = NatsCredentials(
        user=settings.user,
        password=_secret(settings.password_file, "password_file"),
        token=_secret(settings.token_file, "token_file"),
        file=settings.credentials_file,
        seed_file=settings.seed_file,
    )
    try:
        return NatsTransport(
            address,
            servers=settings.servers,
            subject=settings.subject,
            token=token,
            judge=judge,
            tls=_tls(settings),
            credentials=credentials,
        )
    except ConfigError as error:
        raise ConfigError(f"mesh.nats: {error}") from None


def _secret(path: str | None, name: str) -> str | None:
    if path is None:
        return None
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"mesh.nats.{name}: cannot read {path}: {reason}") from None
    if not secret:
        raise ConfigError(f"mesh.nats.{name}: {path} is empty")
    return secret


def _tls(settings: NatsSettings) -> ssl.SSLContext | None:
    if settings.ca_file is None and settings.certificate_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"mesh.nats: its certificates cannot be read: {error}") from None
    return context
