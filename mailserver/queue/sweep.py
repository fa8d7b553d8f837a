"""The sweep: removes files that nobody accepted, and rows that have served."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Final

import apsw

from mailserver.queue import statements
from mailserver.queue.rows import Rows
from mailserver.queue.spool import Spool

AGE: Final = 3600
"""Seconds after which a file without a row is removed: no session takes that long from the file to the commit."""
KEPT_REFUSALS: Final = 30 * 86400
"""Seconds for which a refused token is remembered: no process hangs longer. Committed tokens wait for `forget`."""
KEPT_COUNTS: Final = 7 * 86400
"""Seconds for which counts of recipients are kept: limits are for an hour and a day."""
_AT_ONCE: Final = 200
_log = logging.getLogger(__name__)


def sweep(spool: Spool, rows: Rows, now: int) -> Sequence[str]:
    """Remove old files without rows, and return their names. Raises: NoSpace, QueueBusy, QueueDamaged, StorageFailure."""
    swept: list[str] = []
    names = spool.names()
    while batch := list(itertools.islice(names, _AT_ONCE)):
        nameless = _without_rows(rows, batch)
        if old := [name for name in nameless if spool.age(name, now) > AGE]:
            swept += _remove(spool, rows, old)
    for name in swept:
        _log.info("spool file %s was removed: it had no row", name)

    def forget(connection: apsw.Connection) -> None:
        connection.execute(statements.SWEEP_DECISIONS, {"before": now - KEPT_REFUSALS})
        connection.execute(statements.SWEEP_SENT, {"before": now - KEPT_COUNTS})
        connection.execute(statements.SWEEP_HOPS, {"now": now})

    rows.write(forget, durable=False)
    return swept


def _without_rows(rows: Rows, names: Sequence[str]) -> list[str]:
    return [name for name in names if not rows.read(statements.HAS_NAME, name=name)]


def _remove(spool: Spool, rows: Rows, names: Sequence[str]) -> list[str]:
    """Remove those that have no row now, while nobody can add one, and no power cut can bring one back."""
    with rows.settled():
        nameless = _without_rows(rows, names)
        for name in nameless:
            spool.remove(name)
    return nameless
