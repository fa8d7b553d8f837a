"""What this process has seen of clients, on its way to the ledger: gathered for some seconds, and each once an hour.

A login costs an object in a list. IMAP clients often say what they are just after it, so a sighting rests for a
while before it is told. Nothing waits for the ledger, and what is too much is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, evolve
from twisted.internet.interfaces import IReactorTime

from mailserver.ledger.entry import LONGEST, Entry
from mailserver.session.channel import ConnectionInfo

GATHERING_TIME: Final = 5.0
"""Seconds between a login and its telling."""
REPORT_INTERVAL: Final = 3600.0
"""Seconds until the same is told once more."""
MAX_WAITING_LOGINS: Final = 5000
MAX_KNOWN_LOGINS: Final = 20_000

_FIELD: Final = re.compile(r"(?:^| )(name|version)=(.*?)(?= [a-z-]+=|\Z)", re.DOTALL)
MAX_PROGRAM_LENGTH: Final = 80


@define
class LoginRecord:
    """One login."""

    entry: Entry
    time: float
    told: bool = False


class ClientLog:
    """Of all listeners of this process."""

    def __init__(
        self, clock: IReactorTime, tell: Callable[[Sequence[Entry]], None], *, enabled: Callable[[], bool]
    ) -> None:
        """`tell` hands entries on."""
        self._enabled = enabled
        self._clock = clock
        self._tell = tell
        self._waiting: list[LoginRecord] = []
        self._known: dict[Entry, float] = {}
        """When it was told last, the longest ago first."""
        self._timed = False

    def login(self, info: ConnectionInfo, account: str, mechanism: str, program: str) -> LoginRecord | None:
        """Somebody has logged in."""
        if not self._enabled():
            return None
        return self._add(_entry(info, account, mechanism, program))

    def identified(self, sighting: LoginRecord | None, program: str) -> None:
        """Whoever that was says what it is."""
        if sighting is None:
            return
        entry = evolve(sighting.entry, program=program)
        if sighting.told:
            self._add(entry)
        else:
            sighting.entry = entry

    def flush(self) -> None:
        """Let none rest: this process serves nobody any more."""
        self._tell_first(len(self._waiting))

    def _add(self, entry: Entry) -> LoginRecord | None:
        if len(self._waiting) >= MAX_WAITING_LOGINS:
            return None
        sighting = LoginRecord(entry, self._clock.seconds())
        self._waiting.append(sighting)
        if not self._timed:
            self._timed = True
            self._clock.callLater(GATHERING_TIME, self._tell_rested)
        return sighting

    def _tell_rested(self) -> None:
        now = self._clock.seconds()
        self._tell_first(sum(now - each.time >= GATHERING_TIME for each in self._waiting))
        self._timed = bool(self._waiting)
        if self._timed:
            self._clock.callLater(max(0.0, self._waiting[0].time + GATHERING_TIME - now), self._tell_rested)

    def _tell_first(self, number: int) -> None:
        now = self._clock.seconds()
        rested, self._waiting = self._waiting[:number], self._waiting[number:]
        news = []
        for each in rested:
            each.told = True
            before = self._known.get(each.entry)
            if before is None or now - before >= REPORT_INTERVAL:
                self._known.pop(each.entry, None)
                self._known[each.entry] = now
                news.append(each.entry)
        while len(self._known) > MAX_KNOWN_LOGINS:
            del self._known[next(iter(self._known))]
        if news and self._enabled():
            self._tell(news)


def program_of(said: str) -> str:
    """Name and version of what a client says of itself ("name=Thunderbird version=128.0 ..."); all else is left out."""
    found = dict(_FIELD.findall(said))
    return _text(" ".join(found[key] for key in ("name", "version") if found.get(key)))[:MAX_PROGRAM_LENGTH]


def _entry(info: ConnectionInfo, account: str, mechanism: str, program: str) -> Entry:
    tls = info.tls
    port = info.local.rpartition(":")[2]
    return Entry(
        account=_text(account),
        program=program,
        protocol=info.protocol,
        port=int(port) if port.isdecimal() else 0,
        tls="none" if tls is None else "implicit" if info.protocol.endswith("s") else "STARTTLS",
        version="" if tls is None else tls.version,
        cipher="" if tls is None else tls.cipher,
        alpn="" if tls is None else tls.alpn or "",
        server_name="" if tls is None else _text(tls.server_name or ""),
        mechanism=mechanism,
    )


def _text(text: str) -> str:
    """Without control characters, and not too long."""
    return "".join(each for each in text if each.isprintable())[:LONGEST]
