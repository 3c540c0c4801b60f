"""`GET /openapi.json` and `GET /mesh/docs`: what the API is, for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from meshlib_server.describing import Operation, Scope, described, docs_page, openapi_document
from meshlib_server.resources import operations_of, resource

__all__ = ["DOCS_PATH", "OPENAPI_PATH", "description_routes"]

OPENAPI_PATH: Final = "/openapi.json"
DOCS_PATH: Final = "/mesh/docs"

_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def description_routes(others: list[BaseRoute]) -> list[BaseRoute]:
    """Return the routes of this module, which describe the others and themselves.

    Args:
        others: every other route of HTTP.
    """
    written: list[dict[str, Any]] = []

    def document() -> dict[str, Any]:
        """Write the document once, when somebody asks for it."""
        if not written:
            written.append(openapi_document(_under_mesh(operations_of([*others, *own]))))
        return written[0]

    @described("This document.", scope=Scope.READ, answers={200: dict[str, Any]}, is_mesh=False)
    async def _openapi(_request: Request) -> Response:
        content = json.dumps(document(), ensure_ascii=False)
        return Response(content, media_type="application/json")

    @described(
        "This document, for a person; it holds nothing of the cluster.",
        scope=None,
        answers={200: None},
        media_type="text/html",
        is_mesh=False,
    )
    async def _docs(_request: Request) -> Response:
        return Response(docs_page(document()), media_type="text/html", headers=_PAGE_HEADERS)

    own: list[BaseRoute] = [resource(OPENAPI_PATH, get=_openapi), resource(DOCS_PATH, get=_docs)]
    return own


def _under_mesh(
    paths: Mapping[str, Mapping[str, Operation]],
) -> dict[str, Mapping[str, Operation]]:
    """Leave out what is there twice: everything under `/ha` is what it is under `/mesh`."""
    return {path: methods for path, methods in paths.items() if not path.startswith("/ha/")}
