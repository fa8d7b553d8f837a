"""The record of exposed passwords, in the master or in the single process: keep it, list it, clear it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailserver.auth.exposure.record import DamagedRecord, ExposureRecord
from mailserver.net.admin.control_socket import Answer, Arguments, BadRequest, Command, DataAnswer
from mailserver.net.ipc.message_schema import Json
from mailserver.net.log.events import log

SAVE_AFTER: Final = 1.0
"""Seconds for which changes are gathered before the file is written."""


class Exposures:
    """An `ExposureRecord` and its file."""

    def __init__(self, reactor: Any, directory: Path) -> None:
        self._reactor = reactor
        self._record = ExposureRecord(directory)
        self._changed = False
        self._saving: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._record)

    def load(self) -> None:
        """Read the file at the start, before any client is served: this may block. A file that cannot be read stays as it is."""
        try:
            self._record.load()
        except (DamagedRecord, OSError) as error:
            log.warn("exposed passwords: {reason}", event="exposures-not-read", reason=str(error))

    def take(self, mark: object) -> None:
        """Mark the user of an exposed password; a malformed mark is ignored."""
        if self._record.add(mark, int(time.time())):
            self._save_later()

    def commands(self) -> dict[str, Command]:
        """Return the commands of the control socket, by name."""
        return {"exposures": self._list, "exposures-clear": self._clear}

    def stop(self) -> Deferred[None]:
        """Write unwritten changes."""
        if self._saving is not None:
            return self._saving.addCallback(lambda _none: self.stop())
        if not self._changed:
            return succeed(None)
        return self._save()

    def _list(self, arguments: Arguments) -> Deferred[DataAnswer]:
        if arguments:
            raise BadRequest("exposures takes no arguments")
        return succeed(DataAnswer(cast("Json", self._record.rows())))

    def _clear(self, arguments: Arguments) -> Deferred[Answer]:
        """Clear the mark of a user, of all users where the name is ""."""
        user = arguments.get("user")
        if set(arguments) != {"user"} or not isinstance(user, str):
            raise BadRequest("exposures-clear takes a user, or an empty text for all")
        cleared = self._record.clear(user)
        if not cleared:
            return succeed((False, [f"no exposure of {user} is recorded"] if user else ["no exposure is recorded"]))
        self._save_later()
        return succeed((True, [f"cleared {each}" for each in cleared]))

    def _save_later(self) -> None:
        if not self._changed:
            self._changed = True
            self._reactor.callLater(SAVE_AFTER, self._save_now)

    def _save_now(self) -> None:
        if self._changed and self._saving is None:
            self._save()

    def _save(self) -> Deferred[None]:
        self._changed = False
        pool = self._reactor.getThreadPool()
        writing = deferToThreadPool(self._reactor, pool, self._record.save, self._record.text())
        done: Deferred[None] = Deferred()
        self._saving = done

        def failed(failure: Failure) -> None:
            failure.trap(OSError)
            log.warn(
                "exposed passwords are remembered until the server stops: {reason}",
                event="exposures-not-written",
                reason=str(failure.value),
            )

        def end(result: Failure | None) -> None:
            self._saving = None
            if isinstance(result, Failure):
                log.failure("exposed passwords are not written", result, event="bug")
            if self._changed:
                self._reactor.callLater(SAVE_AFTER, self._save_now)
            done.callback(None)

        writing.addErrback(failed).addBoth(end)
        return done
