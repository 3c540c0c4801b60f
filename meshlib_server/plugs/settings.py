"""What the settings of each adapter are."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

__all__ = ["EnvoySettings", "OnFailure", "WorkerSourceSettings"]


class OnFailure(StrEnum):
    """What an adapter answers when the node cannot decide: not ready, leaving, or without rules."""

    DEFER = "defer"
    """An error: the caller's own setting decides, such as `failure_mode_deny` of Envoy."""

    OPEN = "open"
    """The request passes."""

    CLOSED = "closed"
    """The request is refused."""


@frozen(kw_only=True)
class EnvoySettings:
    """The port for Envoys; needs the extra `envoy`.

    Args:
        listen: where its gRPC is listened for, as `host:port`; None: not at all.
        rules: a rule file in the format of envoyproxy/ratelimit, or a folder of them.
        on_failure: what is answered when nothing can be decided: `defer`, `open` or `closed`.
        headers: whether answers carry `RateLimit-Limit`, `-Remaining` and `-Reset`.
        certificate_file: what the port shows, with those between it and its authority; PEM. None:
            there is no TLS.
        key_file: its key; None: it is in the same file.
        ca_file: the authority of the Envoys: each must show a certificate of it. None: none is
            asked for.
    """

    listen: str | None = None
    rules: str | None = None
    on_failure: OnFailure = OnFailure.DEFER
    headers: bool = True
    certificate_file: str | None = None
    key_file: str | None = None
    ca_file: str | None = None


@frozen(kw_only=True)
class WorkerSourceSettings:
    """Where workers are read from, beside what the API is told; asked again for ever.

    Args:
        file: a file of them; see the page on the endpoint picker.
        dns_names: `MODEL=HOST:PORT` each, of names of which every address is a worker.
        kubernetes_services: `MODEL=NAMESPACE/SERVICE:PORT` each, the port by number or by name;
            needs the extra `kubernetes`.
        kubeconfig: a file that says which cluster; None: the one that this process is in.
        refresh_s: how often they are asked, in seconds, over 0.
    """

    file: str | None = None
    dns_names: tuple[str, ...] = ()
    kubernetes_services: tuple[str, ...] = ()
    kubeconfig: str | None = None
    refresh_s: float = 5.0

    @property
    def is_set(self) -> bool:
        """Whether there is any."""
        return bool(self.file is not None or self.dns_names or self.kubernetes_services)
