"""The endpoint picker: `envoy.service.ext_proc.v3.ExternalProcessor`, in full duplex.

By the endpoint picker protocol of the Gateway API Inference Extension, 1.0. Every node picks: what
one has placed and has in flight, the others know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from meshlib import MeshError, MeshRuntime
from meshlib_server.adapters.envoy.bounds import Calls
from meshlib_server.adapters.envoy.choosing import choose
from meshlib_server.adapters.envoy.counting import Counting, Question, Verdict
from meshlib_server.adapters.envoy.exchange import Answer, Exchange, Refusal
from meshlib_server.adapters.envoy.protocol import ProcessingRequest, ProcessingResponse
from meshlib_server.adapters.envoy.rules import RuleBook, counter_key
from meshlib_server.adapters.openai import Prompt, Usage
from meshlib_server.plugs import EnvoySettings, OnFailure
from meshlib_server.problems import Unavailable
from meshlib_server.service import Service

__all__ = ["Picker"]

DOMAIN: Final = "picker"
"""Of the rules that the picker asks: the one entry of its descriptor is `model`."""

HELD_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of all bodies that are read at one time; what comes beyond is routed by load."""


class Picker:
    """Answers Envoy's external processing.

    Args:
        service: the node.
        rules: what the rule file says.
        settings: what is answered when nothing can be decided.
        calls: those that are under way.
    """

    NAME: Final = "envoy.service.ext_proc.v3.ExternalProcessor"

    def __init__(
        self, service: Service, rules: RuleBook, settings: EnvoySettings, *, calls: Calls
    ) -> None:
        self.rules = rules
        self._calls = calls
        self.held_bytes = 0
        """Of the bodies that are being read."""
        self._service = service
        self._settings = settings
        self._counting = None if service.running is None else Counting(service.running)

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server is given."""
        method = grpc.stream_stream_rpc_method_handler(
            self.process,
            request_deserializer=ProcessingRequest.FromString,
            response_serializer=ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(self.NAME, {"Process": method})

    async def process(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Take one HTTP request and its response, message by message."""
        if self._calls.is_full:
            await self._calls.refuse(context)
        exchange = Exchange(self)
        try:
            with self._calls:
                async for message in requests:
                    for answer in await exchange.receive(message):
                        yield answer
        except (MeshError, Unavailable) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            exchange.close()

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes more of bodies may be held."""
        return self.held_bytes + size <= HELD_BYTES_MAX

    def note_usage(self, model_id: str, usage: Usage) -> None:
        """Count what a request has used, for the metrics."""
        self._service.sources.note_usage(
            model_id,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )

    def running(self) -> MeshRuntime | None:
        """Return the node while requests can be told to it; None once it has ended."""
        return None if self._service.is_leaving else self._service.running

    async def pick(self, prompt: Prompt | None, subset: frozenset[str] | None) -> Answer:
        """Choose for a request, or refuse it.

        Args:
            prompt: what is asked for; None for what could not be read.
            subset: the addresses that may be chosen; None: any.

        Returns:
            A choice, a refusal, or None to let the request go where Envoy sends it.

        Raises:
            MeshError, Unavailable: the node cannot choose, and Envoy is to decide.
        """
        try:
            mesh = self._ready()
            refused = await self._refused(prompt)
            if refused is not None:
                return Refusal(429, "over the limit", retry_after_s=refused.reset_after_s)
            choice = choose(mesh, prompt, subset)
        except (MeshError, Unavailable) as error:
            if self._settings.on_failure is OnFailure.DEFER:
                raise
            if self._settings.on_failure is OnFailure.OPEN:
                return None
            return Refusal(503, str(error))
        return Refusal(503, "no endpoint is eligible") if choice is None else choice

    def _ready(self) -> MeshRuntime:
        mesh = self._service.mesh
        if not mesh.is_ready:
            raise Unavailable("the node is not ready")
        return mesh

    async def _refused(self, prompt: Prompt | None) -> Verdict | None:
        """Count the request for its model, where that has a limit; say so when it is spent."""
        if prompt is None or not prompt.model or self._counting is None:
            return None
        entries = [("model", prompt.model)]
        found = self.rules.find(DOMAIN, entries)
        if found is None:
            key = counter_key(DOMAIN, entries)
            if not self._service.mesh.limits.is_set(key):
                return None
            question = Question(key=key, cost=1)
        else:
            rule, key = found
            if rule.per_unit is None:
                return None
            question = Question(
                key=key,
                cost=1,
                policy=rule.policy,
                per_unit=rule.per_unit,
                is_enforced=rule.is_enforced,
            )
        (verdict,) = await self._counting.decide([question])
        return verdict if question.is_enforced and not verdict.is_allowed else None
