"""Counters of events on connections, by protocol and TLS version, since the start.

Each process that serves keeps `EventCounters`. The process that answers for all of them keeps `EventTotals`: the last
numbers of a worker stay in the sum when it has ended, so no counter ever goes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from mailserver.net.ipc.worker_messages import MAX_EVENT_ROWS, EventRow
from mailserver.session.channel import ConnectionInfo

Key: TypeAlias = tuple[str, str, str]
"""Event, protocol, TLS version or "none"."""


class EventCounters:
    """The counters of this process."""

    def __init__(self) -> None:
        self._counted: Counter[Key] = Counter()

    def count(self, event: str, info: ConnectionInfo) -> None:
        """Count an event."""
        self._counted[event, info.protocol, info.tls.version if info.tls is not None else "none"] += 1

    def rows(self) -> list[EventRow]:
        """Return each counter with its key, sorted."""
        return _rows(self._counted)


class EventTotals:
    """The sum over all processes, those that have ended included."""

    def __init__(self) -> None:
        self._living: dict[int, Counter[Key]] = {}
        self._ended: Counter[Key] = Counter()

    def update(self, worker: int, rows: Iterable[EventRow]) -> None:
        """Take the present counters of a worker."""
        self._living[worker] = Counter({(event, protocol, tls): number for event, protocol, tls, number in rows})

    def end(self, worker: int) -> None:
        """Keep the last counters of a worker that has ended."""
        for key, number in self._living.pop(worker, {}).items():
            # A worker that was taken over may die again and again, each time with other names.
            if key in self._ended or len(self._ended) < MAX_EVENT_ROWS:
                self._ended[key] += number

    def rows(self) -> list[EventRow]:
        """Return each sum with its key, sorted."""
        return _rows(sum(self._living.values(), self._ended.copy()))


def _rows(counted: Counter[Key]) -> list[EventRow]:
    return [(*key, number) for key, number in sorted(counted.items())]
