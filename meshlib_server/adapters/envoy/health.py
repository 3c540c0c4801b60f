"""`grpc.health.v1`: what a caller may be sent to, asked for by name.

`liveness` is served as long as anything answers; `readiness`, the empty name and the name of each
service are served while the node itself is ready and not about to leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc

from meshlib import StateError
from meshlib_server.adapters.envoy.bounds import Calls
from meshlib_server.adapters.envoy.protocol import HealthCheckRequest, HealthCheckResponse
from meshlib_server.service import Service

__all__ = ["Health"]

LOOK_S: Final = 0.25
"""How often a caller that watches is looked after."""


class Health:
    """Answers health checks.

    Args:
        service: the node.
        names: the services of this port.
        calls: those that are under way.
    """

    def __init__(self, service: Service, names: Iterable[str], *, calls: Calls) -> None:
        self._calls = calls
        self._service = service
        self._names = {"", "readiness", *names}

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server is given."""
        coded = {
            "request_deserializer": HealthCheckRequest.FromString,
            "response_serializer": HealthCheckResponse.SerializeToString,
        }
        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health",
            {
                "Check": grpc.unary_unary_rpc_method_handler(self.check, **coded),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch, **coded),
            },
        )

    def _status(self, name: str) -> int | None:
        if name == "liveness":
            return int(HealthCheckResponse.SERVING)
        if name not in self._names:
            return None
        try:
            is_ready = not self._service.unready_reason()
        except StateError:  # the node has not started, or has ended
            is_ready = False
        return int(HealthCheckResponse.SERVING if is_ready else HealthCheckResponse.NOT_SERVING)

    async def check(self, request: Any, context: Any) -> Any:
        """Say whether a service is served now."""
        status = self._status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return HealthCheckResponse(status=status)

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Say whether a service is served, now and whenever that changes."""
        if self._calls.is_full:
            await self._calls.refuse(context)
        told: int | None = None
        with self._calls:
            while True:
                status = self._status(request.service)
                found = int(HealthCheckResponse.SERVICE_UNKNOWN) if status is None else status
                if found != told:
                    told = found
                    yield HealthCheckResponse(status=found)
                await asyncio.sleep(LOOK_S)
