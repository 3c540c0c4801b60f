"""`/config`: the application's own keys, whose values are bytes, in hex on the wire."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib.errors import UnknownKeyError
from meshlib.limits import CHANGES_MAX
from meshlib_server.bodies import (
    PAGE_QUERY,
    check_changes,
    naming,
    page_of,
    path_key,
    read_record,
)
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.problems import BadRequest
from meshlib_server.resources import resource
from meshlib_server.service import node_of
from meshlib_server.structure import AtMost

__all__ = ["routes"]

_HEX = re.compile(r"[0-9A-Fa-f]*", re.ASCII)


@frozen(kw_only=True)
class _ConfigBody:
    """What `POST` takes: a key, and its value in hex of even length."""

    key: str
    value: str


@frozen(kw_only=True)
class _ChangesBody:
    """What `PATCH` takes: keys to write, and keys to remove."""

    put: Annotated[tuple[_ConfigBody, ...], AtMost(CHANGES_MAX)] = ()
    delete: Annotated[tuple[str, ...], AtMost(CHANGES_MAX)] = ()


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
    is_write=True,
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
    "Write and remove several keys: all of them, or none.",
    scope=Scope.OPERATE,
    is_write=True,
    body=_ChangesBody,
    answers={200: Shape({"status": Literal["updated"], "put": int, "deleted": int})},
    errors=(404,),
)
async def _patch(request: Request) -> Response:
    body = await read_record(request, _ChangesBody)
    sync = node_of(request).sync
    check_changes([each.key for each in body.put], body.delete)
    values: dict[str, bytes] = {}
    for index, each in enumerate(body.put):
        with naming(f"put[{index}]"):
            values[each.key] = _from_hex(each.value)
            sync.check_config(each.key, values[each.key])
    for key in body.delete:
        if sync.get_config(key) is None:
            raise UnknownKeyError("configuration", key)
    for key, value in values.items():
        sync.set_config(key, value)
    for key in body.delete:
        sync.delete_config(key)
    return JSONResponse({"status": "updated", "put": len(values), "deleted": len(body.delete)})


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
    is_write=True,
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
        resource(f"{prefix}/config", get=_keys, post=_post, patch=_patch),
        resource(f"{prefix}/config/{{key:path}}", get=_get, delete=_delete),
    ]
