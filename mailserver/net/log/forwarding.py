"""Messages of Python's own `logging`, by which the parts log that may not know Twisted, in the same log."""

from __future__ import annotations

import logging

from mailserver.net.log.events import log


class _Forwarder(logging.Handler):
    """Logs each record as an event."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        log.warn(
            "{logger}: {message_text}", event="library-message", logger=record.name, message_text=record.getMessage()
        )


def forward_logging() -> None:
    """Forward what the `mailserver` loggers of `logging` get. A second call changes nothing."""
    logger = logging.getLogger("mailserver")
    if not any(isinstance(handler, _Forwarder) for handler in logger.handlers):
        logger.addHandler(_Forwarder())
        logger.propagate = False
