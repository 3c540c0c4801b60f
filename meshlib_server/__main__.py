"""`python -m meshlib_server` is the same program as `meshlib-server`."""

from __future__ import annotations

from meshlib_server.commands.cli import main

if __name__ == "__main__":
    main()
