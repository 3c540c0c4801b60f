"""Logging: one line of stderr for each thing, the library's and uvicorn's lines included.

Rule: no token and no prompt text is ever handed to a logger; what a stranger can cause is logged
at most once a minute for each kind; and to log never waits, whoever reads standard error or not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from enum import StrEnum
from typing import Any, Final, TextIO

import structlog

from meshlib.aio import QuietLog
from meshlib.limits import LOG_LINES_QUEUED_BYTES_MAX

__all__ = [
    "LineWriter",
    "LogFormat",
    "LogLevel",
    "configure_logging",
    "get_logger",
    "quiet_warning",
]


class LogLevel(StrEnum):
    """The least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a line is written."""

    JSON = "json"
    """One JSON object, with a field for each fact."""

    CONSOLE = "console"
    """Text for a person: the time, the level, the message, and the facts behind it."""


FLUSH_TIMEOUT_S: Final = 1.0
"""How long an end waits for the last lines to be taken."""

_QUIET_LIBRARIES: Final = frozenset({"asyncio", "uvicorn", "websockets"})
"""Libraries that say a line for each thing that somebody outside does wrong."""

_QUIET_INTERVAL_S: Final = 60.0
_KINDS_MAX: Final = 256


class LineWriter(logging.Handler):
    """Writes lines from a thread of its own: a reader that has gone to sleep stops nobody else.

    Args:
        stream: where lines go; written to by its descriptor when it has one.
        queued_bytes_max: lines that may wait; beyond it they are dropped, and how many were is
            said once there is room.
    """

    def __init__(
        self, stream: TextIO, *, queued_bytes_max: int = LOG_LINES_QUEUED_BYTES_MAX
    ) -> None:
        super().__init__()
        self.dropped_count = 0
        self._stream = stream
        self._queued_bytes_max = queued_bytes_max
        self._lines: deque[bytes] = deque()
        self.queued_bytes = 0
        self._untold = 0
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line. Never waits for who reads it."""
        try:
            line = self.format(record).encode(errors="backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001 - as every handler: who logs must not fail
            self.handleError(record)
            return
        with self._changed:
            if self.queued_bytes + len(line) > self._queued_bytes_max:
                self.dropped_count += 1
                self._untold += 1
                return
            if self._untold:
                self._put(_told_drops(self._untold))
                self._untold = 0
            self._put(line)
            self._changed.notify()

    def close(self) -> None:
        """Write what is queued, for up to `FLUSH_TIMEOUT_S` seconds, and end. Idempotent."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(FLUSH_TIMEOUT_S)
        super().close()

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self.queued_bytes += len(line)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._is_closing:
                    self._changed.wait()
                if not self._lines:
                    return
                line = self._lines.popleft()
            # Nobody may read it any more, and then there is nowhere left to say so.
            with contextlib.suppress(OSError, ValueError):
                self._write(line)
            with self._changed:
                self.queued_bytes -= len(line)

    def _write(self, line: bytes) -> None:
        """Write past the stream's own buffer, whose lock the end of the interpreter wants."""
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._stream.write(line.decode())
            self._stream.flush()
            return
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]


def _told_drops(count: int) -> bytes:
    tree = {
        "level": "warning",
        "logger": "meshlib_server",
        "message": "log lines were dropped, since nobody took them",
        "count": count,
    }
    return json.dumps(tree).encode() + b"\n"


class _OnceAMinute(logging.Filter):
    """Lets a library say each kind of thing at most once a minute, and adds how often it was."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[Any, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is to be logged."""
        if record.name.partition(".")[0] not in _QUIET_LIBRARIES:
            return True
        kind = (record.name, record.msg if isinstance(record.msg, str) else None, _place(record))
        now = time.monotonic()
        logged_at, suppressed = self._kinds.pop(kind, (float("-inf"), 0))
        is_new = now - logged_at >= _QUIET_INTERVAL_S
        if len(self._kinds) >= _KINDS_MAX:
            del self._kinds[next(iter(self._kinds))]  # the one that was not met for longest
        self._kinds[kind] = (now, 0) if is_new else (logged_at, suppressed + 1)
        if is_new and suppressed:
            record.msg = f"{record.getMessage()} ({suppressed:,} more since the last such line)"
            record.args = ()
        return is_new


def _place(record: logging.LogRecord) -> tuple[Any, ...] | None:
    """Return what failed and where, so that two failures of one wording are two kinds."""
    if not record.exc_info or record.exc_info[0] is None:
        return None
    kind, _, traceback = record.exc_info
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return (kind, None if traceback is None else (traceback.tb_frame.f_code, traceback.tb_lineno))


def configure_logging(
    level: LogLevel = LogLevel.INFO, *, form: LogFormat = LogFormat.JSON
) -> LineWriter:
    """Send every logger of the process to stderr.

    Args:
        level: the least level that is logged.
        form: how a line is written.

    Returns:
        what writes them, to be closed in the end.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(least),
        cache_logger_on_first_use=True,
    )
    handler = LineWriter(sys.stderr)
    handler.addFilter(_OnceAMinute())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(form),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    # uvicorn says at each start and stop what this server says better; its warnings stay. A peer
    # that is down is the cluster's daily life, not the client library's news.
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    return handler


def _on_one_line(_logger: Any, _name: str, fields: Any) -> Any:
    """Escape what would begin a new line in a message, or colour it; JSON does so by itself."""
    fields["event"] = "".join(
        char if char.isprintable() else ascii(char)[1:-1] for char in str(fields["event"])
    )
    return fields


def _renderers(form: LogFormat) -> list[Any]:
    if form is LogFormat.CONSOLE:
        # Never in colours: who keeps the log would keep them too.
        renderer = structlog.dev.ConsoleRenderer(
            colors=False,
            pad_event_to=0,
            repr_native_str=True,  # a peer's words begin no line of their own
            exception_formatter=structlog.dev.plain_traceback,
        )
        return [_on_one_line, renderer]
    return [
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def get_logger() -> Any:
    """Return the server's logger: `log.info("message", field=value)`."""
    return structlog.get_logger("meshlib_server")


_quiet_log = QuietLog(logging.getLogger("meshlib_server"))


def quiet_warning(kind: str, detail: str) -> None:
    """Log what somebody outside can cause: at most once a minute for each kind.

    Args:
        kind: a constant of the program.
        detail: the rest of the line; must hold no secret.
    """
    _quiet_log.tell(kind, detail)
