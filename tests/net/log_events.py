"""The events that something logs."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import LogEvent, capturedLogs


def logged(work: Callable[[], object]) -> list[LogEvent]:
    with capturedLogs() as events:
        work()
    return list(events)
