"""One HTTP request and its response, as Envoy tells of them, and what it is answered.

The order is Envoy's. In full duplex the headers of the request are answered only once the body
that they need is in, then each part of the body as it came. Where Envoy itself keeps the body, the
headers go on at once and the choice is made when the body comes; if this process dies meanwhile,
Envoy still has the whole request. The response passes in the same way, unbuffered.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from attrs import define, frozen

from meshlib import LocalError, MeshRuntime
from meshlib_server.adapters.envoy.choosing import Choice, redecide
from meshlib_server.adapters.envoy.protocol import (
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    ImmediateResponse,
    ProcessingResponse,
    TrailersResponse,
)
from meshlib_server.adapters.openai import (
    BODY_BYTES_MAX,
    Prompt,
    Usage,
    UsageReader,
    read_prompt,
)

__all__ = ["Answer", "Exchange", "Picking", "Refusal"]

ENDPOINT: Final = "x-gateway-destination-endpoint"
"""The header, and the metadata, that say where a request goes."""

SERVED: Final = "x-gateway-destination-endpoint-served"
"""The metadata that says who has served it."""

SUBSET: Final = "x-gateway-destination-endpoint-subset"
NAMESPACE: Final = "envoy.lb"
SUBSET_NAMESPACE: Final = "envoy.lb.subset_hint"

RENEW_S: Final = 200.0
"""How often a response that goes on is told of: a request counts for 600 s without a word."""

_OVERWRITE: Final = 2
_FULL_DUPLEX: Final = 4
"""The body mode in which parts are answered as they come."""

_BUFFERED: Final = (2, 3)
"""The body modes in which Envoy keeps the body, all of it or as far as its buffer goes."""


@frozen
class Refusal:
    """An answer that is given in place of a worker's.

    Args:
        status: of HTTP.
        reason: one line.
        retry_after_s: after how long another try makes sense; 0: not told.
    """

    status: int
    reason: str
    retry_after_s: float = 0.0


Answer = Choice | Refusal | None


class Picking(Protocol):
    """What an exchange needs of the picker."""

    held_bytes: int

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes more may be held."""
        ...

    def note_usage(self, model_id: str, usage: Usage) -> None:
        """Count what a request has used."""
        ...

    def running(self) -> MeshRuntime | None:
        """Return the node while requests can be told to it."""
        ...

    async def pick(self, prompt: Prompt | None, subset: frozenset[str] | None) -> Answer:
        """Choose for a request, or refuse it."""
        ...


@define
class Exchange:
    """One request.

    Args:
        picking: who chooses.
    """

    _picking: Picking
    _parts: list[bytes] | None = None
    """The body so far, while the headers wait for it."""
    _size: int = 0
    _subset: frozenset[str] | None = None
    _is_answered: bool = False
    _body_mode: int = _FULL_DUPLEX
    _is_response_full_duplex: bool = True
    _choice: Choice | None = None
    _request_id: str | None = None
    _has_begun: bool = False
    _renew_at: float = math.inf
    _usage: UsageReader | None = None

    async def receive(self, message: Any) -> list[Any]:
        """Take the next message; return what is answered to it, in order.

        Raises:
            MeshError, Unavailable: nothing can be chosen, and Envoy is to decide.
        """
        kind = message.WhichOneof("request")
        if message.HasField("protocol_config"):
            self._body_mode = message.protocol_config.request_body_mode
            mode = message.protocol_config.response_body_mode
            self._is_response_full_duplex = mode == _FULL_DUPLEX
        if kind == "request_headers":
            self._subset = _subset(message)
            if message.request_headers.end_of_stream or not self._waits_for_body:
                return await self._answer(None)
            self._parts = []
            if self._body_mode == _FULL_DUPLEX:
                return []
            return [ProcessingResponse(request_headers=HeadersResponse(response=_unnamed()))]
        if kind == "request_body":
            return await self._on_body(message.request_body)
        if kind == "request_trailers":
            # Where Envoy keeps the body this is a request without one, and its headers have gone.
            is_due = not self._is_answered and self._is_full_duplex
            answers = await self._answer(self._read()) if is_due else []
            return [*answers, ProcessingResponse(request_trailers=TrailersResponse())]
        if kind == "response_headers":
            return self._on_response(message)
        if kind == "response_body":
            return self._on_response_body(message.response_body)
        if kind == "response_trailers":
            self._end()
            return [ProcessingResponse(response_trailers=TrailersResponse())]
        return []

    def close(self) -> None:
        """Take note that Envoy says no more: the request is over, however it ended."""
        self._release()
        self._end()

    # The request

    @property
    def _is_full_duplex(self) -> bool:
        return self._body_mode == _FULL_DUPLEX

    @property
    def _waits_for_body(self) -> bool:
        return self._is_full_duplex or self._body_mode in _BUFFERED

    async def _on_body(self, part: Any) -> list[Any]:
        if self._is_answered or self._parts is None:
            mode = self._is_full_duplex
            return [ProcessingResponse(request_body=_passed(part.body, part.end_of_stream, mode))]
        self._parts.append(part.body)
        self._size += len(part.body)
        self._picking.held_bytes += len(part.body)
        is_too_much = self._size > BODY_BYTES_MAX or not self._picking.has_room(0)
        if self._is_full_duplex and not part.end_of_stream and not is_too_much:
            return []
        prompt = None if is_too_much else self._read()
        parts, is_last = self._parts, part.end_of_stream
        answers = await self._answer(prompt)
        if not self._is_full_duplex or answers[0].HasField("immediate_response"):
            return answers
        for at, body in enumerate(parts):
            is_end = is_last and at == len(parts) - 1
            answers.append(ProcessingResponse(request_body=_passed(body, is_end, True)))
        return answers

    def _read(self) -> Prompt | None:
        return read_prompt(b"".join(self._parts or ()))

    def _release(self) -> None:
        if self._parts is not None:
            self._picking.held_bytes -= self._size
            self._parts = None

    async def _answer(self, prompt: Prompt | None) -> list[Any]:
        """Answer the headers, or the body that Envoy has kept with them."""
        is_for_body = self._parts is not None and not self._is_full_duplex
        picked = await self._picking.pick(prompt, self._subset)
        self._release()
        self._is_answered = True
        if isinstance(picked, Refusal):
            return [_refused(picked)]
        value = ""
        if picked is None:
            common = _unnamed()
        else:
            self._begin(picked)
            value = ",".join(picked.endpoints)
            common = CommonResponse(clear_route_cache=True)
            header = common.header_mutation.set_headers.add(append_action=_OVERWRITE)
            header.header.key, header.header.raw_value = ENDPOINT, value.encode()
        if is_for_body:
            answer = ProcessingResponse(request_body=BodyResponse(response=common))
        else:
            answer = ProcessingResponse(request_headers=HeadersResponse(response=common))
        if value:
            answer.dynamic_metadata.update({NAMESPACE: {ENDPOINT: value}})
        return [answer]

    # The response

    def _on_response(self, message: Any) -> list[Any]:
        headers = message.response_headers
        status = _header(headers, ":status")
        served = _metadata(message, NAMESPACE, SERVED)
        self._on_served(served if isinstance(served, str) else "", is_well=status[:1] == "2")
        if headers.end_of_stream:
            self._end()
        return [ProcessingResponse(response_headers=HeadersResponse())]

    def _on_served(self, endpoint: str, *, is_well: bool) -> None:
        """Take note of who has the request, which may be another one than was meant."""
        choice, mesh = self._choice, self._picking.running()
        if choice is None or mesh is None:
            return
        if endpoint and endpoint != choice.endpoints[0]:
            self._end()
            choice = redecide(mesh, choice, endpoint)
            if choice is not None:
                self._begin(choice)
        if is_well and choice is not None and choice.decision is not None:
            mesh.placed(choice.decision)

    def _on_response_body(self, part: Any) -> list[Any]:
        mesh = self._picking.running()
        if self._request_id is not None and mesh is not None:
            with contextlib.suppress(LocalError):  # it counts no more: its worker was cleared
                if not self._has_begun:
                    self._has_begun = True
                    mesh.first_token(self._request_id)
                if time.monotonic() >= self._renew_at:
                    self._renew_at = time.monotonic() + RENEW_S
                    mesh.renew_request(self._request_id)
        if self._usage is None:
            self._usage = UsageReader()
        self._usage.feed(part.body)
        if part.end_of_stream:
            self._end()
        passed = _passed(part.body, part.end_of_stream, self._is_response_full_duplex)
        return [ProcessingResponse(response_body=passed)]

    # What is told of it

    def _begin(self, choice: Choice) -> None:
        self._choice = choice
        mesh = self._picking.running()
        if mesh is not None:
            self._has_begun = False
            self._request_id = mesh.begin(choice.decision or choice.worker_id)
            self._renew_at = time.monotonic() + RENEW_S

    def _end(self) -> None:
        usage = None if self._usage is None else self._usage.usage()
        self._usage = None
        if usage is not None:
            decision = None if self._choice is None else self._choice.decision
            self._picking.note_usage("" if decision is None else decision.model_id, usage)
        request_id, self._request_id = self._request_id, None
        mesh = self._picking.running()
        if request_id is not None and mesh is not None:
            with contextlib.suppress(LocalError):  # it counts no more: its worker was cleared
                mesh.end(request_id)


def _unnamed() -> Any:
    """Return what takes an endpoint away that the caller has named: callers do not choose."""
    common = CommonResponse()
    common.header_mutation.remove_headers.append(ENDPOINT)
    return common


def _passed(body: bytes, is_end: bool, is_full_duplex: bool) -> Any:
    """Return what lets a part of a body through as it came."""
    answer = BodyResponse()
    if is_full_duplex:
        streamed = answer.response.body_mutation.streamed_response
        streamed.body, streamed.end_of_stream = body, is_end
    return answer


def _refused(refusal: Refusal) -> Any:
    answer = ImmediateResponse(details=refusal.reason)
    answer.status.code = refusal.status
    answer.body = b'{"error": {"message": "%s", "type": "%s"}}' % (
        refusal.reason.replace("\\", " ").replace('"', "'").encode(),
        b"rate_limit_error" if refusal.status == 429 else b"unavailable",
    )
    given: Mapping[str, str] = {"content-type": "application/json"}
    if refusal.retry_after_s:
        given = {**given, "retry-after": str(math.ceil(refusal.retry_after_s))}
    for key, value in given.items():
        header = answer.headers.set_headers.add(append_action=_OVERWRITE)
        header.header.key, header.header.raw_value = key, value.encode()
    return ProcessingResponse(immediate_response=answer)


def _header(headers: Any, name: str) -> str:
    for header in headers.headers.headers:
        if header.key == name:
            text: str = header.value or header.raw_value.decode("latin-1")
            return text
    return ""


def _metadata(message: Any, namespace: str, name: str) -> Any:
    """Return an entry of the metadata that came with a message; None without."""
    found = message.metadata_context.filter_metadata
    if namespace not in found or name not in found[namespace].fields:
        return None
    value = found[namespace].fields[name]
    if value.HasField("list_value"):
        return [item.string_value for item in value.list_value.values]
    return value.string_value


def _subset(message: Any) -> frozenset[str] | None:
    found = _metadata(message, SUBSET_NAMESPACE, SUBSET)
    if found is None:
        return None
    if isinstance(found, str):
        found = found.split(",")
    return frozenset(one.strip() for one in found if one.strip())
