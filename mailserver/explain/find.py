"""Find records of logins: by id, by user, by address. Reads the files; the server need not run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from mailserver.explain.log import LOGGED_IN, REFUSED
from mailserver.explain.record import BadRecord, Record
from mailserver.explain.ring import RingUnusable, read_ring

MAX_FILES: Final = 1000
DAY: Final = 86400.0


@frozen
class Found:
    """Records, the oldest first, and the files that could not be read."""

    records: list[Record]
    faults: list[str]


def read_records(directory: Path, keep_days: int, *, logins: bool = False) -> Found:
    """All records of the last `keep_days` days, with or without logins that were let in. Raises: PermissionError.

    A record from the future, as a clock that was set back leaves them, is kept.
    """
    oldest = time.time() - keep_days * DAY
    records: list[Record] = []
    faults: list[str] = []
    for path in _files(directory, (REFUSED, LOGGED_IN) if logins else (REFUSED,)):
        try:
            for octets in read_ring(path):
                try:
                    record = Record.of_octets(octets)
                except BadRecord:
                    continue
                if record.at >= oldest:
                    records.append(record)
        except PermissionError:
            raise
        except (OSError, RingUnusable) as error:
            faults.append(str(error))
    records.sort(key=lambda record: record.at)
    return Found(records, faults)


def by_ref(records: list[Record], ref: str) -> Record | None:
    """The refusal with that id, the newest if there are several."""
    return next((each for each in reversed(records) if each.ref == ref), None)


def of_user(records: list[Record], *names: str) -> list[Record]:
    """The records that concern a user or a typed name, by one of its names, without regard to case."""
    wanted = {name.casefold() for name in names}
    return [each for each in records if wanted & _names_of(each)]


def _names_of(record: Record) -> set[str]:
    return {name.casefold() for name in (record.user, record.delegate, record.typed, *record.names)}


def of_peer(records: list[Record], peer: str) -> list[Record]:
    """The records of a client's address."""
    return [each for each in records if each.peer == peer]


def _files(directory: Path, ends: tuple[str, ...]) -> Iterator[Path]:
    """The rings of all processes. Raises: PermissionError."""
    try:
        names = sorted(path for path in directory.iterdir() if path.name.endswith(ends))
    except FileNotFoundError:
        return
    yield from names[:MAX_FILES]
