"""Feed the decoders and the HTTP layer with what a fuzzer makes up: `make fuzz`.

    python tools/fuzz.py [--seconds 120] [--keep 64] [TARGET ...]

Each target runs in a process of its own under atheris, which mutates what is in
`tests/fuzz/corpus`, and good frames of a small cluster, by which lines are reached. A failure ends
it with the input, as libFuzzer writes it, in `crash-*`. Of what reached more than all before it a
part is put into the corpus afterwards, short inputs and long ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

INPUT_BYTES_MAX = 4096
REQUESTS = (
    b"GET /mesh/workers?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    (
        b"PUT /mesh/workers/w HTTP/1.1\r\nHost: localhost\r\nContent-Length: 61\r\n\r\n"
        b'{"model_id": "m", "url": "u", "health": true, "load": 0.5   }'
    ),
    (
        b"POST /mesh/route/m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n"
        b'{"text": "ab", "session": "s"}'
    ),
    (
        b"POST /mesh/config HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'1d\r\n{"key": "k", "value": "6869"}\r\n0\r\n\r\n'
    ),
    (
        b"POST /mesh/rate-limit/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
        b"GET /mesh/trees/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ),
    (
        b"GET /mesh/gossip HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
)


def seeds() -> dict[str, set[bytes]]:
    """Return good inputs: what travels in a small cluster, and some requests."""
    from support.flooded import Flooded, complete, corpus_of
    from support.fuzz_targets import TARGETS, parts_of, volatile_seeds

    from meshlib.aio.framing import encode_frame, encode_hello

    found: dict[str, set[bytes]] = {target: set() for target in TARGETS}
    world = Flooded(seed=1)
    first, second = list(world.nodes.values())[:2]
    corpus = complete(corpus_of(world.seen), first, second)
    for target, data in parts_of(frame for frame, _ in corpus):
        if len(data) <= INPUT_BYTES_MAX:
            found[target].add(data)
    found["volatile"] |= set(volatile_seeds())
    found["hello"] = {encode_hello("token") + encode_frame(b"frame"), encode_hello(None)}
    found["http"] = set(REQUESTS)
    return found


def fuzz_one(target: str, arguments: list[str]) -> None:
    """Run the fuzzer in this process; it ends it."""
    import atheris

    with atheris.instrument_imports(include=["meshlib", "meshlib_server"]):
        from support.fuzz_targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


def run(target: str, *, seconds: int, keep: int, good: set[bytes]) -> bool:
    """Fuzz one target for a while, keep what reached the most, and tell whether nothing failed."""
    from support.fuzz_targets import read_corpus, write_corpus

    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        inputs.mkdir()
        for number, data in enumerate(sorted(good | set(read_corpus(target)))):
            (inputs / f"{number:06}").write_bytes(data)
        command = [sys.executable, __file__, "--one", target, f"-max_len={INPUT_BYTES_MAX}"]
        quiet = ["-verbosity=1", "-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"]
        limit = [f"-max_total_time={seconds}"]
        done = subprocess.run(  # noqa: S603 - of this project
            [*command, *quiet, *limit, str(inputs)],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        wanted = ("stat::number_of_executed_units", "stat::new_units_added", "DONE", "ERROR")
        lines = [line for line in done.stderr.splitlines() if any(w in line for w in wanted)]
        sys.stdout.write(f"{target}: " + "; ".join(lines[-4:]) + "\n")
        if done.returncode:
            sys.stdout.write(done.stdout[-4000:] + done.stderr[-8000:] + "\n")
            return False
        # The fuzzer writes down each input that reached something new, under its hash.
        reached = sorted((path.read_bytes() for path in inputs.iterdir()), key=len)
        step = max(1, len(reached) // keep)
        write_corpus(target, reached[::step][:keep])
        sys.stdout.write(
            f"{target}: {len(reached)} inputs reached something new, {keep} at most are kept\n"
        )
        sys.stdout.flush()
    return True


def main() -> None:
    """Fuzz the targets that were named, or all of them; the exit code is 1 where one failed."""
    if sys.argv[1:2] == ["--one"]:
        fuzz_one(sys.argv[2], sys.argv[3:])
        return
    from support.fuzz_targets import CORPUS, TARGETS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--keep", type=int, default=64, help="inputs that are kept for each")
    arguments = parser.parse_args()
    CORPUS.mkdir(exist_ok=True)
    good = seeds()
    names = arguments.targets or list(TARGETS)
    results = [
        run(name, seconds=arguments.seconds, keep=arguments.keep, good=good[name]) for name in names
    ]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
