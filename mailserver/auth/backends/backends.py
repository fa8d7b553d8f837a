"""The back ends of a process: one object for each entry of the configuration, kept over reloads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mailserver.auth.backends.guard import UNGUARDED, Guard, GuardedBackend, GuardedHasher, Scheduler
from mailserver.auth.interfaces import Hasher, IReadsAhead, IReloadable
from mailserver.auth.plugins import find_backend


class Backends:
    """The back ends made so far, by their entries `NAME:ARGUMENT`."""

    def __init__(self, hasher: Hasher, scheduler: Scheduler) -> None:
        self._hasher = hasher
        self._scheduler = scheduler
        self._made: dict[str, Any] = {}

    def add(self, entries: Iterable[str]) -> None:
        """Make the new ones: all or none. Raises: BackendFault, with the entry and the error of `find_backend`."""
        made = {}
        for entry in entries:
            if entry not in self._made:
                try:
                    made[entry] = self._make(entry)
                except Exception as error:
                    raise BackendFault(entry.partition(":")[0], error) from error
        self._made.update(made)

    def chosen(self, entries: Iterable[str]) -> list[Any]:
        """The back ends of a configuration, in its order."""
        return [self._made[entry] for entry in entries]

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

    def _make(self, entry: str) -> Any:
        name = entry.partition(":")[0]
        if name in UNGUARDED:
            return find_backend(entry, self._hasher)
        guard = Guard(name, self._scheduler)
        return GuardedBackend(find_backend(entry, GuardedHasher(self._hasher, guard)), guard)


class BackendFault(Exception):
    """A back end cannot be made. The text is the reason, `name` the word before the colon, `error` the exception."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(str(error))
        self.name = name
        self.error = error
