"""The document for a person: one page of HTML, without a script and without anything fetched."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["docs_page"]

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --quiet: #595959; }
@media (prefers-color-scheme: dark) { :root { --quiet: #b5b5b5; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; }
summary { cursor: pointer; padding: .5rem .75rem; overflow-wrap: anywhere; }
details > div { padding: 0 .75rem .75rem; }
code, pre { font: .9em/1.4 ui-monospace, monospace; }
pre { overflow: auto; padding: .5rem; border: 1px solid var(--line); max-height: 24rem; }
.method { display: inline-block; min-width: 4.5em; font-weight: 700; }
.quiet { color: var(--quiet); }
table { border-collapse: collapse; } td { padding: .1rem .75rem .1rem 0; vertical-align: top; }
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the page. O(operations).

    Args:
        document: as `openapi_document` makes it.
    """
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{_text(info['title'])}: API</title><style>{_STYLE}</style>",
        f"<h1>{_text(info['title'])} {_text(info['version'])}</h1>",
        f"<p>{_text(info['description'])}</p>",
        "<p>The same for programs: <a href=/openapi.json>/openapi.json</a>, with a token.</p>",
    ]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                parts += _operation(path, method, operation)
    return "\n".join(parts) + "\n</html>\n"


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details id='{_text(operation['operationId'])}'><summary>"
    yield f"<span class=method>{method.upper()}</span> <code>{_text(path)}</code><br>"
    yield f"<span class=quiet>{_text(operation['summary'])}</span></summary><div>"
    scope = operation.get("x-scope")
    yield (
        f"<p>A token of the scope <code>{_text(scope)}</code>.</p>"
        if scope
        else ("<p>Without a token.</p>")
    )
    for parameter in operation.get("parameters", ()):
        name, text = _text(parameter["name"]), _text(parameter["description"])
        yield f"<p><code>?{name}=</code> {text}</p>"
    if "requestBody" in operation:
        [content] = operation["requestBody"]["content"].values()
        yield f"<h3>Body</h3>{_schema(content['schema'])}"
    yield "<h3>Answers</h3><table>"
    for status, response in operation["responses"].items():
        yield f"<tr><td>{status}<td>{_text(response['description'])}"
    yield "</table>"
    for status, response in operation["responses"].items():
        [content] = response["content"].values()
        if "schema" in content and "$ref" not in content["schema"]:
            yield f"<p>{status}:</p>{_schema(content['schema'])}"
    yield "</div></details>"


def _schema(schema: Mapping[str, Any]) -> str:
    return f"<pre tabindex=0>{_text(json.dumps(schema, indent=2))}</pre>"


def _text(text: str) -> str:
    return html.escape(str(text))
