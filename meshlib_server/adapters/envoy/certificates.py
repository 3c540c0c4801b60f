"""TLS on the gRPC port: what Envoys are shown, and what they have to show.

Rule: what cannot be read leaves what was in force. A connection keeps what it began with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from meshlib.errors import ConfigError
from meshlib_server.access import Tls, TlsSettings
from meshlib_server.plugs import EnvoySettings

__all__ = ["Certificates"]


class Certificates:
    """The certificate of the port, and the authority of those who call.

    Args:
        settings: with a certificate.

    Raises:
        ConfigError: a file that cannot be read, or a key of another certificate.
    """

    def __init__(self, settings: EnvoySettings) -> None:
        self._settings = TlsSettings(
            certificate_file=settings.certificate_file,
            key_file=settings.key_file,
            ca_file=settings.ca_file,
        )
        self._shown = self._read()
        self._given = self._shown

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are read."""
        return tuple(self._settings.files)

    def reload(self) -> None:
        """Read the files again, for the connections that come from now on.

        Raises:
            ConfigError: as the constructor. What was in force stays.
        """
        self._shown = self._read()

    def credentials(self) -> Any:
        """Return what a gRPC server is given; with an authority, callers must show theirs."""
        self._given = self._shown
        return grpc.dynamic_ssl_server_credentials(
            self._shown,
            self._changed,
            require_client_authentication=self._settings.ca_file is not None,
        )

    def _changed(self) -> Any:
        """Return what is to be shown from now on, or None when that is the same. In any thread."""
        shown = self._shown
        if shown is self._given:
            return None
        self._given = shown
        return shown

    def _read(self) -> Any:
        settings = self._settings
        Tls(settings)  # gRPC takes what does not fit together, and fails each handshake
        assert settings.certificate_file is not None
        certificate = _bytes_of(settings.certificate_file)
        key = certificate if settings.key_file is None else _bytes_of(settings.key_file)
        authority = None if settings.ca_file is None else _bytes_of(settings.ca_file)
        pairs = [(key, certificate)]
        return grpc.ssl_server_certificate_configuration(pairs, root_certificates=authority)


def _bytes_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
