"""Records logins for the ledger: gathered for some seconds, and each entry at most once an hour.

A login costs an object in a list. IMAP clients often send ID just after it, so a record waits for a while before it is
reported. Nothing waits for the ledger, and records that are too many are dropped.
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
"""Seconds between a login and its report."""
REPORT_INTERVAL: Final = 3600.0
"""Seconds until the same entry is reported again."""
MAX_WAITING_LOGINS: Final = 5000
MAX_KNOWN_LOGINS: Final = 20_000

_FIELD: Final = re.compile(r"(?:^| )(name|version)=(.*?)(?= [a-z-]+=|\Z)", re.DOTALL)
MAX_PROGRAM_LENGTH: Final = 80


@define
class LoginRecord:
    """One login."""

    entry: Entry
    time: float
    reported: bool = False


class ClientLog:
    """The logins at all listeners of this process."""

    def __init__(
        self, clock: IReactorTime, report: Callable[[Sequence[Entry]], None], *, enabled: Callable[[], bool]
    ) -> None:
        """`report` passes entries to the ledger."""
        self._enabled = enabled
        self._clock = clock
        self._report = report
        self._waiting: list[LoginRecord] = []
        self._known: dict[Entry, float] = {}
        """When each was reported last, the oldest first."""
        self._is_timer_set = False

    def login(self, info: ConnectionInfo, account: str, mechanism: str, program: str) -> LoginRecord | None:
        """Record a login."""
        if not self._enabled():
            return None
        return self._add(_entry(info, account, mechanism, program))

    def identified(self, record: LoginRecord | None, program: str) -> None:
        """Add the program to a record, as the client names it by ID."""
        if record is None:
            return
        entry = evolve(record.entry, program=program)
        if record.reported:
            self._add(entry)
        else:
            record.entry = entry

    def flush(self) -> None:
        """Report all records now: this process serves no clients any more."""
        self._report_first(len(self._waiting))

    def _add(self, entry: Entry) -> LoginRecord | None:
        if len(self._waiting) >= MAX_WAITING_LOGINS:
            return None
        record = LoginRecord(entry, self._clock.seconds())
        self._waiting.append(record)
        if not self._is_timer_set:
            self._is_timer_set = True
            self._clock.callLater(GATHERING_TIME, self._report_due)
        return record

    def _report_due(self) -> None:
        now = self._clock.seconds()
        self._report_first(sum(now - each.time >= GATHERING_TIME for each in self._waiting))
        self._is_timer_set = bool(self._waiting)
        if self._is_timer_set:
            self._clock.callLater(max(0.0, self._waiting[0].time + GATHERING_TIME - now), self._report_due)

    def _report_first(self, number: int) -> None:
        now = self._clock.seconds()
        due, self._waiting = self._waiting[:number], self._waiting[number:]
        new = []
        for each in due:
            each.reported = True
            before = self._known.get(each.entry)
            if before is None or now - before >= REPORT_INTERVAL:
                self._known.pop(each.entry, None)
                self._known[each.entry] = now
                new.append(each.entry)
        while len(self._known) > MAX_KNOWN_LOGINS:
            del self._known[next(iter(self._known))]
        if new and self._enabled():
            self._report(new)


def program_of(identification: str) -> str:
    """Name and version of a client's ID ("name=Thunderbird version=128.0 ..."); all else is left out."""
    found = dict(_FIELD.findall(identification))
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
        mechanism=_text(mechanism),
    )


def _text(text: str) -> str:
    """Strip control characters and truncate."""
    return "".join(each for each in text if each.isprintable())[:LONGEST]
