"""The ledger's only writer, in the master or in the one process that does everything: batches, in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailserver.config.model import Config
from mailserver.ledger.database import Ledger, LedgerUnavailable
from mailserver.ledger.entry import Entry, as_row, from_row
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.log.events import log

GATHER: Final = 2.0
"""Seconds for which entries are gathered before they are written."""
MOST_WAITING: Final = 20_000
ROWS_AT_ONCE: Final = 500


def report_to_master(link: ServerLink, entries: Sequence[Entry]) -> None:
    """From a worker."""
    for at in range(0, len(entries), ROWS_AT_ONCE):
        link.report_seen([cast("Json", as_row(entry)) for entry in entries[at : at + ROWS_AT_ONCE]])


class LedgerWriter:
    """Around a `Ledger`."""

    def __init__(self, reactor: Any, directory: Path, config: Callable[[], Config]) -> None:
        self._reactor = reactor
        self._config = config
        self._ledger = Ledger(directory)
        self._waiting: dict[Entry, None] = {}
        self._timed = False
        self._writing: Deferred[None] | None = None
        self._complained = False

    def take(self, told: Json) -> None:
        """A worker tells rows; nonsense is not taken."""
        if isinstance(told, list):
            self.add([entry for row in told[:ROWS_AT_ONCE] if (entry := from_row(row)) is not None])

    def add(self, entries: Sequence[Entry]) -> None:
        """Write these soon."""
        for entry in entries:
            if len(self._waiting) < MOST_WAITING:
                self._waiting[entry] = None
        if self._waiting and not self._timed:
            self._timed = True
            self._reactor.callLater(GATHER, self._write_soon)

    def stop(self) -> Deferred[None]:
        """Write what waits."""
        if self._writing is not None:
            return self._writing.addCallback(lambda _none: self.stop())
        return self._write() if self._waiting else succeed(None)

    def _write_soon(self) -> None:
        self._timed = False
        if self._writing is None and self._waiting:
            self._write()

    def _write(self) -> Deferred[None]:
        entries, self._waiting = list(self._waiting), {}
        settings = self._config().ledger
        done = self._writing = Deferred()
        writing = deferToThreadPool(
            self._reactor,
            self._reactor.getThreadPool(),
            self._ledger.record,
            entries,
            int(time.time()),
            keep_days=settings.keep_days,
            per_account=settings.entries_per_account,
            most=settings.entries,
        )

        def failed(failure: Failure) -> None:
            failure.trap(LedgerUnavailable)
            if not self._complained:
                self._complained = True
                log.warn(
                    "what is known of clients is not kept: {reason}",
                    event="ledger-not-written",
                    reason=str(failure.value),
                )

        def end(result: Failure | None) -> None:
            self._writing = None
            if isinstance(result, Failure):
                log.failure("the ledger of clients is not written", result, event="bug")
            self.add([])
            done.callback(None)

        writing.addErrback(failed).addBoth(end)
        return done
