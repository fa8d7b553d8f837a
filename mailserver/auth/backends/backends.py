"""The back ends of a process: one object for each entry of the configuration, kept over reloads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from mailserver.auth.backends.guard import UNGUARDED, Guard, GuardedHasher, GuardSettings, Scheduler
from mailserver.auth.backends.guarded_backend import GuardedBackend
from mailserver.auth.changed_users import ChangedUsers, SessionsOf
from mailserver.auth.interfaces import Hasher, IChanges, IReadsAhead, IReloadable
from mailserver.auth.plugins import find_backend
from mailserver.config.model import BackendUse

_log = logging.getLogger(__name__)


class Backends:
    """The back ends made so far, by their entries `NAME:ARGUMENT`."""

    def __init__(self, hasher: Hasher, scheduler: Scheduler) -> None:
        self._hasher = hasher
        self._scheduler = scheduler
        self._made: dict[BackendUse, Any] = {}

    def add(self, entries: Iterable[BackendUse]) -> None:
        """Make the new ones: all or none. Raises: BackendFault, with the entry and the error of `find_backend`."""
        made = {}
        for entry in map(_made_of, entries):
            if entry not in self._made:
                try:
                    made[entry] = self._make(entry)
                except Exception as error:
                    raise BackendFault(entry.name, error) from error
        self._made.update(made)

    def chosen(self, entries: Iterable[BackendUse]) -> list[Any]:
        """The back ends of a configuration, in its order."""
        return [self._made[_made_of(entry)] for entry in entries]

    def read_ahead(self) -> None:
        """Have the back ends read their data for `reload`. Runs in a thread, or before clients connect."""
        for backend in list(self._made.values()):
            if IReadsAhead.providedBy(backend):
                backend.read_ahead()

    def reload(self) -> None:
        """Have the back ends use changed data now."""
        for backend in self._made.values():
            if IReloadable.providedBy(backend):
                backend.reload()

    def changed_users(self) -> ChangedUsers | None:
        """The users that have changed since the last call; None: it may be anybody."""
        changed: set[str | SessionsOf] = set()
        anybody = False
        for backend in self._made.values():
            if IChanges.providedBy(backend):
                try:
                    users = backend.changed_users()
                except Exception:
                    # The answers of others are given once, and must not be lost.
                    _log.exception("a back end raised an exception in changed_users(): it is asked again")
                    continue
                anybody = anybody or users is None
                changed |= users or set()
        # Each is asked, as an answer is given once.
        return None if anybody else frozenset(changed)

    def _make(self, entry: BackendUse) -> Any:
        if entry.name in UNGUARDED:
            return find_backend(entry.use, self._hasher)
        guard = Guard(entry.name, self._scheduler, GuardSettings(entry.time, entry.calls))
        return GuardedBackend.of(find_backend(entry.use, GuardedHasher(self._hasher, guard)), guard)


def _made_of(entry: BackendUse) -> BackendUse:
    """The settings that an object is made of: with other ones of these it is another object."""
    return BackendUse(entry.use, time=entry.time, calls=entry.calls)


class BackendFault(Exception):
    """A back end cannot be made. The text is the reason, `name` the word before the colon, `error` the exception."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(str(error))
        self.name = name
        self.error = error
