"""Log lines: written from beside the loop, bounded, and once a minute for what others cause."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog
from support.servers import eventually

from meshlib_server.logs import (
    LineWriter,
    LogFormat,
    LogLevel,
    configure_logging,
    get_logger,
)


def record(message: str, name: str = "meshlib_server") -> logging.LogRecord:
    """Make a line to log."""
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, (), None)


def test_nobody_who_logs_waits_for_who_reads() -> None:
    """A full pipe takes no line; what does not fit the queue is counted, and told later."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    lines: list[bytes] = []
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "w") as stream:
        writer = LineWriter(stream, queued_bytes_max=10_000)
        for _ in range(1000):
            writer.emit(record("x" * 99))
        dropped = writer.dropped_count
        reader = threading.Thread(target=lambda: lines.extend(source))
        reader.start()
        eventually(lambda: writer.queued_bytes == 0, "the reader has caught up")
        writer.emit(record("after"))
        writer.close()
        stream.close()
        reader.join(10)

    assert dropped > 800
    *earlier, after = lines
    # There is room, and so a line that tells, whenever the pipe has taken some.
    told = [json.loads(line)["count"] for line in earlier if line.startswith(b"{")]
    assert 1000 - dropped == len(earlier) - len(told)
    assert dropped == sum(told)
    assert b"after\n" == after


def test_what_is_queued_is_written_before_the_end() -> None:
    """An error that ends a process is its last line."""
    stream = io.StringIO()
    writer = LineWriter(stream)
    for number in range(100):
        writer.emit(record(str(number)))

    writer.close()

    assert [str(number) for number in range(100)] == stream.getvalue().split()


def test_a_library_says_each_kind_of_thing_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of one wording at two places are two kinds; the program's own lines all stay."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(sys, "stderr", stream)
    writer = configure_logging()
    try:
        for number in range(5):
            logging.getLogger("asyncio").error("out of %s", number)
            logging.getLogger("meshlib_server").warning("own")
            try:
                int("x") if number < 3 else {}["x"]  # type: ignore[index]
            except (ValueError, KeyError):
                logging.getLogger("uvicorn.error").exception("failed")
    finally:
        writer.close()
        root.handlers, root.level = handlers, level

    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert 1 == messages.count("out of 0")
    assert 5 == messages.count("own")
    assert 2 == messages.count("failed")
    assert 8 == len(messages)


@contextlib.contextmanager
def logging_to(stream: io.StringIO, level: LogLevel, form: LogFormat) -> Iterator[None]:
    """Log into a text, and leave logging as it was."""
    root = logging.getLogger()
    handlers, before, stderr = root.handlers, root.level, sys.stderr
    sys.stderr = stream
    writer = configure_logging(level, form=form)
    try:
        yield
    finally:
        writer.close()
        root.handlers, sys.stderr = handlers, stderr
        root.setLevel(before)
        structlog.reset_defaults()


def test_the_console_format_is_one_line_whatever_is_logged() -> None:
    """What a peer says neither begins a line of its own nor colours the terminal."""
    stream = io.StringIO()
    with logging_to(stream, LogLevel.INFO, LogFormat.CONSOLE):
        get_logger().warning("joined\nby\x1b[31m", name="a\nb\x1b[31m", count=3)

    [line] = stream.getvalue().splitlines()
    assert "joined\\nby\\x1b[31m" in line
    assert "count=3" in line
    assert "\x1b" not in line


def test_an_error_in_the_console_format_has_its_traceback() -> None:
    """As in JSON, where it is a field."""
    stream = io.StringIO()
    with logging_to(stream, LogLevel.INFO, LogFormat.CONSOLE):
        try:
            {}["x"]  # type: ignore[index]
        except KeyError:
            logging.getLogger("meshlib_server").exception("failed")

    assert "KeyError: 'x'" in stream.getvalue()


def test_what_is_below_the_level_is_not_logged() -> None:
    """Of the server and of the library alike."""
    stream = io.StringIO()
    with logging_to(stream, LogLevel.WARNING, LogFormat.JSON):
        for logger in (get_logger(), logging.getLogger("meshlib")):
            logger.info("small talk")
            logger.warning("news")

    lines = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert ["news", "news"] == lines
