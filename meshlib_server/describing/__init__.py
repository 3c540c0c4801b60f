"""What the API is, said once: by it bodies are read, callers let in, and the document written.

operations.py  what a handler takes, answers and needs: the decorator `described`
schemas.py     JSON Schema of the records that read bodies, and of the shapes of answers
document.py    the OpenAPI document of all routes
page.py        the same for a person: one page without anything from elsewhere

Rule: a handler without a description is no endpoint; `resource` refuses it.
"""

from __future__ import annotations

from meshlib_server.describing.document import openapi_document
from meshlib_server.describing.operations import Operation, Scope, described, operation_of
from meshlib_server.describing.page import docs_page
from meshlib_server.describing.schemas import Shape, schema_of

__all__ = [
    "Operation",
    "Scope",
    "Shape",
    "described",
    "docs_page",
    "openapi_document",
    "operation_of",
    "schema_of",
]
