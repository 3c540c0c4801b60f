"""`/config`: the application's own keys, whose values are bytes, in hex on the wire."""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib.errors import UnknownKeyError
from meshlib_server.bodies import PAGE_QUERY, page_of, path_key, read_record
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.problems import BadRequest
from meshlib_server.resources import resource
from meshlib_server.service import node_of

__all__ = ["routes"]

_HEX = re.compile(r"[0-9A-Fa-f]*", re.ASCII)


@frozen(kw_only=True)
class _ConfigBody:
    """What `POST` takes: a key, and its value in hex of even length."""

    key: str
    value: str


def _from_hex(text: str) -> bytes:
    if not _HEX.fullmatch(text):  # `bytes.fromhex` would skip white space
        raise BadRequest("value: invalid hex encoding")
    if len(text) % 2:
        raise BadRequest("value: invalid hex encoding: the length is odd")
    return bytes.fromhex(text)


@described(
    "The keys, sorted, or a page of them.",
    scope=Scope.READ,
    answers={200: Shape({"keys": [str]})},
    query=PAGE_QUERY,
)
async def _keys(request: Request) -> Response:
    keys = node_of(request).sync.config_keys()
    return JSONResponse({"keys": page_of(request, keys, key=str)})


@described(
    "Write a key; its value is bytes, in hex.",
    scope=Scope.OPERATE,
    body=_ConfigBody,
    answers={200: Shape({"status": Literal["updated"], "key": str})},
)
async def _post(request: Request) -> Response:
    body = await read_record(request, _ConfigBody)
    node = node_of(request)
    if not body.key:
        raise BadRequest("key: must not be empty")
    node.sync.set_config(body.key, _from_hex(body.value))
    return JSONResponse({"status": "updated", "key": body.key})


@described(
    "A key's value.",
    scope=Scope.READ,
    answers={200: Shape({"key": str, "value": str, "format": Literal["hex"]})},
    errors=(404,),
)
async def _get(request: Request) -> Response:
    key = path_key(request, "key")
    value = node_of(request).sync.get_config(key)
    if value is None:
        raise UnknownKeyError("configuration", key)
    return JSONResponse({"key": key, "value": value.hex(), "format": "hex"})


@described(
    "Remove a key.",
    scope=Scope.OPERATE,
    answers={200: Shape({"status": Literal["deleted"], "key": str})},
    errors=(404,),
)
async def _delete(request: Request) -> Response:
    key = path_key(request, "key")
    node_of(request).sync.delete_config(key)
    return JSONResponse({"status": "deleted", "key": key})


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [
        resource(f"{prefix}/config", get=_keys, post=_post),
        resource(f"{prefix}/config/{{key:path}}", get=_get, delete=_delete),
    ]
