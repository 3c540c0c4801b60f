"""What the picker reads in bodies: prompts that share beginnings, and what workers counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshlib_server.adapters.openai import Prompt, Usage, UsageReader, read_prompt


def text_of(**body: Any) -> str:
    """Return the text of a body."""
    prompt = read_prompt(json.dumps(body).encode())
    assert prompt is not None
    return prompt.text


@pytest.mark.parametrize(
    ("body", "model", "text"),
    [
        ({"model": "m", "prompt": "once"}, "m", "once"),
        ({"model": "m", "prompt": ["a", "b"]}, "m", "ab"),
        ({"model": "m", "prompt": [1, 22]}, "m", "1 22 "),
        ({"model": "m", "prompt": [[1], [2]]}, "m", "1 2 "),
        ({"model": "m", "input": "embed me"}, "m", "embed me"),
        ({"model": "m", "messages": [{"role": "user", "content": "hi"}]}, "m", "user\nhi\n"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
            "",
            "user\nhi\n",
        ),
        ({"model": 7}, "", ""),
        ({}, "", ""),
    ],
)
def test_a_prompt_is_read(body: dict[str, Any], model: str, text: str) -> None:
    """Chats, completions, lists of either, tokens, and what has none."""
    assert Prompt(model, text) == read_prompt(json.dumps(body).encode())


def test_a_conversation_that_goes_on_begins_with_what_was() -> None:
    """So that its worker, which has the beginning, is found for the next turn."""
    first = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    then = [*first, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "?"}]

    assert text_of(messages=then, tools=[]).startswith(text_of(messages=first))
    assert text_of(messages=then, tools=[{"a": 1}]).startswith('[{"a": 1}]')


def test_what_is_no_text_tells_two_prompts_apart() -> None:
    """Two images are two prompts, and one image is the same one each time."""
    one, other, again = (
        text_of(messages=[{"role": "user", "content": [{"type": "image_url", "url": url}]}])
        for url in ("a", "b", "a")
    )

    assert one == again
    assert one != other


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 100_000],
)
def test_what_cannot_be_read_is_no_prompt(body: bytes) -> None:
    """And raises nothing."""
    assert read_prompt(body) is None


ANSWER = (
    b'{"id":"x","choices":[{"text":"\\"usage\\""}],"usage":{"prompt_tokens":11,'
    b'"prompt_tokens_details":{"cached_tokens":8},"completion_tokens":4,"total_tokens":15}}'
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_usage_is_found_however_the_answer_is_cut(size: int) -> None:
    """Also behind an answer that is longer than what is kept of it."""
    reader = UsageReader()
    for data in (b"x" * 50_000, ANSWER):
        for at in range(0, len(data), size):
            reader.feed(data[at : at + size])

    assert Usage(11, 4) == reader.usage()


def test_the_last_usage_of_a_stream_counts() -> None:
    """Each event of a stream may have one, or null."""
    reader = UsageReader()
    reader.feed(
        b'data: {"usage":null}\n\ndata: {"usage":{"prompt_tokens":3,"completion_tokens":1}}'
    )
    reader.feed(
        b'\n\ndata: {"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
    )

    assert Usage(3, 2) == reader.usage()


def test_an_answer_without_usage_has_none() -> None:
    """An error page, or nothing at all."""
    reader = UsageReader()
    assert reader.usage() is None
    reader.feed(b'{"usage":{"other":1}}')

    assert reader.usage() is None
