"""Hooks of mkdocs: the built site must be whole in itself.

Rule: nothing that a page of the site needs is fetched from elsewhere. Who reads it inside a
closed network, or from the disk, sees what everybody sees.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel\s*=\s*["']?(?:stylesheet|preload|icon|preconnect))"""
    r"""[^>]*\bhref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)""",
    re.IGNORECASE,
)
_FETCHED_BY_STYLE = re.compile(r"""(?:url\(|@import\s)\s*["']?((?:https?:)?//[^"')\s]+)""")


def fetched_from_elsewhere(site: Path) -> list[str]:
    """Return what the pages and styles of a built site would fetch from other hosts. O(site)."""
    found = []
    for pattern, expression in (("*.html", _FETCHED), ("*.css", _FETCHED_BY_STYLE)):
        for path in sorted(site.rglob(pattern)):
            for match in expression.finditer(path.read_text(encoding="utf-8")):
                address = next(group for group in match.groups() if group)
                found.append(f"{path.relative_to(site)}: {address}")
    return found


def on_post_build(config: Any, **_: Any) -> None:
    """Fail the build when the site needs anything that is not in it."""
    from mkdocs.exceptions import PluginError

    found = fetched_from_elsewhere(Path(config["site_dir"]))
    if found:
        raise PluginError("the site would fetch from elsewhere:\n" + "\n".join(found))
