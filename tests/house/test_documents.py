"""Every code block of the documents runs, outside the clone, or what it names exists.

Rule: no block is left out. Its language says what is done with it, and a block of a language
that is not listed here fails. `text` is output and drawings: nothing in it could run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from attrs import frozen

from meshlib.testing.__main__ import request_of
from meshlib_server.adapters.envoy import load_rules
from meshlib_server.commands.cli import main
from meshlib_server.commands.demo import make_nodes
from meshlib_server.config import load_settings

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {"python", "bash", "json", "yaml", "console", "text"}
DEADLINE_S = 20.0
SLOW = {"ballot_spec.py"}
"""Titles of programs that take seconds: that one tries every law and every mutant."""
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
)
FENCE = re.compile(r"^\s*(```+|~~~+)(.*)$")


@frozen
class Block:
    """One fenced code block.

    Args:
        page: the file that it is in.
        line: of its opening fence, from 1.
        language: the first word after the fence; empty without one.
        title: the file that the block is, or empty.
        code: what stands inside.
    """

    page: Path
    line: int
    language: str
    title: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return every fenced block of a page, in order; one that does not end goes to the end."""
    blocks: list[Block] = []
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, inside = (number, fence[1], fence[2].strip()), []
        elif opened is not None and fence and fence[1].startswith(opened[1]) and not fence[2]:
            blocks.append(_block(page, opened, inside))
            opened = None
        else:
            inside.append(line)
    return blocks if opened is None else [*blocks, _block(page, opened, inside)]


def _block(page: Path, opened: tuple[int, str, str], inside: list[str]) -> Block:
    line, _, info = opened
    language, _, rest = info.partition(" ")
    title = re.fullmatch(r'title="([\w.-]+)"', rest.strip())
    if rest and not title:
        language = info  # whatever else is said of a block, nobody here knows what it means
    return Block(page, line, language, title[1] if title else "", "\n".join(inside) + "\n")


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def written_in(language: str) -> pytest.MarkDecorator:
    """Give a test each block of a language."""
    chosen = [
        pytest.param(block, marks=[pytest.mark.slow] if block.title in SLOW else [])
        for block in BLOCKS
        if block.language == language
    ]
    return pytest.mark.parametrize("block", chosen, ids=str)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_of_a_language_that_is_checked(block: Block) -> None:
    """Each of these has a test below; `text` alone has nothing to run."""
    assert block.language in LANGUAGES


# Python


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PYTHONPATH with the two packages and what they need, and not the clone."""
    packages = tmp_path_factory.mktemp("packages")
    for name in ("meshlib", "meshlib_server"):
        (packages / name).symlink_to(ROOT / name, target_is_directory=True)
    paths = sysconfig.get_paths()
    return os.pathsep.join(dict.fromkeys((str(packages), paths["purelib"], paths["platlib"])))


@written_in("python")
def test_a_python_block_runs(block: Block, installed: str, tmp_path: Path) -> None:
    """Each is a whole program that checks its own outcome; titled ones may be imported."""
    for other in blocks_of(block.page):
        if other.title:
            (tmp_path / other.title).write_text(other.code)
    program = tmp_path / (block.title or "block.py")
    program.write_text(block.code)
    result = subprocess.run(
        # Without `site` the clone, to which an editable installation leads, cannot be found.
        [sys.executable, "-S", "-W", "error", str(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": installed},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_the_clone_is_out_of_reach_of_a_block(installed: str, tmp_path: Path) -> None:
    """What only a clone has cannot be imported where the blocks run."""
    result = subprocess.run(
        [sys.executable, "-S", "-c", "import meshlib_server, examples.custom_crdt"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": installed},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "No module named 'examples'" in result.stderr


# Bash, and the answers


@contextlib.contextmanager
def nodes_for(blocks: list[Block], folder: Path) -> Iterator[tuple[dict[int, int], str]]:
    """Run the nodes of a page: as the page says, or one; yield ports by printed port, a token."""
    starts = [b for b in blocks if b.language == "console" and " serve " in b.code]
    if not starts:
        node = make_nodes(folder, 1)[0]
        node.start()
        try:
            yield {8000: node.port}, node.token
        finally:
            node.stop()
        return
    ports = {8000: free_port(), 8001: free_port()}
    commands = "\n".join(line[2:] for line in starts[0].code.splitlines() if line[:2] == "$ ")
    script = "set -e\n" + with_ports(commands, ports) + "\necho $TOKEN\nwait\n"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            text=True,
        )
    try:
        assert process.stdout is not None
        yield ports, process.stdout.readline().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def with_ports(code: str, ports: dict[int, int]) -> str:
    """Put the ports that are free here in place of those that are printed."""
    for printed, port in ports.items():
        code = re.sub(rf"\b(?:localhost|127\.0\.0\.1):{printed}\b", f"127.0.0.1:{port}", code)
    return code


def run_bash(code: str, folder: Path, token: str) -> subprocess.CompletedProcess[str]:
    """Run a block of curl commands, each of which must be answered with 2xx."""
    quiet = code.replace("curl ", "curl --silent --show-error --fail-with-body ")
    return subprocess.run(
        ["bash", "-e", "-c", quiet],
        cwd=folder,
        env={**os.environ, "TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answers_of(output: str) -> list[Any]:
    """Return the JSON documents that stand one behind the other."""
    decoder, found, text = json.JSONDecoder(), [], output.strip()
    while text:
        answer, end = decoder.raw_decode(text)
        found.append(answer)
        text = text[end:].lstrip()
    return found


REQUEST_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]+")


def shape(value: Any) -> Any:
    """Return a value with its numbers made kinds: counts and limits move while one looks.

    So are the names of requests, which no two starts of a node share.
    """
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, str) and REQUEST_NAME.fullmatch(value):
        return REQUEST_NAME
    return type(value) if type(value) in (int, float) else value


@pytest.mark.parametrize(
    "page", dict.fromkeys(b.page for b in BLOCKS if b.language == "bash"), ids=lambda p: p.name
)
def test_the_bash_blocks_of_a_page_are_answered_as_it_says(page: Path, tmp_path: Path) -> None:
    """In their order, against nodes started for the page; a `json` block is the answer before."""
    page_blocks = blocks_of(page)
    with nodes_for(page_blocks, tmp_path) as (ports, token):
        for place, block in enumerate(page_blocks):
            if block.language != "bash":
                continue
            code = with_ports(block.code, ports)
            # What is read may still be on its way, or the node may still be starting.
            is_first = all(b.language != "bash" for b in page_blocks[:place])
            is_patient = is_first or not re.search(r" -(?:X|d)\b", code)
            result = run_bash(code, tmp_path, token)
            ends_at = time.monotonic() + DEADLINE_S
            while result.returncode and is_patient and time.monotonic() < ends_at:
                time.sleep(0.05)
                result = run_bash(code, tmp_path, token)
            assert (result.returncode, result.stderr) == (0, ""), f"{block}: {result.stdout}"
            answers = answers_of(result.stdout)
            assert answers, block
            following = page_blocks[place + 1] if place + 1 < len(page_blocks) else None
            if following is not None and following.language == "json":
                expected = json.loads(with_ports(following.code, ports))
                assert [shape(expected)] == shape(answers), following


@written_in("json")
def test_a_json_block_is_an_answer(block: Block) -> None:
    """It stands behind the call that it answers, and so is compared with it."""
    before = [other for other in blocks_of(block.page) if other.line < block.line]

    assert before
    assert before[-1].language == "bash"


# YAML


@written_in("yaml")
def test_a_yaml_block_is_read_by_the_loader_of_settings(block: Block, tmp_path: Path) -> None:
    """Every key is one that the service knows, and every value one that it takes.

    A block that is a rule file is read by the loader of those.
    """
    path = tmp_path / "mesh.yaml"
    path.write_text(block.code)
    if block.title == "rules.yaml":
        assert load_rules(str(path)).domains
        return
    settings = load_settings(str(path), environment={}, flags={})

    assert settings.mesh.self_name


# Console


def commands_of(code: str) -> list[str]:
    """Return the commands of a console block, and those that its output says to run."""
    lines = code.replace("\\\n", " ").splitlines()
    typed = [line[2:] for line in lines if line.startswith("$ ")]
    return typed + [line.split(": ", 1)[1] for line in lines if line.startswith("replay: ")]


def check_command(command: str) -> None:
    """Raise when a command, or one of its options, does not exist."""
    subprocess.run(["bash", "-n", "-c", command], check=True, timeout=10)
    words = shlex.split(command, comments=True)
    if words[-1] == "&":
        words.pop()
    match words:
        case ["make", target, *assignments]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert all("=" in word for word in assignments)
        case ["pip", "install", *flags, requirement]:
            assert set(flags) <= {"-e"}
            check_requirement(requirement)
        case ["export", *_]:
            pass  # `bash -n` has read it, and the nodes of the page are started by it
        case ["meshlib-server", *arguments]:
            subcommand = main.commands.get(arguments[0])
            assert subcommand is not None
            subcommand.make_context(arguments[0], arguments[1:]).close()
        case ["python", "-m", "meshlib.testing", *arguments]:
            request_of(arguments)
        case ["python", script, *_]:
            assert (ROOT / script).is_file()
        case ["envoy", "-c", config]:
            assert (ROOT / config).is_file()
        case _:
            pytest.fail(f"nobody here knows the command: {command}")


def check_requirement(requirement: str) -> None:
    """Raise when there is no such package of ours, or no such extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = re.fullmatch(r"([\w.-]+)(?:\[([\w,]+)\])?", requirement)
    assert found is not None
    assert found[1] in (project["name"], ".")
    assert set((found[2] or "").split(",")) - {""} <= set(project["optional-dependencies"])


@written_in("console")
def test_a_console_block_names_what_exists(block: Block) -> None:
    """Each command of it, with its options."""
    commands = commands_of(block.code)

    assert commands
    for command in commands:
        check_command(command)


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "pip install 'meshlib-crdt[nothing]'",
        "pip install meshlib",
        "meshlib-server serve --nothing",
        "meshlib-server nothing",
        "meshlib-server simulate --loss 2",
        "python -m meshlib.testing --nothing",
        "python nothing.py",
        "nothing",
        "echo 'open",
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    """The check above has teeth."""
    with pytest.raises(
        (
            AssertionError,
            click.ClickException,
            SystemExit,
            subprocess.CalledProcessError,
            pytest.fail.Exception,
        )
    ):
        check_command(command)
