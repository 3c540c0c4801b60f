"""Spans for requests, by OpenTelemetry, when the program was started under it."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshlib_server.app import build_app
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.service import Service
from meshlib_server.tracing import traced

SECRETS = Secrets(operators=TokenSet(["secret-1"]), peers=TokenSet([]), peer_token=None)


def spans_of(monkeypatch: pytest.MonkeyPatch, *paths: str) -> list[Any]:
    """Ask for some paths under a provider of one's own, and return the spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)

    async def run() -> None:
        app = traced(build_app(Service(None, shut_down=lambda: None), secrets=SECRETS))
        headers = {"Authorization": "Bearer secret-1"}
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for path in paths:
                await client.get(path, headers=headers)

    anyio.run(run)
    return list(exporter.get_finished_spans())


def test_a_request_is_a_span_with_its_status_and_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """And probes and scrapes are none."""
    [span] = spans_of(monkeypatch, "/mesh/workers", "/livez", "/readyz", "/metrics")

    assert "GET" == span.name
    assert 503 in span.attributes.values()
    assert "secret-1" not in span.to_json()


def test_without_opentelemetry_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that nobody traces is the same one."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")

    async def app(*_: Any) -> None: ...

    assert app is traced(app)
