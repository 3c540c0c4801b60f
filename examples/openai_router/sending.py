"""One request and the workers that may take it: routed, tried, tried elsewhere, passed on.

Rule: until the first byte of an answer has gone to the client, whatever a worker does wrong is
made good by another one. From then on nothing can be: the stream ends with an error event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from attrs import define, frozen
from openai_router.admission import RefusedError
from openai_router.settings import Settings
from openai_router.workers import Circuits, monotonic

from meshlib import MeshRuntime, RouteDecision

EVENT_BYTES_MAX = 1024 * 1024
"""One event of a worker's stream."""


PAUSE_S = 0.1
"""How long a request waits while there is no worker, before it looks again."""


class WorkerFailedError(Exception):
    """A worker that did not do its part; another one may."""


@frozen
class Asked:
    """A request, as the workers get it.

    Args:
        path: `/v1/chat/completions` or `/v1/completions`.
        body: with what this router has added.
        tenant: whose it is.
        text: the prompt, by which it is routed.
        prompt_tokens: an estimate from above.
        wants_usage: whether the client wants to see the usage in a stream.
    """

    path: str
    body: dict[str, Any]
    tenant: str
    text: str
    prompt_tokens: int
    wants_usage: bool

    @property
    def is_stream(self) -> bool:
        """Whether the answer comes in pieces."""
        return bool(self.body.get("stream"))


@define
class Answer:
    """An answer whose first piece is there. To be closed, however it goes on.

    Args:
        worker: who gives it.
        status: of HTTP.
        first: the whole body, or the first event of a stream.
        tokens: what it has used so far, by the worker's word.
        response: what it comes from.
        request: its name among what is in flight.
    """

    mesh: MeshRuntime
    asked: Asked
    worker: str
    response: httpx2.Response
    request: str
    first: bytes = b""
    tokens: int = 0
    _events: AsyncIterator[bytes] | None = None

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return self.response.status_code

    async def read_first(self) -> None:
        """Wait for the first piece.

        Raises:
            httpx2.HTTPError, WorkerFailedError: the worker has failed, and another may be asked.
        """
        if self.status == 429 or self.status >= 500:
            raise WorkerFailedError(f"{self.worker} answered {self.status}")
        if self.status == 200 and self.asked.is_stream:
            self._events = self._read_events()
            async for event in self._events:
                self.first = event
                return
            raise WorkerFailedError(f"{self.worker} ended without an answer")
        self.first = await self.response.aread()
        if self.status == 200:
            self.tokens = _total(json.loads(self.first).get("usage"))

    async def rest(self) -> AsyncIterator[bytes]:
        """Yield the events after the first one, as the client is to see them."""
        if self._events is not None:
            async for event in self._events:
                yield event

    async def _read_events(self) -> AsyncIterator[bytes]:
        held = b""
        async for data in self.response.aiter_bytes():
            *events, held = (held + data).split(b"\n\n")
            if len(held) > EVENT_BYTES_MAX:
                raise WorkerFailedError(f"{self.worker} sent an event without an end")
            for event in events:
                if shown := self._shown(event):
                    yield shown + b"\n\n"
        if held.strip():
            raise WorkerFailedError(f"{self.worker} stopped within an event")

    def _shown(self, event: bytes) -> bytes:
        """Take note of the usage, and return the event without it unless the client wants it."""
        if not event.startswith(b"data: {") or b'"usage"' not in event:
            return event
        tree = json.loads(event[6:])
        usage = tree.get("usage")
        self.tokens = _total(usage) or self.tokens
        choices = tree.get("choices")
        if self.asked.wants_usage and not choices:
            return event
        tree.pop("usage", None)
        # What has no choices was about the usage alone.
        return b"data: " + json.dumps(tree).encode() if choices else b""

    async def close(self) -> None:
        """End the request at the worker, if it runs, and with it what the routers count."""
        if self.mesh.is_running:
            self.mesh.end(self.request)
        await self.response.aclose()


class Sender:
    """Sends requests to workers.

    Args:
        mesh: which routes, and tells the other routers what is in flight.
        client: which speaks HTTP to the workers.
        circuits: who is not to be tried.
        settings: the model.
    """

    def __init__(
        self,
        mesh: MeshRuntime,
        client: httpx2.AsyncClient,
        circuits: Circuits,
        settings: Settings,
    ) -> None:
        self._mesh, self._client = mesh, client
        self._circuits, self._settings = circuits, settings
        self.retries = 0
        """How many requests were sent to one more worker."""

    async def answer(self, asked: Asked) -> Answer:
        """Return an answer that has begun, from whichever worker gives it.

        Where none is left that could be tried, it waits for one, and begins anew.

        Raises:
            RefusedError: there was none for too long.
        """
        failed: set[str] = set()
        until = monotonic() + self._settings.no_worker_timeout_s
        while True:
            decision = self._mesh.route(
                self._settings.model,
                asked.text,
                tokens=asked.prompt_tokens,
                exclude=failed | self._circuits.excluded(now=monotonic()),
                record=False,
            )
            if decision.worker_id is None or decision.url is None:
                if monotonic() >= until:
                    raise RefusedError(503, "no_worker", "no worker can take the request now")
                await asyncio.sleep(PAUSE_S)
                failed.clear()
                continue
            self.retries += bool(failed)
            self._circuits.chosen(decision.worker_id)
            try:
                answer = await self._try(asked, decision, decision.worker_id, decision.url)
            except (httpx2.HTTPError, WorkerFailedError, ValueError):
                self._circuits.failed(decision.worker_id, now=monotonic())
                failed.add(decision.worker_id)
            except BaseException:
                self._circuits.given_up(decision.worker_id)
                raise
            else:
                self._circuits.succeeded(decision.worker_id)
                self._mesh.placed(decision)
                return answer

    async def _try(self, asked: Asked, decision: RouteDecision, worker: str, url: str) -> Answer:
        request = self._mesh.begin(decision)
        try:
            response = await self._client.send(
                self._client.build_request(
                    "POST", url + asked.path, json=asked.body, headers={"X-Tenant": asked.tenant}
                ),
                stream=True,
            )
        except BaseException:
            self._mesh.end(request)
            raise
        answer = Answer(self._mesh, asked, worker, response, request)
        try:
            await answer.read_first()
        except BaseException:
            await answer.close()
            raise
        self._mesh.first_token(request)
        return answer


def _total(usage: Any) -> int:
    """Return the tokens of a usage as workers tell it; 0 without one."""
    if type(usage) is not dict:
        return 0
    return sum(int(usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
