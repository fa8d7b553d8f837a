"""How often what has happened: events of connections, by protocol and TLS version, since the start.

Each process that serves keeps `EventCounters`. Whoever makes one answer of theirs keeps the `EventTotals`: what a worker last told
stays counted when it has ended, so that no number ever goes back.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, TypeAlias

from mailserver.net.ipc.message_schema import MAX_NUMBER, Json
from mailserver.session.channel import ConnectionInfo

MAX_ROWS: Final = 5000
"""Of one worker, and of all that have ended; more is nonsense."""
MAX_WORD: Final = 64
"""Characters of an event's, a protocol's or a version's name."""

Key: TypeAlias = tuple[str, str, str]
"""Event, protocol, TLS version or "none"."""


class EventCounters:
    """Of this process."""

    def __init__(self) -> None:
        self._counted: Counter[Key] = Counter()

    def count(self, event: str, info: ConnectionInfo) -> None:
        """It has happened once more."""
        self._counted[event, info.protocol, info.tls.version if info.tls is not None else "none"] += 1

    def rows(self) -> list[Json]:
        """[event, protocol, TLS version, number] of each."""
        return _rows(self._counted)


class EventTotals:
    """Of all processes, those that have ended included."""

    def __init__(self) -> None:
        self._living: dict[int, Counter[Key]] = {}
        self._ended: Counter[Key] = Counter()

    def take(self, worker: int, rows: Json) -> None:
        """A worker tells its event_counters as it is now; nonsense is not taken."""
        if not isinstance(rows, list) or len(rows) > MAX_ROWS:
            return
        counted: Counter[Key] = Counter()
        for row in rows:
            match row:
                case [str(event), str(protocol), str(tls), int(number)] if 0 <= number < MAX_NUMBER and all(
                    map(_is_word, (event, protocol, tls))
                ):
                    counted[event, protocol, tls] = number
                case _:
                    return
        self._living[worker] = counted

    def end(self, worker: int) -> None:
        """It has ended: what it told last stays."""
        for key, number in self._living.pop(worker, {}).items():
            # One that was taken over may die again and again, each time with other words.
            if key in self._ended or len(self._ended) < MAX_ROWS:
                self._ended[key] += number

    def rows(self) -> list[Json]:
        """As those of `EventCounters`."""
        return _rows(sum(self._living.values(), self._ended.copy()))


def _is_word(word: str) -> bool:
    return len(word) <= MAX_WORD and word.isascii()


def _rows(counted: Counter[Key]) -> list[Json]:
    return [[*key, number] for key, number in sorted(counted.items())]
