"""The OpenAPI document of all routes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from meshlib import __version__
from meshlib_server.describing.operations import JSON, Operation, Scope
from meshlib_server.describing.schemas import Shape
from meshlib_server.describing.schemas import schema_of as schema
from meshlib_server.problems import Code

__all__ = ["openapi_document"]

_ERRORS: Final[Mapping[int, str]] = {
    400: "The request is wrong in itself. Nothing was changed.",
    401: "No token, or a wrong one.",
    403: "The token does not open this, or a foreign page asks.",
    404: "It is not there.",
    408: "The body did not come in time.",
    409: "The member is neither Down nor Leaving.",
    413: "The body is over 1 MiB.",
    429: "This address asks more, or sends more, than it may.",
    500: "What is stored cannot be read, or a defect of the server.",
    503: "Not ready, not enabled, leaving, or nobody to choose; `code` says which.",
}
_OK: Final[Mapping[int, str]] = {
    200: "As asked.",
    202: "Begun.",
    429: "Refused: the limit is used up; or this address asks more than it may.",
}

_ERROR: Final = {"$ref": "#/components/schemas/Error"}

_DESCRIPTION: Final = """\
What `meshlib-server` answers. Every path under `/mesh` is also served under `/ha`. Bodies are read
strictly: an unknown or repeated key, or a number in a text's place, is an error. Keys in a path are
percent-encoded, slashes included."""


def openapi_document(paths: Mapping[str, Mapping[str, Operation]]) -> dict[str, Any]:
    """Return the document, as OpenAPI 3.1 has it. O(operations).

    Args:
        paths: path template to lower-case method to what it is.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "meshlib-server",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            path: {
                **_parameters_of(path),
                **{name: _operation(path, name, each) for name, each in methods.items()},
            }
            for path, methods in paths.items()
        },
        "components": {
            "schemas": {"Error": Shape({"error": str, "code": Code}).schema()},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Scopes: "
                    + "; ".join(f"`{scope}`" for scope in Scope if scope is not Scope.PEER)
                    + ". Each opens what those before it open.",
                }
            },
        },
        "security": [{"token": []}],
    }


def _parameters_of(path: str) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", path)
    if not names:
        return {}
    return {
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
            for name in names
        ]
    }


def _operation(path: str, method: str, operation: Operation) -> dict[str, Any]:
    words = re.findall(r"\w+", path.removeprefix("/mesh"))
    described: dict[str, Any] = {
        "operationId": "_".join([method, *words]),
        "summary": operation.summary,
        "tags": [words[0] if words else "root"],
        "responses": _responses(operation),
    }
    if operation.scope is None:
        described["security"] = []
    else:
        described["x-scope"] = str(operation.scope)
    if operation.query:
        described["parameters"] = [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
            for name, text in operation.query.items()
        ]
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema(operation.body)}},
        }
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in operation.answers.items():
        content = {} if kind is None else {"schema": schema(kind)}
        if status == 429:
            content = {"schema": {"anyOf": [content["schema"], _ERROR]}}
        responses[str(status)] = {
            "description": _OK[status],
            "content": {operation.media_type: content},
        }
        if status == 429:
            responses[str(status)]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    statuses = {400, *operation.errors}
    if operation.scope is not None:
        statuses |= {401, 403}
    if operation.is_capped and 429 not in operation.answers:
        statuses.add(429)
    if operation.body is not None:
        statuses |= {408, 413}
    if operation.is_mesh:
        statuses |= {500, 503}
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": _ERRORS[status],
            "content": {JSON: {"schema": _ERROR}},
        }
    return responses
