"""The generated messages of Envoy's protocols and of gRPC health, by their names.

Rule: generated code comes from the index and is imported here alone. It has no types.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

__all__ = [
    "BodyResponse",
    "CommonResponse",
    "HeadersResponse",
    "HealthCheckRequest",
    "HealthCheckResponse",
    "ImmediateResponse",
    "ProcessingRequest",
    "ProcessingResponse",
    "RateLimitRequest",
    "RateLimitResponse",
    "TrailersResponse",
]

_health: Final[Any] = import_module("grpc_health.v1.health_pb2")
_ext_proc: Final[Any] = import_module("envoy.service.ext_proc.v3.external_processor_pb2")
_ratelimit: Final[Any] = import_module("envoy.service.ratelimit.v3.rls_pb2")

HealthCheckRequest: Final[Any] = _health.HealthCheckRequest
HealthCheckResponse: Final[Any] = _health.HealthCheckResponse
RateLimitRequest: Final[Any] = _ratelimit.RateLimitRequest
RateLimitResponse: Final[Any] = _ratelimit.RateLimitResponse

BodyResponse: Final[Any] = _ext_proc.BodyResponse
CommonResponse: Final[Any] = _ext_proc.CommonResponse
HeadersResponse: Final[Any] = _ext_proc.HeadersResponse
ImmediateResponse: Final[Any] = _ext_proc.ImmediateResponse
ProcessingRequest: Final[Any] = _ext_proc.ProcessingRequest
ProcessingResponse: Final[Any] = _ext_proc.ProcessingResponse
TrailersResponse: Final[Any] = _ext_proc.TrailersResponse
