"""A node in this process with a port for Envoys, and calls to it over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import grpc
import grpc.aio

from meshlib import GossipConfig, MemoryNetwork, MeshConfig, MeshRuntime, RateLimitConfig
from meshlib_server.adapters.envoy import EnvoyPlug
from meshlib_server.adapters.envoy.protocol import (
    HealthCheckRequest,
    HealthCheckResponse,
    RateLimitRequest,
    RateLimitResponse,
)
from meshlib_server.plugs import EnvoySettings, OnFailure
from meshlib_server.service import Service


def rate_limit_request(domain: str, *descriptors: dict[str, str], hits_addend: int = 0) -> Any:
    """Return a request with a descriptor for each mapping, its entries in their order."""
    request = RateLimitRequest(domain=domain, hits_addend=hits_addend)
    for entries in descriptors:
        made = request.descriptors.add()
        for key, value in entries.items():
            made.entries.add(key=key, value=value)
    return request


class Caller:
    """One connection to the port for Envoys.

    Args:
        channel: the connection.
    """

    def __init__(self, channel: Any) -> None:
        self._should = channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
            request_serializer=RateLimitRequest.SerializeToString,
            response_deserializer=RateLimitResponse.FromString,
        )
        self._check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )

    async def ask(self, request: Any, *, timeout_s: float | None = 5.0) -> Any:
        """Ask whether a request may pass."""
        return await self._should(request, timeout=timeout_s)

    async def codes(self, request: Any, times: int) -> list[str]:
        """Ask the same several times, one after the other; return the overall codes."""
        answers = [await self.ask(request) for _ in range(times)]
        return [RateLimitResponse.Code.Name(answer.overall_code) for answer in answers]

    async def health(self, name: str) -> str:
        """Return what health says of a service."""
        answer = await self._check(HealthCheckRequest(service=name), timeout=5.0)
        return str(HealthCheckResponse.ServingStatus.Name(answer.status))


class Plugged:
    """A node with its port.

    Args:
        mesh: the node.
        service: what stands before it.
        plug: its port.
        channel: a connection to it.
    """

    def __init__(self, mesh: MeshRuntime, service: Service, plug: EnvoyPlug, channel: Any) -> None:
        self.mesh, self.service, self.plug, self.channel = mesh, service, plug, channel
        self.caller = Caller(channel)


@contextlib.asynccontextmanager
async def plugged(
    rules: Path | None = None,
    *,
    network: MemoryNetwork | None = None,
    name: str = "n1",
    seeds: tuple[str, ...] = (),
    on_failure: OnFailure = OnFailure.DEFER,
    is_started: bool = True,
    wall_clock: Any = None,
) -> AsyncIterator[Plugged]:
    """Run a node with a port for Envoys inside the block.

    Args:
        rules: a rule file.
        network: that of the other nodes.
        name: of the node.
        seeds: other nodes.
        on_failure: what is answered when nothing can be decided.
        is_started: whether the node starts.
        wall_clock: of the node.
    """
    transport = (network or MemoryNetwork()).transport(f"{name}:1")
    config = MeshConfig(
        name=name,
        gossip=attrs.evolve(GossipConfig.local(), bootstrap_after_s=0.1, bootstrap_listen_s=0),
        rate_limit=RateLimitConfig(mandate_s=0.3),
    )
    clock = {} if wall_clock is None else {"wall_clock": wall_clock}
    mesh = MeshRuntime(config, transport=transport, seeds=seeds, **clock)
    service = Service(mesh, shut_down=lambda: None)
    settings = EnvoySettings(
        listen="127.0.0.1:0",
        rules=None if rules is None else str(rules),
        on_failure=on_failure,
    )
    plug = EnvoyPlug(settings)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(plug.serve(service))
        if is_started:
            await stack.enter_async_context(mesh)
            await mesh.wait_ready(10)
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{plug.port}")
        )
        yield Plugged(mesh, service, plug, channel)
