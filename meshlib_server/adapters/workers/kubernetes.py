"""Workers of Kubernetes: the endpoints of services, by the official client.

Rule: the client is imported here alone, when services are named. It blocks, so it is asked in a
thread.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from meshlib.aio import join_address
from meshlib.errors import ConfigError
from meshlib_server.adapters.workers.sources import Found, split_named

__all__ = ["KubernetesWorkers"]

TIMEOUT_S: Final = 5.0

SERVICE_LABEL: Final = "kubernetes.io/service-name"


@frozen
class _Service:
    model_id: str
    namespace: str
    name: str
    port: str
    """A number, or the name of a port."""

    @classmethod
    def of(cls, text: str) -> _Service:
        """Read `MODEL=NAMESPACE/SERVICE:PORT`; raises ConfigError."""
        model, place = split_named(text)
        namespace, _, rest = place.partition("/")
        name, _, port = rest.rpartition(":")
        if not (namespace and name and port) or "/" in rest:
            raise ConfigError(f"expected MODEL=NAMESPACE/SERVICE:PORT, got {text!r}")
        return cls(model, namespace, name, port)

    def port_of(self, endpoint_slice: Any) -> int | None:
        """Return the number of the port in one of its slices; None when that has no such port."""
        for port in endpoint_slice.ports or ():
            if self.port in (port.name, str(port.port)) and port.port:
                return int(port.port)
        return int(self.port) if self.port.isdigit() and not endpoint_slice.ports else None


class KubernetesWorkers:
    """The endpoints of services, as their EndpointSlices have them.

    One that is not ready is not healthy; one that ends is none any more.

    Args:
        services: `MODEL=NAMESPACE/SERVICE:PORT` each, the port by number or by name.
        kubeconfig: a file that says which cluster; None: the one that this process is in.

    Raises:
        ConfigError: a service that is none, no client is installed, or it knows no cluster.
    """

    prefix = "kubernetes:"

    def __init__(self, services: Iterable[str], *, kubeconfig: str | None = None) -> None:
        self.files: tuple[str, ...] = ()
        self._services = [_Service.of(text) for text in services]
        self._api, self._errors = _api(kubeconfig)

    async def look(self) -> Mapping[str, Found]:
        """Ask for the slices of all services."""
        return await asyncio.to_thread(self._list)

    def _list(self) -> Mapping[str, Found]:
        found: dict[str, Found] = {}
        for service in self._services:
            for one in self._slices(service):
                found |= self._endpoints(service, one)
        return found

    def _slices(self, service: _Service) -> list[Any]:
        try:
            answer = self._api.list_namespaced_endpoint_slice(
                service.namespace,
                label_selector=f"{SERVICE_LABEL}={service.name}",
                _request_timeout=TIMEOUT_S,
            )
        except self._errors as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise OSError(f"{service.namespace}/{service.name}: {reason}") from None
        return list(answer.items or ())

    def _endpoints(self, service: _Service, endpoint_slice: Any) -> Mapping[str, Found]:
        port = service.port_of(endpoint_slice)
        if port is None or endpoint_slice.address_type == "FQDN":
            return {}
        found: dict[str, Found] = {}
        for endpoint in endpoint_slice.endpoints or ():
            conditions = endpoint.conditions
            if not endpoint.addresses or (conditions is not None and conditions.terminating):
                continue
            # What is not said is to be taken for ready.
            is_ready = conditions is None or conditions.ready is not False
            address = join_address(endpoint.addresses[0], port)
            found[self.prefix + address] = Found(service.model_id, f"http://{address}", is_ready)
        return found


def _api(kubeconfig: str | None) -> tuple[Any, tuple[type[Exception], ...]]:
    """Return the client of a cluster, and what it raises when that does not answer."""
    try:
        transport: Any = importlib.import_module("urllib3.exceptions")
        client: Any = importlib.import_module("kubernetes.client")
        config: Any = importlib.import_module("kubernetes.config")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"services of Kubernetes need more than is installed ({error.name}): "
            "pip install 'meshlib-crdt[kubernetes]'"
        ) from None
    made = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=made)
        else:
            config.load_kube_config(config_file=kubeconfig, client_configuration=made)
    except (config.ConfigException, OSError) as error:
        raise ConfigError(f"no cluster of Kubernetes is known: {error}") from None
    errors = (client.OpenApiException, transport.HTTPError, OSError, ValueError)
    return client.DiscoveryV1Api(client.ApiClient(made)), errors
