"""The real proxy of LiteLLM in four processes, with and without the limits of a cluster.

It takes minutes to start on a small machine and is asked for by name: `MESHLIB_LITELLM` is the
`litellm` command of an environment that has `litellm[proxy]` and this package with its extra.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
from support.servers import TOKEN, Launcher, Node, eventually

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "litellm" / "run.py"
LIMIT_OF_EXAMPLE, PARALLEL_OF_EXAMPLE = 20, 4
PROXIES = 4
LIMIT = 6
START_S = 180.0
CONFIG = """
model_list:
  - model_name: chat
    litellm_params: {model: openai/chat, api_key: none, mock_response: hello}
general_settings:
  master_key: sk-master-key-of-this-test
  custom_auth: hook.authenticate
"""
HOOK = f"""
import os

from litellm.proxy._types import UserAPIKeyAuth
from meshlib_server.adapters.litellm import make_handler


async def authenticate(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, rpm_limit={LIMIT}, tpm_limit=100000)


if "MESH_ADDRESS" in os.environ:
    handler = make_handler(is_open=False)
"""

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
def litellm() -> str:
    """Return the command, or skip."""
    command = os.environ.get("MESHLIB_LITELLM")
    if command is None:
        pytest.skip("MESHLIB_LITELLM names no litellm command")
    return command


@contextlib.contextmanager
def proxies(litellm: str, folder: Path, ports: list[int], node: Node | None) -> Iterator[None]:
    """Run the proxies inside the block, with the hook where there is a node."""
    folder.mkdir()
    callbacks = "" if node is None else "litellm_settings: {callbacks: hook.handler}\n"
    (folder / "config.yaml").write_text(CONFIG + callbacks)
    (folder / "hook.py").write_text(HOOK)
    inherited = {key: text for key, text in os.environ.items() if key[:5] != "MESH_"}
    environment = {**inherited, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    if node is not None:
        environment |= {"MESH_ADDRESS": f"http://{node.address}", "MESH_TOKEN": TOKEN}
    started: dict[int, subprocess.Popen[bytes]] = {}

    def is_live(port: int) -> bool:
        assert started[port].poll() is None, (folder / f"{port}.log").read_text()
        return _is_live(port)

    try:
        for port in ports:
            where = ["--host", "127.0.0.1", "--port", str(port)]
            with (folder / f"{port}.log").open("wb") as log:
                started[port] = subprocess.Popen(
                    [litellm, "--config", "config.yaml", *where],
                    cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
        for port in ports:
            eventually(partial(is_live, port), f"{port} is live", deadline_s=START_S)
        yield
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.wait(30)


def _is_live(port: int) -> bool:
    url = f"http://127.0.0.1:{port}/health/liveliness"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def statuses(ports: list[int], count: int) -> list[int]:
    """Make calls at each proxy in turn; return the statuses."""
    found = []
    with httpx2.Client(trust_env=False, timeout=60.0, verify=False) as client:
        for number in range(count):
            port = ports[number % len(ports)]
            answer = client.post(
                f"http://127.0.0.1:{port}/v1/chat/completions",
                headers={"Authorization": "Bearer sk-one"},
                json={"model": "chat", "messages": [{"role": "user", "content": "hi"}]},
            )
            found.append(answer.status_code)
    return found


def test_a_key_has_its_limit_once_and_not_once_for_each_process(
    litellm: str, own_launcher: Launcher, tmp_path: Path
) -> None:
    """Without the hook each process admits the limit; with it all of them together do."""
    node = own_launcher.node("beside")
    node.start()
    eventually(node.is_ready, "it is ready")
    ports = own_launcher.free_ports(PROXIES)
    offered = PROXIES * LIMIT

    with proxies(litellm, tmp_path / "alone", ports, None):
        alone = statuses(ports, offered)
    with proxies(litellm, tmp_path / "together", ports, node):
        together = statuses(ports, offered)
        windows = 2  # a minute may have ended meanwhile

    assert alone.count(200) == offered
    assert set(together) == {200, 429}
    assert LIMIT <= together.count(200) <= LIMIT * windows


@pytest.mark.parametrize("flag", ["", "--alone"])
def test_the_example_starts_by_one_command(litellm: str, flag: str) -> None:
    """Two replicas of two workers: with the node one limit for all, alone one for each process."""
    found = subprocess.run(
        [sys.executable, str(EXAMPLE), *flag.split()],
        env={**os.environ, "LITELLM": litellm},
        capture_output=True, text=True, check=False, timeout=550,
    )  # fmt: skip

    assert 0 == found.returncode, found.stdout + found.stderr
    counts = [int(count) for count in re.findall(r"(\d+) passed", found.stdout)]
    print(found.stdout)
    if flag:
        assert counts[0] > LIMIT_OF_EXAMPLE
        assert counts[1] > PARALLEL_OF_EXAMPLE
    else:
        assert [LIMIT_OF_EXAMPLE, PARALLEL_OF_EXAMPLE] == counts
