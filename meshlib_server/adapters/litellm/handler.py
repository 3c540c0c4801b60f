"""What the LiteLLM proxy is given: a custom logger, and with it a routing strategy.

Rule: LiteLLM is imported when a handler is made, and nowhere else.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from typing import Any, Final

from meshlib_server.adapters.litellm.metering import Metering, OverLimit
from meshlib_server.adapters.litellm.routing import DeploymentRouting
from meshlib_server.adapters.litellm.terms import ANY_CALLERS, CallerTerms, ModelTerms, terms_of
from meshlib_server.adapters.openai import read_prompt
from meshlib_server.client import AsyncMeshClient, ClientError

__all__ = ["make_handler"]

CHARACTERS_PER_TOKEN: Final = 4

_OF_EACH_CLASS: Final = frozenset({"__dict__", "__weakref__"})


class _Hooks:
    """The hooks, which are put into a class of LiteLLM's kind when a handler is made."""

    metering: Metering
    routing: DeploymentRouting | None
    models: Mapping[str, ModelTerms]
    callers: CallerTerms = ANY_CALLERS
    output_tokens: int
    _router: Any = None

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        """Count a call before it is made; 429 when one of its limits has no room."""
        if self.routing is not None:
            self._take_over_routing()
        model = str(data.get("model", ""))
        terms = terms_of(user_api_key_dict, model, self.models, callers=self.callers)
        wanted = data.get("max_completion_tokens") or data.get("max_tokens") or self.output_tokens
        estimate = len(_text(data)) // CHARACTERS_PER_TOKEN + int(wanted)
        exceptions: Any = import_module("fastapi")
        try:
            await self.metering.begin(
                str(data.get("litellm_call_id", "")), terms, estimate=estimate
            )
        except OverLimit as over:
            raise exceptions.HTTPException(
                status_code=429,
                detail={"error": str(over)},
                headers={"retry-after": str(math.ceil(over.retry_after_s))},
            ) from None
        except ClientError as error:
            detail = {"error": f"no limit can be asked: {error}"}
            raise exceptions.HTTPException(status_code=503, detail=detail) from None

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Settle a call that has ended, a stream with its last part."""
        call_id = str(kwargs.get("litellm_call_id", ""))
        await self.metering.end(call_id, tokens=_tokens_of(response_obj))
        if self.routing is not None:
            await self.routing.end(call_id)

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Take note that an attempt has failed; there may be another one."""
        if self.routing is not None:
            await self.routing.end(str(kwargs.get("litellm_call_id", "")))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Settle a call that has failed for good: it has used nothing."""
        await self.metering.end(str(request_data.get("litellm_call_id", "")), tokens=0)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Pass a stream through; at its end, also when the caller goes, it runs no more.

        LiteLLM tells of the success of a stream that was read to its end, and of no other: what
        one that breaks off had reserved stays at its estimate.
        """
        try:
            async for part in response:
                yield part
        finally:
            call_id = str(request_data.get("litellm_call_id", ""))
            await self.metering.stop(call_id)
            if self.routing is not None:
                await self.routing.end(call_id)

    # Routing

    def _take_over_routing(self) -> None:
        """Put the strategy into the proxy's router, which is there once it serves."""
        router = import_module("litellm.proxy.proxy_server").llm_router
        if router is not None and router is not self._router:
            self._router = router
            router.set_custom_routing_strategy(self)

    async def async_get_available_deployment(
        self,
        model: str,
        messages: list[dict[str, str]] | None = None,
        input: str | list[Any] | None = None,  # noqa: A002 - LiteLLM's name
        specific_deployment: bool | None = False,
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Choose the deployment of a call."""
        deployments = self._deployments(model)
        if self.routing is None or len(deployments) < 2:
            return deployments[0]
        text = _text({"messages": messages, "input": input})
        call_id = str((request_kwargs or {}).get("litellm_call_id", ""))
        return await self.routing.choose(model, text, deployments, call_id=call_id)

    def get_available_deployment(
        self,
        model: str,
        messages: list[dict[str, str]] | None = None,
        input: str | list[Any] | None = None,  # noqa: A002 - LiteLLM's name
        specific_deployment: bool | None = False,
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Choose without asking: whoever blocks is not the proxy."""
        assert self.routing is not None
        return self.routing.rng.choice(self._deployments(model))

    def _deployments(self, model: str) -> list[dict[str, Any]]:
        found = [one for one in self._router.model_list if one["model_name"] == model]
        if not found:
            exceptions: Any = import_module("litellm")
            raise exceptions.BadRequestError(f"no deployment of {model}", model, "")
        return found


def _text(data: Mapping[str, Any]) -> str:
    parts = {name: data[name] for name in ("tools", "messages", "prompt", "input") if name in data}
    prompt = read_prompt(json.dumps(parts, default=str).encode())
    return "" if prompt is None else prompt.text


def _tokens_of(response: Any) -> int:
    usage = response.get("usage") if hasattr(response, "get") else None
    total = getattr(usage, "total_tokens", None)
    if total is None and isinstance(usage, Mapping):
        total = usage.get("total_tokens")
    return int(total or 0)


def make_handler(
    *,
    address: str | None = None,
    token: str | None = None,
    models: Mapping[str, ModelTerms] | None = None,
    callers: CallerTerms = ANY_CALLERS,
    output_tokens: int = 256,
    is_open: bool = True,
    has_routing: bool = False,
    timeout_s: float = 2.0,
    call_s: float = 600.0,
) -> Any:
    """Make what `litellm_settings: callbacks` names.

    Args:
        address: of a node; None: the variable `MESH_ADDRESS`, or port 8000 here.
        token: of that node; None: the variable `MESH_TOKEN`, or none.
        models: what models admit over all callers, by name.
        callers: what each user and each team may have at once.
        output_tokens: what an answer is taken for that says no `max_tokens`.
        is_open: whether calls pass while the node cannot be asked; else they are answered 503.
        has_routing: whether deployments are chosen by prefix and load.
        timeout_s: how long the node is waited for.
        call_s: how long a call takes at most; one whose end is never told counts as parallel so
            long.

    Raises:
        ImportError: LiteLLM is not installed.
    """
    base: Any = import_module("litellm.integrations.custom_logger").CustomLogger
    client = AsyncMeshClient(
        address or os.environ.get("MESH_ADDRESS", "http://127.0.0.1:8000"),
        token=token or os.environ.get("MESH_TOKEN"),
        timeout_s=timeout_s,
    )
    # LiteLLM calls a hook only where it stands in the class itself, and not in one beneath it.
    hooks = {name: hook for name, hook in vars(_Hooks).items() if name not in _OF_EACH_CLASS}
    made: Any = type("MeshHandler", (base,), hooks)()
    made.metering = Metering(client, is_open=is_open, call_s=call_s)
    made.routing = DeploymentRouting(client) if has_routing else None
    made.models = dict(models or {})
    made.callers = callers
    made.output_tokens = output_tokens
    return made
