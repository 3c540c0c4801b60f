"""The gRPC port for Envoys: which services are there, and their bounds."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio

from meshlib.errors import ConfigError
from meshlib_server.adapters.envoy.bounds import Calls
from meshlib_server.adapters.envoy.certificates import Certificates
from meshlib_server.adapters.envoy.health import Health
from meshlib_server.adapters.envoy.picker import Picker
from meshlib_server.adapters.envoy.ratelimit import RateLimitService
from meshlib_server.adapters.envoy.rules import RuleBook, load_rules, rule_files
from meshlib_server.logs import get_logger
from meshlib_server.plugs import EnvoySettings
from meshlib_server.service import Service

__all__ = ["EnvoyPlug", "plug"]

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one message: the part of a body that Envoy has in its buffers, a mebibyte unless set."""

END_S: Final = 0.5
"""For calls that are under way when the port is closed."""


class EnvoyPlug:
    """What an Envoy is plugged into; made before the node starts.

    Args:
        settings: where to listen, and the rule file.

    Raises:
        ConfigError: the rule file holds something that is no rule, or a certificate is none.
    """

    def __init__(self, settings: EnvoySettings) -> None:
        self._settings = settings
        has_tls = settings.certificate_file is not None
        self._certificates = Certificates(settings) if has_tls else None
        self._rules = self._read()
        self._served: tuple[RateLimitService, Picker] | None = None
        self.port = 0
        """The port that is listened on, once it is."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are read again when they change."""
        shown = () if self._certificates is None else self._certificates.files
        return (*shown, *rule_files(self._settings.rules))

    def reload(self) -> None:
        """Read the rule file and the certificates again; the counts stay.

        Raises:
            ConfigError: as at the start. What was read before it stays as it was.
        """
        if self._certificates is not None:
            self._certificates.reload()
        self._rules = self._read()
        if self._served is not None:
            limits, picker = self._served
            limits.replace_rules(self._rules)
            picker.rules = self._rules

    def _read(self) -> RuleBook:
        return RuleBook() if self._settings.rules is None else load_rules(self._settings.rules)

    @contextlib.asynccontextmanager
    async def serve(self, service: Service) -> AsyncIterator[None]:
        """Listen inside the block.

        Args:
            service: the node, which need not have started.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        calls = Calls()
        limits = RateLimitService(service, self._rules, self._settings, calls=calls)
        picker = Picker(service, self._rules, self._settings, calls=calls)
        self._served = (limits, picker)
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ],
        )
        health = Health(service, [RateLimitService.NAME, Picker.NAME], calls=calls)
        server.add_generic_rpc_handlers((limits.handlers(), picker.handlers(), health.handlers()))
        self.port = _listen(server, self._settings.listen, self._certificates)
        await server.start()
        get_logger().info("listening for Envoy", address=self._settings.listen, port=self.port)
        try:
            yield
        finally:
            await server.stop(END_S)


def _listen(server: Any, address: str | None, certificates: Certificates | None) -> int:
    try:
        port: int
        if certificates is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, certificates.credentials())
    except RuntimeError:
        port = 0
    if not port:
        raise ConfigError(f"mesh.envoy.listen: cannot listen on {address}")
    return port


def plug(settings: EnvoySettings) -> EnvoyPlug:
    """Make what `meshlib_server.plugs` starts; see `EnvoyPlug`."""
    return EnvoyPlug(settings)
