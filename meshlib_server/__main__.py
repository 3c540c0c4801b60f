"""The program `meshlib-server`, also as `python -m meshlib_server`.

Rule: nothing but the standard library is imported here before it is known that the extra with the
rest is installed, so that whoever lacks it is told so, whatever was asked for.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["EXIT_NOT_INSTALLED", "main"]

EXIT_NOT_INSTALLED = 3
"""As for everything that keeps the server from starting."""

EXTRA_MODULES = (
    "cattrs",
    "click",
    "httptools",
    "prometheus_client",
    "starlette",
    "structlog",
    "uvicorn",
    "websockets",
    "yaml",
)
"""What the extra `server` brings, by the names that are imported."""


def main() -> None:
    """Run the command that the arguments name, or say which extra is missing."""
    missing = [name for name in EXTRA_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        sys.stderr.write(
            f"meshlib-server: {names} not installed; the server needs the extra `server`: "
            "pip install 'meshlib-crdt[server]'\n"
        )
        sys.exit(EXIT_NOT_INSTALLED)
    from meshlib_server.commands.cli import main as run

    run()


if __name__ == "__main__":
    main()
