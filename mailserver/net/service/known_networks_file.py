"""The file of known networks, in the master or in the single process: read at the start, written in a thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailserver.auth.throttling.known_networks import LARGEST_FILE, DamagedTable, KnownNetworks, Row, validate_rows
from mailserver.net.log.events import log
from mailserver.system.atomic_file import replace_file

FILE: Final = "known-networks"
SAVE_AFTER: Final = 5.0
"""Seconds for which changes are gathered before the file is written."""
ROWS_AT_ONCE: Final = 1000
"""Rows in one message of a worker, at most."""


class KnownNetworksFile:
    """The table of known networks and its file."""

    def __init__(self, reactor: Any, directory: Path) -> None:
        self.known = KnownNetworks()
        self._reactor = reactor
        self._path = directory / FILE
        self._is_changed = False
        self._is_timed = False
        self._saving: Deferred[None] | None = None
        self._has_complained = False

    def load(self) -> None:
        """Read the file before any client is served: this may block. A damaged file is renamed, and the table begins empty."""
        try:
            with open(self._path, "rb") as file:
                self.known.load(file.read(LARGEST_FILE))
        except FileNotFoundError:
            return
        except DamagedTable as error:
            aside = self._path.with_suffix(".damaged")
            self._complain(f"{error}: {self._path} is set aside as {aside}")
            try:
                os.replace(self._path, aside)
            except OSError as failure:
                self._complain(str(failure))
        except OSError as error:
            self._complain(str(error))

    def take(self, rows: Sequence[Any]) -> list[Row]:
        """Merge rows of a worker, and return them; malformed ones are ignored."""
        try:
            valid = validate_rows(list(rows), ROWS_AT_ONCE)
        except ValueError:
            return []
        if self.known.merge(valid):
            self.changed()
        return valid

    def changed(self, _rows: list[Row] | None = None) -> None:
        """Write the changed table soon."""
        self._is_changed = True
        if not self._is_timed:
            self._is_timed = True
            self._reactor.callLater(SAVE_AFTER, self._save_now)

    def stop(self) -> Deferred[None]:
        """Write unwritten changes."""
        if self._saving is not None:
            return self._saving.addCallback(lambda _none: self.stop())
        return self._save() if self._is_changed else succeed(None)

    def _save_now(self) -> None:
        self._is_timed = False
        if self._is_changed and self._saving is None:
            self._save()

    def _save(self) -> Deferred[None]:
        self._is_changed = False
        pool = self._reactor.getThreadPool()
        writing = deferToThreadPool(self._reactor, pool, _write, self._path, self.known.to_bytes())
        done = self._saving = Deferred()

        def failed(failure: Failure) -> None:
            failure.trap(OSError)
            if not self._has_complained:
                self._has_complained = True
                self._complain(f"they are remembered until the server stops: {failure.value}")

        def end(result: Failure | None) -> None:
            self._saving = None
            if isinstance(result, Failure):
                log.failure("the known networks are not written", result, event="bug")
            if self._is_changed:
                self.changed()
            done.callback(None)

        writing.addErrback(failed).addBoth(end)
        return done

    @staticmethod
    def _complain(reason: str) -> None:
        log.warn("networks that users have logged in from: {reason}", event="known-networks-problem", reason=reason)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, data, follow=False)
