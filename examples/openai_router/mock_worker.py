"""A worker that answers as vLLM does, and computes nothing.

    python examples/openai_router/mock_worker.py 9001

It has a cache of prefixes, needs time for what is not in it and for each token that it generates,
and counts the tokens of each tenant. It generates three quarters of `max_tokens`, or all of them
with `ignore_eos`; with `token_s` at that speed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

BLOCK = 64
"""Characters of a block of the cache."""

BLOCKS_MAX = 20_000
SPANS_MAX = 100_000
PREFILL_TOKENS_PER_S = 10_000.0
WORDS = ("so", "it", "goes", "round", "and", "round")


def text_of(body: dict[str, Any]) -> str:
    """Return the prompt of a request."""
    if "messages" in body:
        return "".join(f"{each['role']}\n{each['content']}\n" for each in body["messages"])
    return str(body["prompt"])


class Worker:
    """One worker.

    Args:
        token_s: seconds for each token that is generated.
    """

    def __init__(self, token_s: float) -> None:
        self.token_s = token_s
        self.tokens: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.spans: deque[tuple[float, float, str]] = deque(maxlen=SPANS_MAX)
        self.cache: OrderedDict[int, None] = OrderedDict()

    def cached(self, text: str) -> int:
        """Return how many characters of a prompt are in the cache, and put all of it there."""
        ends = range(BLOCK, len(text) + 1, BLOCK)
        found = 0
        for end in ends:
            if hash(text[:end]) not in self.cache:
                break
            found = end
        for end in ends:
            self.cache[hash(text[:end])] = None
            self.cache.move_to_end(hash(text[:end]))
        while len(self.cache) > BLOCKS_MAX:
            self.cache.popitem(last=False)
        return found

    async def answer(self, body: dict[str, Any], tenant: str) -> AsyncIterator[dict[str, Any]]:
        """Yield what is generated, with the usage until then, and count it."""
        text = text_of(body)
        found = self.cached(text)
        prompt = -(-len(text) // 4)
        most = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        count = most if body.get("ignore_eos") else max(1, most * 3 // 4)
        usage = {"prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt}
        usage["prompt_tokens_details"] = {"cached_tokens": found // 4}  # type: ignore[assignment]
        token_s = float(body.get("token_s", self.token_s))
        self.running[tenant] += 1
        began = time.monotonic()
        try:
            await asyncio.sleep((len(text) - found) / 4 / PREFILL_TOKENS_PER_S)
            self.requests[tenant] += 1
            self.tokens[tenant] += prompt
            for number in range(count):
                await asyncio.sleep(token_s)
                self.tokens[tenant] += 1
                usage["completion_tokens"] += 1
                usage["total_tokens"] += 1
                yield {"text": WORDS[number % len(WORDS)] + " ", "usage": dict(usage)}
        finally:
            self.running[tenant] -= 1
            self.spans.append((began, time.monotonic(), tenant))


def piece(
    body: dict[str, Any], text: str, *, is_stream: bool, finish: str | None
) -> dict[str, Any]:
    """Return one answer, or a piece of one, without its usage."""
    is_chat = "messages" in body
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if is_chat:
        choice["delta" if is_stream else "message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    kind = "chat.completion" if is_chat else "text_completion"
    return {
        "id": "mock-1",
        "object": kind + (".chunk" if is_chat and is_stream else ""),
        "created": int(time.time()),
        "model": body["model"],
        "choices": [choice],
    }


async def stream(worker: Worker, body: dict[str, Any], tenant: str) -> AsyncIterator[bytes]:
    """Yield the events of a stream."""
    options = body.get("stream_options") or {}
    usage = None
    async for part in worker.answer(body, tenant):
        usage = part["usage"]
        event = piece(body, part["text"], is_stream=True, finish=None)
        if options.get("continuous_usage_stats"):
            event["usage"] = usage
        yield b"data: " + json.dumps(event).encode() + b"\n\n"
    event = piece(body, "", is_stream=True, finish="stop")
    yield b"data: " + json.dumps(event).encode() + b"\n\n"
    if options.get("include_usage"):
        yield b"data: " + json.dumps({**event, "choices": [], "usage": usage}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def make_app(worker: Worker) -> Starlette:
    """Return the application of a worker."""

    async def complete(request: Request) -> Response:
        body = await request.json()
        tenant = request.headers.get("x-tenant", "")
        if body.get("stream"):
            return StreamingResponse(stream(worker, body, tenant), media_type="text/event-stream")
        words, usage = "", None
        async for part in worker.answer(body, tenant):
            words, usage = words + part["text"], part["usage"]
        answer = piece(body, words, is_stream=False, finish="stop")
        return JSONResponse({**answer, "usage": usage})

    async def gone(_request: Request, _error: Exception) -> Response:
        """Answer nobody: a router was killed while it sent a request."""
        return Response(status_code=400)

    async def health(_request: Request) -> Response:
        return Response()

    async def counts(_request: Request) -> Response:
        return JSONResponse(
            {
                "tokens": worker.tokens,
                "requests": worker.requests,
                "running": worker.running,
                "spans": list(worker.spans),
            }
        )

    return Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/completions", complete, methods=["POST"]),
            Route("/health", health),
            Route("/counts", counts),
        ],
        exception_handlers={ClientDisconnect: gone},
    )


def main() -> None:
    """Serve until a signal."""
    token_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.01
    app = make_app(Worker(token_s))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
