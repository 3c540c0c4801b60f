"""One node and two replicas of the LiteLLM proxy of two workers each, and calls at all of them.

    python examples/litellm/run.py          # show what is admitted, and end
    python examples/litellm/run.py --stay   # leave them running
    python examples/litellm/run.py --alone  # the same limits without the node: LiteLLM's own

Needs `pip install 'meshlib-crdt[server,litellm]' 'litellm[proxy]'`; `LITELLM` names another
`litellm` command. The proxies take a minute to start on a small machine. What is shown is checked:
the command fails where it is not so.
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
from collections.abc import Iterator
from pathlib import Path

import httpx2

HERE = Path(__file__).resolve().parent
REPLICAS, WORKERS = 2, 2
REQUESTS, PARALLEL = 20, 4  # a minute, and at once: of the two keys in keys.py
CALLS, SLOW_CALLS = 200, 60
START_S = 240.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[None]:
    """Run a command inside the block; it is told to end, and waited for."""
    with log.open("wb") as out:
        started = subprocess.Popen(  # noqa: S603 - what the example is about
            command, cwd=HERE, env={**os.environ, **environment},
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        started.terminate()
        started.wait(60)


def wait_for(url: str, log: Path) -> None:
    """Return once it is answered with 200."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def cluster(*, with_node: bool) -> Iterator[list[str]]:
    """Run all of it inside the block; yield the addresses of the proxies."""
    litellm = os.environ.get("LITELLM") or shutil.which(
        "litellm", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if litellm is None:
        raise SystemExit("there is no litellm: pip install 'litellm[proxy]'")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        told = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        config = "alone.yaml"
        if with_node:
            node, log = f"127.0.0.1:{free_port()}", folder / "node.log"
            serve = ["-m", "meshlib_server", "serve", "--insecure", "--listen", node]
            stack.enter_context(process([sys.executable, *serve], log))
            wait_for(f"http://{node}/readyz", log)
            print(f"a node at http://{node}, its dashboard at /mesh/ui")
            told["MESH_ADDRESS"], config = f"http://{node}", "config.yaml"
        urls = []
        for number in range(REPLICAS):
            port, log = free_port(), folder / f"proxy-{number}.log"
            where = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", str(WORKERS)]
            # A worker that imports for longer than that is started anew, again and again.
            where += ["--timeout_worker_healthcheck", "120"]
            command = [litellm, "--config", config, *where]
            stack.enter_context(process(command, log, **told))
            urls.append(f"http://127.0.0.1:{port}")
        for number, url in enumerate(urls):
            wait_for(f"{url}/health/liveliness", folder / f"proxy-{number}.log")
            print(f"a replica of {WORKERS} workers at {url}")
        yield urls


async def call(urls: list[str], count: int, *, model: str) -> Counter[int]:
    """Make calls at all replicas at once, each on a connection of its own; count the statuses."""

    async def one(number: int) -> int:
        # A new connection may be any worker's.
        async with httpx2.AsyncClient(trust_env=False, timeout=60.0) as client:
            answer = await client.post(
                f"{urls[number % len(urls)]}/v1/chat/completions",
                headers={"Authorization": f"Bearer sk-{model}"},
                json={"model": model, "messages": [{"role": "user", "content": f"hi {number}"}]},
            )
            return int(answer.status_code)

    return Counter(await asyncio.gather(*(one(number) for number in range(count))))


def main() -> None:
    """Start everything, show it, and end it or leave it running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process is left behind
    with cluster(with_node="--alone" not in sys.argv) as urls:
        if "--stay" in sys.argv:
            print("models chat and slow, with the keys sk-chat and sk-slow; Ctrl-C ends all of it")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(1)
            return
        processes = REPLICAS * WORKERS
        if time.time() % 60 > 30:
            time.sleep(61 - time.time() % 60)  # all in one minute
        found = asyncio.run(call(urls, CALLS, model="chat"))
        print(f"{CALLS} calls of a key with {REQUESTS} a minute: {found[200]} passed")
        at_once = asyncio.run(call(urls, SLOW_CALLS, model="slow"))
        print(f"{SLOW_CALLS} calls of a key with {PARALLEL} at once: {at_once[200]} passed")
        if "--alone" in sys.argv:
            print(f"each of {processes} processes counts for itself")
            assert found[200] > REQUESTS, found
            assert at_once[200] > PARALLEL, at_once
            return
        assert found == {200: REQUESTS, 429: CALLS - REQUESTS}, found
        assert at_once == {200: PARALLEL, 429: SLOW_CALLS - PARALLEL}, at_once


if __name__ == "__main__":
    main()
