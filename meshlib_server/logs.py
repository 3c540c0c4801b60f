"""Logging: one JSON object on each line of stderr, the library's and uvicorn's lines included.

Rule: no token and no prompt text is ever handed to a logger, and what a stranger can cause is
logged at most once a minute.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

from meshlib.aio import QuietLog

__all__ = ["configure_logging", "get_logger", "quiet_warning"]

_WARNINGS_BY_STRANGERS: Final = frozenset(
    {"Invalid HTTP request received.", "Unsupported upgrade request."}
)
"""What uvicorn warns of for each request that is so, in its own words."""


def configure_logging(level: int = logging.INFO) -> None:
    """Send every logger of the process to stderr, as JSON lines.

    Args:
        level: the least level that is logged.
    """
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
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # uvicorn says at each start and stop what this server says better; its warnings stay.
    logging.getLogger("uvicorn").setLevel(max(level, logging.WARNING))
    logging.getLogger("uvicorn.error").addFilter(_quieten)
    # A peer that is down is the cluster's daily life, not the client library's news.
    logging.getLogger("websockets").setLevel(max(level, logging.WARNING))


def get_logger() -> Any:
    """Return the server's logger: `log.info("message", field=value)`."""
    return structlog.get_logger("meshlib_server")


def _quieten(record: logging.LogRecord) -> bool:
    """Let a line of uvicorn through, unless it is one that is to be said once a minute."""
    if record.msg not in _WARNINGS_BY_STRANGERS:
        return True
    quiet_warning("what came in is not served", record.msg)
    return False


_quiet_log = QuietLog(logging.getLogger("meshlib_server"))


def quiet_warning(kind: str, detail: str) -> None:
    """Log what somebody outside can cause: at most once a minute for each kind.

    Args:
        kind: a constant of the program.
        detail: the rest of the line; must hold no secret.
    """
    _quiet_log.tell(kind, detail)
