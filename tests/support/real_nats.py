"""Real servers of NATS as processes on the loopback, which tests stop, kill, freeze and restart."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["RealNats", "free_port", "nats_binary", "real_nats"]

DEADLINE_S = 20.0


def nats_binary() -> str:
    """Return the path of nats-server, which the extra `test` installs: no test goes without."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    assert found is not None, "there is no nats-server: install the extra `test`"
    return found


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RealNats:
    """One server, on a port that it keeps over its restarts.

    Args:
        folder: where its log, its port and its configuration are put.
        config: lines of its configuration; none for the defaults.
    """

    def __init__(self, folder: Path, *, config: Sequence[str] = ()) -> None:
        self._folder = folder
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return once it takes connections."""
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "nats.conf"
        config.write_text("\n".join(self._config))
        for left in self._folder.glob("*.ports"):
            left.unlink()
        command = [nats_binary(), "-a", "127.0.0.1", "-p", str(self.port), "-c", str(config)]
        command += ["--ports_file_dir", str(self._folder)]
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        ends_at = time.monotonic() + DEADLINE_S
        while not self._is_listening():
            assert self._process.poll() is None, (self._folder / "nats.log").read_text()
            assert time.monotonic() < ends_at, "the server of NATS is not ready"
            time.sleep(0.01)

    def _is_listening(self) -> bool:
        for path in self._folder.glob("*.ports"):
            with contextlib.suppress(ValueError, KeyError, IndexError):  # not written whole yet
                url = json.loads(path.read_text())["nats"][0]
                self.port = int(url.rpartition(":")[2])
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", self.port), timeout=1),
                ):
                    return True
        return False

    def kill(self) -> None:
        """End it at once. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """Stop it, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what it has logged."""
        return (self._folder / "nats.log").read_text()


@contextlib.contextmanager
def real_nats(folder: Path, *, config: Sequence[str] = ()) -> Iterator[RealNats]:
    """Run a server inside the block."""
    server = RealNats(folder, config=config)
    server.start()
    try:
        yield server
    finally:
        server.kill()
