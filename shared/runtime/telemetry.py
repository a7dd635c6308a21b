"""Logs: structured, one event per line, without personal data: log ids, counts, codes and error types, not content.

The code that logs is responsible for that. The text of exceptions, which it does not control, passes through `_censored`.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from shared.runtime.settings import CommonSettings

_REPEATS_SECONDS: Final = 10.0
"""aiokafka logs every attempt to connect, hundreds a second while the brokers are away."""

_ADDRESS: Final = re.compile(r"""[^\s"'<>()\[\]{},;@/\\]+@[^\s"'<>()\[\]{},;@/\\]+""")
"""An e-mail address, or ``user:password@host`` in a URL."""


def configure_logging(settings: CommonSettings, service: str) -> None:
    """Write structlog's and the standard library's logs to standard error in one format."""
    level = logging.getLevelName(settings.log_level.upper())
    steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *steps,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        # Plain, because the default for a terminal prints all local variables of a traceback, which may be personal data.
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(OncePerWindow("aiokafka", _REPEATS_SECONDS))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last[:-1], _censored(last[-1])],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.contextvars.bind_contextvars(service=service)
    # FastStream's line per batch and uvicorn's line per request would be thousands a second in a surge, and the metrics say
    # the same. Our own log events cover aiokafka's messages about the group.
    for noisy, least in (
        ("groundswell.faststream", logging.ERROR),
        ("uvicorn.access", logging.WARNING),
        ("aiokafka", logging.ERROR),
    ):
        logger = logging.getLogger(noisy)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(level, least))


class OncePerWindow(logging.Filter):
    """Passes the same message of a library once per window, with the number of messages suppressed since.

    Args:
        library: Name of its logger; includes loggers below it.
        seconds: Length of the window.
        clock: Returns monotonic seconds.
    """

    def __init__(self, library: str, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(library)
        self._seconds, self._clock = seconds, clock
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}  # by message: when the window began, left out

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return True  # another library
        message, now = (record.name, record.levelno, str(record.msg)), self._clock()
        began, left_out = self._seen.get(message, (now - self._seconds, 0))
        if now - began < self._seconds:
            self._seen[message] = (began, left_out + 1)
            return False
        self._seen[message] = (now, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} more like it)", None
        return True


def _censored(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """Wrap `render` to remove what looks like an address or credentials: PostgreSQL's driver and others quote values."""

    def censored(logger: Any, method: str, event: structlog.typing.EventDict) -> str:
        return _ADDRESS.sub("[removed]", str(render(logger, method, event)))

    return censored
