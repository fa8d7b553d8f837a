"""A process's lines that belong to no connection, and those of parts that may not know Twisted."""

from __future__ import annotations

import logging

from mailserver.net.log.events import log, plain_line


def log_event(event: str, /, **fields: object) -> None:
    """One line of the log that belongs to no connection."""
    log.info("{line}", line=plain_line(event, fields))


class _Forwarder(logging.Handler):
    """Lines of Python's own logging, in the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        log.warn("{line}", line=f"{record.name}: {record.getMessage()}")


def forward_logging() -> None:
    """Parts that may not know Twisted log by `logging`."""
    logger = logging.getLogger("mailserver")
    if not any(isinstance(handler, _Forwarder) for handler in logger.handlers):
        logger.addHandler(_Forwarder())
        logger.propagate = False
