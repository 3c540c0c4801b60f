"""Certificates of this node and of its peers, and how they are replaced.

One port serves callers and peers, so one certificate shows who this node is to both, and to the
peers that it dials. With `ca_file` peers show theirs: callers need none unless that is asked for.

Rule: a connection keeps what it began with; whoever comes later is shown the new certificate. What
cannot be read leaves everything as it is.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection
from typing import Any, Final

from attrs import frozen

from meshlib.errors import ConfigError

__all__ = ["PEER_NAMES", "Tls", "TlsSettings", "names_of"]

PEER_NAMES: Final = "meshlib.peer_names"
"""Where a WebSocket's scope has the names of the certificate that the other side has shown."""


@frozen(kw_only=True)
class TlsSettings:
    """TLS for callers and peers; without a certificate there is none.

    Args:
        certificate_file: this node's certificate, with those between it and its authority; PEM.
        key_file: its key; None: it is in the same file.
        ca_file: the authority of the peers' certificates. With it every peer must show one, on
            whichever side dials; None: the system's, and none is asked for.
        peer_name: a name that every peer's certificate has. None: that of the host that is
            dialled, and any name for a peer that dials.
        require_client_certificate: whether callers must show a certificate of that authority too.
    """

    certificate_file: str | None = None
    key_file: str | None = None
    ca_file: str | None = None
    peer_name: str | None = None
    require_client_certificate: bool = False

    def __attrs_post_init__(self) -> None:
        """Check that what is set goes together.

        Raises:
            ConfigError: names the setting.
        """
        if self.certificate_file is None:
            for name in ("key_file", "ca_file", "peer_name"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"tls.{name} needs tls.certificate_file")
        if self.require_client_certificate and self.ca_file is None:
            raise ConfigError("tls.require_client_certificate needs tls.ca_file")

    @property
    def files(self) -> list[str]:
        """The files that are read."""
        given = (self.certificate_file, self.key_file, self.ca_file)
        return [path for path in given if path is not None]


class Tls:
    """What is shown and asked for now.

    Args:
        settings: with a certificate.

    Raises:
        ConfigError: a file that cannot be read, or a key of another certificate.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self.server: ssl.SSLContext
        """For connections that are accepted from now on."""
        self.client: ssl.SSLContext
        """For peers that are dialled from now on."""
        self.reload()

    @property
    def peer_name(self) -> str | None:
        """The name that the certificate of a dialled peer must have; None: that of its host."""
        return self._settings.peer_name

    def reload(self) -> None:
        """Read the files again.

        Raises:
            ConfigError: as the constructor. What was in force stays.
        """
        self.server, self.client = self._server_context(), self._client_context()

    def admits_peer(self, names: Collection[str] | None) -> bool:
        """Tell whether a peer that dialled has shown what it must.

        Args:
            names: those of its certificate, which was checked; None: it has shown none.
        """
        if self._settings.ca_file is None:
            return True
        wanted = self._settings.peer_name
        return names is not None and (wanted is None or wanted in names)

    def _server_context(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load_own(context)
        if settings.ca_file is not None:
            self._load_authority(context)
            is_asked = settings.require_client_certificate
            context.verify_mode = ssl.CERT_REQUIRED if is_asked else ssl.CERT_OPTIONAL
        return context

    def _client_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load_own(context)
        if self._settings.ca_file is None:
            context.load_default_certs()
        else:
            self._load_authority(context)
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        settings = self._settings
        assert settings.certificate_file is not None
        try:
            context.load_cert_chain(settings.certificate_file, settings.key_file, password=_none)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot use the certificate in {settings.certificate_file}: {_reason(error)}"
            ) from None

    def _load_authority(self, context: ssl.SSLContext) -> None:
        path = self._settings.ca_file
        try:
            context.load_verify_locations(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot use the authority in {path}: {_reason(error)}") from None


def names_of(transport: Any) -> frozenset[str] | None:
    """Return the names of the certificate that the other side has shown; None without one.

    Args:
        transport: a connection of asyncio's.
    """
    shown = transport.get_extra_info("peercert")
    if not shown:
        return None
    return frozenset(str(name) for _kind, name in shown.get("subjectAltName", ()))


def _none() -> bytes:
    """Answer for OpenSSL, which would ask the terminal for the password of a key."""
    return b""


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)
