"""What the picker reads in OpenAI bodies: the model, the prompt, and the tokens of an answer.

Rule: nothing here raises on what somebody sent, and nothing of a body is kept or logged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from attrs import define, frozen

__all__ = ["BODY_BYTES_MAX", "Prompt", "Usage", "UsageReader", "read_prompt"]

BODY_BYTES_MAX: Final = 1024 * 1024
"""A request's body that is read; a larger one is routed by load. Reading holds the event loop."""

TAIL_BYTES: Final = 8192
"""What is kept of an answer: its usage stands at the end of it, in a stream and in one piece."""

_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}')
_COUNT: Final = re.compile(rb'"(prompt|completion)_tokens"\s*:\s*(\d{1,12})\b')


@frozen
class Prompt:
    """What a request asks for.

    Args:
        model: the model's name; empty when the body does not say.
        text: the prompt as it is compared with others: what comes first in it comes first here.
    """

    model: str
    text: str


@frozen
class Usage:
    """The tokens of one request, as its worker counted them."""

    prompt_tokens: int
    completion_tokens: int


def read_prompt(body: bytes) -> Prompt | None:
    """Read the body of `/v1/chat/completions`, `/v1/completions` or their like. O(size).

    The tools come before the messages, as in the templates of models. Two bodies that share the
    beginning of their conversation share the beginning of their text.

    Args:
        body: JSON, whole.

    Returns:
        None for what cannot be read.
    """
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if type(tree) is not dict:
        return None
    model = tree.get("model")
    try:
        text = "".join(_parts(tree))
        text.encode()  # a lone surrogate is no text that could be shared
    except (ValueError, RecursionError):
        return None
    return Prompt(model if type(model) is str else "", text)


def _parts(tree: dict[str, Any]) -> Iterator[str]:
    tools = tree.get("tools")
    if type(tools) is list and tools:
        yield json.dumps(tools, ensure_ascii=False, sort_keys=True) + "\n"
    messages = tree.get("messages")
    if type(messages) is list:
        for message in messages:
            if type(message) is dict:
                yield f"{message.get('role')}\n"
                yield from _content(message.get("content"))
                calls = message.get("tool_calls")
                if calls:
                    yield json.dumps(calls, ensure_ascii=False, sort_keys=True)
                yield "\n"
        return
    prompt = tree.get("prompt", tree.get("input"))
    yield from _content(prompt)


def _content(content: Any) -> Iterator[str]:
    """Yield the text of a content: text, a list of parts, of texts, or of token ids."""
    if type(content) is str:
        yield content
    elif type(content) is list:
        for part in content:
            if type(part) is str:
                yield part
            elif type(part) is int:
                yield f"{part} "
            elif type(part) is list:
                yield from _content(part)
            elif type(part) is dict and type(part.get("text")) is str:
                yield part["text"]
            else:  # an image, say: the same one makes the same text
                yield json.dumps(part, ensure_ascii=False, sort_keys=True)


@define
class UsageReader:
    """Finds the usage in an answer that passes by in pieces, without keeping it."""

    _tail: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece. O(size of the piece)."""
        self._tail = (self._tail + data)[-TAIL_BYTES:]

    def usage(self) -> Usage | None:
        """Return the last usage of what has passed; None when there was none."""
        found = None
        for match in _USAGE.finditer(self._tail):
            counts = {name: int(count) for name, count in _COUNT.findall(match[1])}
            if counts:
                found = Usage(counts.get(b"prompt", 0), counts.get(b"completion", 0))
        return found
