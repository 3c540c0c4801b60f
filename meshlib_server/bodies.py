"""What comes in with a request: its body and the key in its path, both read strictly.

Rule: no byte of a request reaches a store before it has passed through this file.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

from starlette.requests import Request

from meshlib.errors import LocalError
from meshlib.limits import JSON_BODY_BYTES_MAX
from meshlib_server.problems import BadRequest, Code, ContentTooLarge, Unavailable
from meshlib_server.service import node_of
from meshlib_server.structure import StructureError, structure

__all__ = [
    "PAGE_QUERY",
    "check_changes",
    "naming",
    "page_limit",
    "page_of",
    "path_key",
    "read_record",
]

Record = TypeVar("Record")
Item = TypeVar("Item")

_DIGITS_MAX: Final = 5

_KEY_CHARACTERS_MAX_IN_MESSAGE = 100


async def read_record(request: Request, kind: type[Record]) -> Record:
    """Read the body as JSON, strictly, into an attrs record.

    Args:
        request: the request.
        kind: the record's class.

    Raises:
        ContentTooLarge: over `limits.JSON_BODY_BYTES_MAX`, declared or counted.
        BadRequest: not UTF-8, not JSON, a key twice, NaN or infinity, or not such a record.
        Unavailable: the mesh is not enabled, or the server ended meanwhile. Whoever goes on
            asks for the node again: it may have begun to leave while the body came.
    """
    node_of(request)
    body = await _read_limited(request)
    try:
        tree = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    try:
        return structure(tree, kind)
    except StructureError as error:
        raise BadRequest(str(error)) from None


async def _read_limited(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > JSON_BODY_BYTES_MAX:
        raise ContentTooLarge(_too_large())
    chunks: list[bytes] = []
    size = 0
    receive, more = request.receive, True
    try:
        while more:  # as `Request.stream`, which is a generator for each request
            message = await receive()
            if message["type"] != "http.request":
                raise BadRequest("the body ended early")
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(chunk)
            if size > JSON_BODY_BYTES_MAX:
                raise ContentTooLarge(_too_large())
            chunks.append(chunk)
    except asyncio.CancelledError:  # only the server's end does it, and it waits for the answer
        raise Unavailable("the server ended before the body did", code=Code.LEAVING) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large() -> str:
    return f"the body is over the limit of {JSON_BODY_BYTES_MAX:,} bytes"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("an object has a key twice")
    return tree


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)


PAGE_QUERY: Final = {
    "limit": "How many at most, 1 to 10,000; all of them when it is not given.",
    "after": "Only those that come after this one in the order of the list.",
}
"""The query of a list that may be long; to be given to `described`."""

_PAGE_ITEMS_MAX: Final = 10_000


def page_of(request: Request, items: Sequence[Item], *, key: Callable[[Item], str]) -> list[Item]:
    """Return the part of a sorted list that was asked for. O(page + log n).

    Who asks for the next page names the last item of this one: what is written or removed
    meanwhile moves no other item.

    Args:
        request: with the parameters of `PAGE_QUERY`, each optional.
        items: all of them, sorted by `key`.
        key: returns what an item is named by.

    Raises:
        BadRequest: a limit that is none.
    """
    given = request.query_params
    begins_at = bisect.bisect_right(items, given["after"], key=key) if "after" in given else 0
    if "limit" not in given:
        return list(items[begins_at:])
    count = page_limit(request, default=_PAGE_ITEMS_MAX)
    return list(items[begins_at : begins_at + count])


def page_limit(request: Request, *, default: int) -> int:
    """Return how many items were asked for.

    Args:
        request: with or without a `limit`.
        default: how many are meant without one.

    Raises:
        BadRequest: a limit that is none.
    """
    text = request.query_params.get("limit", str(default))
    count = int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX else 0
    if not 1 <= count <= _PAGE_ITEMS_MAX:
        raise BadRequest(f"limit: expected 1 to {_PAGE_ITEMS_MAX:,}")
    return count


def check_changes(put: Sequence[str], delete: Sequence[str]) -> None:
    """Refuse a list of changes in which something is changed twice. O(n).

    Raises:
        BadRequest: what is there twice is named by where it stands.
    """
    seen: set[str] = set()
    for name, keys in (("put", put), ("delete", delete)):
        for index, key in enumerate(keys):
            if key in seen:
                raise BadRequest(f"{name}[{index}]: it is changed twice")
            seen.add(key)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Say of what is wrong inside the block where in the body it stands."""
    try:
        yield
    except (LocalError, BadRequest) as error:
        raise BadRequest(f"{where}: {error}") from None


def path_key(request: Request, name: str) -> str:
    """Return a key or an id from the path, with its percent-encoding undone.

    Paths are matched as they were sent (see `app.EncodedPaths`), so an encoded slash belongs
    to the key and never to the route.

    Raises:
        BadRequest: empty, or not UTF-8.
    """
    encoded: str = request.path_params[name]
    try:
        key = urllib.parse.unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        shown = encoded[:_KEY_CHARACTERS_MAX_IN_MESSAGE]
        raise BadRequest(f"the {name} {shown!r} is not percent-encoded UTF-8") from None
    if not key:
        raise BadRequest(f"the {name} must not be empty")
    return key
