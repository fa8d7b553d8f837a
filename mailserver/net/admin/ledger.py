"""The only writer of the ledger, in the master or in the single process: it writes batches in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailserver.auth.credential_uses import CredentialUse
from mailserver.config.model import Config
from mailserver.ledger.credential_use import CredentialUse as StoredUse
from mailserver.ledger.credential_use import use_from_row
from mailserver.ledger.database import Ledger, LedgerUnavailable
from mailserver.ledger.entry import Entry, as_row, from_row
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.ipc.worker_messages import ClientsSeen, CredentialsUsed
from mailserver.net.log.events import log

GATHER: Final = 2.0
"""Seconds for which entries are gathered before they are written."""
MOST_WAITING: Final = 20_000
ROWS_AT_ONCE: Final = 500


def report_to_master(link: ServerLink, entries: Sequence[Entry]) -> None:
    """Send a worker's entries to the master."""
    for at in range(0, len(entries), ROWS_AT_ONCE):
        link.report(ClientsSeen(tuple(as_row(entry) for entry in entries[at : at + ROWS_AT_ONCE])))


def report_uses(link: ServerLink, uses: Sequence[CredentialUse]) -> None:
    """Send a worker's uses of app passwords to the master."""
    for at in range(0, len(uses), ROWS_AT_ONCE):
        link.report(CredentialsUsed(tuple(list(each) for each in uses[at : at + ROWS_AT_ONCE])))


class LedgerWriter:
    """A `Ledger` and the entries that wait to be written."""

    def __init__(self, reactor: Any, directory: Path, config: Callable[[], Config]) -> None:
        self._reactor = reactor
        self._config = config
        self._ledger = Ledger(directory)
        self._waiting: dict[Entry, None] = {}
        self._uses: dict[str, StoredUse] = {}
        """Uses of app passwords that wait, by the identifier."""
        self._timed = False
        self._writing: Deferred[None] | None = None
        self._complained = False

    def take(self, rows: Sequence[Any]) -> None:
        """Add rows of a worker; malformed ones are ignored."""
        self.add([entry for row in rows[:ROWS_AT_ONCE] if (entry := from_row(row)) is not None])

    def add(self, entries: Sequence[Entry]) -> None:
        """Write entries soon."""
        for entry in entries:
            if len(self._waiting) < MOST_WAITING:
                self._waiting[entry] = None
        self._set_timer()

    def take_uses(self, rows: Sequence[Any]) -> None:
        """Add uses of app passwords; malformed ones are ignored."""
        if not self._config().ledger.enabled:
            return
        for row in rows[:MOST_WAITING]:
            use = use_from_row(list(row) if isinstance(row, tuple) else row)
            if use is not None and (use.credential in self._uses or len(self._uses) < MOST_WAITING):
                self._uses[use.credential] = use
        self._set_timer()

    def _set_timer(self) -> None:
        if self._has_waiting and not self._timed:
            self._timed = True
            self._reactor.callLater(GATHER, self._write_soon)

    @property
    def _has_waiting(self) -> bool:
        return bool(self._waiting or self._uses)

    def stop(self) -> Deferred[None]:
        """Write the waiting entries."""
        if self._writing is not None:
            return self._writing.addCallback(lambda _none: self.stop())
        return self._write() if self._has_waiting else succeed(None)

    def _write_soon(self) -> None:
        self._timed = False
        if self._writing is None and self._has_waiting:
            self._write()

    def _write(self) -> Deferred[None]:
        entries, self._waiting = list(self._waiting), {}
        uses, self._uses = list(self._uses.values()), {}
        settings, now = self._config().ledger, int(time.time())

        def record() -> None:
            if entries:
                self._ledger.record(
                    entries,
                    now,
                    keep_days=settings.keep_days,
                    per_account=settings.entries_per_account,
                    most=settings.entries,
                )
            if uses:
                self._ledger.record_uses(uses, now, keep_days=settings.keep_days, most=settings.entries)

        done = self._writing = Deferred()
        writing = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), record)

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
