"""Messages of external processing, as an Envoy sends them, and what is answered, readable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc.aio

from meshlib_server.adapters.envoy.protocol import ProcessingRequest, ProcessingResponse

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
ENDPOINT = "x-gateway-destination-endpoint"
BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX = 2, 3, 4


def asked(
    *, subset: Sequence[str] | None = None, has_body: bool = True, body_mode: int = FULL_DUPLEX
) -> Any:
    """Return the headers of a request."""
    message = ProcessingRequest()
    message.request_headers.headers.headers.add(key=":path", raw_value=b"/v1/completions")
    message.request_headers.end_of_stream = not has_body
    message.protocol_config.request_body_mode = body_mode
    message.protocol_config.response_body_mode = FULL_DUPLEX
    if subset is not None:
        hint = message.metadata_context.filter_metadata["envoy.lb.subset_hint"]
        hint.update({"x-gateway-destination-endpoint-subset": list(subset)})
    return message


def body(data: bytes, *, is_end: bool = True) -> Any:
    """Return a part of a request's body."""
    message = ProcessingRequest()
    message.request_body.body, message.request_body.end_of_stream = data, is_end
    return message


def prompt(text: str, *, model: str = "m") -> Any:
    """Return the whole body of a completion."""
    return body(json.dumps({"model": model, "prompt": text}).encode())


def answered(status: str = "200", *, served: str = "", is_end: bool = False) -> Any:
    """Return the headers of a response."""
    message = ProcessingRequest()
    message.response_headers.headers.headers.add(key=":status", raw_value=status.encode())
    message.response_headers.end_of_stream = is_end
    if served:
        metadata = message.metadata_context.filter_metadata["envoy.lb"]
        metadata.update({"x-gateway-destination-endpoint-served": served})
    return message


def answer_body(data: bytes, *, is_end: bool = True) -> Any:
    """Return a part of a response's body."""
    message = ProcessingRequest()
    message.response_body.body, message.response_body.end_of_stream = data, is_end
    return message


class Call:
    """One HTTP request that is told of, as its stream is.

    Args:
        channel: the connection.
    """

    def __init__(self, channel: Any) -> None:
        self.stream = channel.stream_stream(
            METHOD,
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )()

    async def tell(self, *messages: Any, answers: int) -> list[Any]:
        """Send messages, and return so many answers."""
        for message in messages:
            await self.stream.write(message)
        found = []
        for _ in range(answers):
            answer = await self.stream.read()
            assert answer is not grpc.aio.EOF
            found.append(answer)
        return found

    async def pick(self, text: str, *, subset: Sequence[str] | None = None) -> list[str]:
        """Ask for a prompt; return the endpoints, in order."""
        headers, _ = await self.tell(asked(subset=subset), prompt(text), answers=2)
        return endpoints(headers)

    async def end(self) -> None:
        """Say no more, as an Envoy does once the response is through."""
        await self.stream.done_writing()
        assert await self.stream.read() is grpc.aio.EOF


def endpoints(answer: Any) -> list[str]:
    """Return what an answer to headers or to a kept body picks: in header and metadata the same."""
    response = getattr(answer, answer.WhichOneof("response")).response
    (option,) = response.header_mutation.set_headers
    value = option.header.raw_value.decode()
    assert option.header.key == ENDPOINT
    assert answer.dynamic_metadata["envoy.lb"][ENDPOINT] == value
    assert response.clear_route_cache
    return list(value.split(","))
