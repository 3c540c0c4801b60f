"""Traces of prompts in the format of Mooncake: one JSON object a line.

    {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}

Time stamps are in milliseconds; a hash stands for a block of 512 tokens and all that is before it.
Source: Qin and others, "Mooncake: A KVCache-centric Disaggregated Architecture for LLM Serving",
2024, and the traces that were published with it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from attrs import frozen

from meshlib.errors import ConfigError
from meshlib.hashing import hash64

__all__ = ["BLOCK_TOKENS", "TraceRequest", "read_trace", "spread_arrivals", "text_of"]


BLOCK_TOKENS: Final = 512
"""Tokens of one block."""

BLOCK_CHARACTERS: Final = 128
"""Characters that stand for one block: fewer than there would be, so that a run takes minutes."""


@frozen(slots=True, kw_only=True)
class TraceRequest:
    """One request of a trace.

    Args:
        at_s: when it arrives, in seconds from the first.
        input_tokens: of its prompt.
        output_tokens: of the answer.
        blocks: a number for each block of the prompt; equal numbers are equal prefixes.
    """

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]


def read_trace(path: Path, *, count_max: int | None = None) -> tuple[TraceRequest, ...]:
    """Read a trace, in the order of its time stamps. O(n log n).

    Args:
        path: of a file in Mooncake's format; compressed when it ends in `.gz`.
        count_max: read no more lines than that.

    Raises:
        ConfigError: the file cannot be read, is empty, or a line is no request; names the line.
    """
    requests: list[TraceRequest] = []
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, 1):
                if count_max is not None and len(requests) >= count_max:
                    break
                if line.strip():
                    requests.append(_read_line(line, f"{path}, line {number}"))
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not requests:
        raise ConfigError(f"{path}: there is no request in it")
    requests.sort(key=lambda request: request.at_s)
    return tuple(requests)


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _read_line(line: str, where: str) -> TraceRequest:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: expected a JSON object")
    at_ms = _number(fields, "timestamp", where)
    input_tokens = _number(fields, "input_length", where)
    output_tokens = _number(fields, "output_length", where)
    blocks = fields.get("hash_ids")
    if not isinstance(blocks, list) or any(type(one) is not int or one < 0 for one in blocks):
        raise ConfigError(f"{where}: hash_ids must be a list of numbers of 0 or more")
    return TraceRequest(
        at_s=at_ms / 1000.0,
        input_tokens=max(1, int(input_tokens)),
        output_tokens=int(output_tokens),
        blocks=tuple(blocks),
    )


def _number(fields: dict[str, Any], name: str, where: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        raise ConfigError(f"{where}: {name} must be a number of 0 or more")
    return value


def spread_arrivals(
    requests: Sequence[TraceRequest], *, rate: float = 1.0
) -> Iterator[tuple[float, TraceRequest]]:
    """Yield requests with the seconds at which they arrive: those of one time stamp spread evenly.

    Published traces round their time stamps, by three seconds for example, and what looks like a
    burst is none. Those of the last time stamp are spread over the gap before it.

    Args:
        requests: in order of time.
        rate: how many times as fast as in the trace.
    """
    start = 0
    gap_s = 1.0
    while start < len(requests):
        at_s = requests[start].at_s
        end = start
        while end < len(requests) and requests[end].at_s == at_s:
            end += 1
        if end < len(requests):
            gap_s = requests[end].at_s - at_s
        for index in range(start, end):
            offset_s = gap_s * (index - start) / (end - start)
            yield (at_s - requests[0].at_s + offset_s) / rate, requests[index]
        start = end


def text_of(blocks: Iterable[int]) -> str:
    """Return a text that stands for a prompt: prompts share as much as their blocks do. O(n)."""
    return "".join(
        (f"{hash64(block.to_bytes(8, 'big')):016x}" * (BLOCK_CHARACTERS // 16)) for block in blocks
    )
