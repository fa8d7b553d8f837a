"""What has changed in a directory since the last look, and what has expired since then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from attrs import frozen

from mailserver.auth.backends.directory_changes import concerned, sessions_over
from mailserver.auth.changed_users import ChangedUsers, SessionsOf
from mailserver.directory import credentials, delegates, reading
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import AuthUnavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)


@frozen
class Position:
    """A moment in the record of changes of a directory."""

    file: int
    """How often another file was found in the place of the one that was open."""
    id: str
    serial: int
    head: tuple[str, ...] | None
    """The first row of the last change: another history has another one of that number."""


class Ask(Protocol):
    """Asks an open directory. Raises: AuthUnavailable."""

    def __call__(self, question: Callable[[SQLiteDatabase], T], /) -> T:
        """Ask one question."""


class DirectoryFeed:
    """The changes and expiries that end sessions, each reported once."""

    def __init__(self, path: object, ask: Ask, wall: Callable[[], float]) -> None:
        """`wall`: seconds since 1970."""
        self._path = path
        self._ask = ask
        self._wall = wall
        self._file = 0
        self._position: Position | None = None
        """The present one, while nobody changes the directory."""
        self._seen: Position | None = None
        """Changes until then have been reported; None: no directory was open yet, and nobody was let in."""
        self._expired_until = int(wall())
        """What expired until then has been reported."""
        self._next_expiry: int | None = None
        self._expiry_due = True
        """The next expiry is to be read: the directory has changed."""

    def opened(self, database: SQLiteDatabase) -> None:
        """Begin at the first directory that is open: from now on it lets users in. Raises: DirectoryUnavailable."""
        if self._seen is None:
            self._seen = self._read(database)

    def replaced(self) -> None:
        """Note that another file is in the place of the one that was open, or none."""
        self._file += 1
        self.changed()

    def changed(self) -> None:
        """Note that somebody has changed the directory, or that it was closed."""
        self._position = None
        self._expiry_due = True

    def position(self) -> Position:
        """The last change. Raises: AuthUnavailable."""
        return self._ask(self._present)

    def changed_since(self, position: Position) -> ChangedUsers | None:
        """The users whose sessions changes after `position` end; None: it may be anybody. Raises: AuthUnavailable."""
        return self._ask(lambda database: self._since(database, position))[1]

    def changed_users(self) -> ChangedUsers | None:
        """See IChanges: those of `changed_since`, and of what has expired, since the last call."""
        changed = self._changed()
        return None if changed is None else changed | self._expired()

    def _changed(self) -> ChangedUsers | None:
        try:
            # Asked first: it opens the directory, with which `_seen` begins.
            self.position()
            assert self._seen is not None
            seen = self._seen
            # Only once all is read: what is not reported is asked for again.
            self._seen, changed = self._ask(lambda database: self._since(database, seen))
        except AuthUnavailable:
            return frozenset()
        if changed is None:
            _log.warning(
                "%s: all sessions end, as it is not known whom the changes concern: it is another directory, a restored"
                " copy, or has had more changes than its record keeps",
                self._path,
            )
        return changed

    def _since(self, database: SQLiteDatabase, since: Position) -> tuple[Position, ChangedUsers | None]:
        if self._present(database) == since:
            return since, frozenset()
        with database.reading():
            position = self._read(database)
            if not _continues(database, since, position):
                return position, None
            return position, concerned(database, since.serial, int(self._wall()))

    def _present(self, database: SQLiteDatabase) -> Position:
        if self._position is None:
            self._position = self._read(database)
        return self._position

    def _read(self, database: SQLiteDatabase) -> Position:
        identifier, serial = reading.identity(database)
        return Position(self._file, identifier, serial, reading.change_head(database, serial))

    def _expired(self) -> set[SessionsOf]:
        """The sessions of app passwords and delegates that have expired since the last look."""
        try:
            return self._ask(self._expired_now)
        except AuthUnavailable:
            return set()

    def _expired_now(self, database: SQLiteDatabase) -> set[SessionsOf]:
        now, since = int(self._wall()), self._expired_until
        if self._expiry_due or now < since:
            # A clock that was set back: what expires again is reported again.
            self._expired_until = since = min(now, since)
            firsts = delegates.next_expiry(database, since), credentials.next_expiry(database, since)
            self._next_expiry = min((each for each in firsts if each is not None), default=None)
            self._expiry_due = False
        if self._next_expiry is None or self._next_expiry > now:
            return set()
        ended = {SessionsOf(account, credential) for credential, account in credentials.expired(database, since, now)}
        for each in delegates.delegates(database):
            if since < (each.expires or 0) <= now:
                ended.update(sessions_over(each.account, each.over))
        self._expired_until, self._expiry_due = now, True
        return ended


def _continues(database: SQLiteDatabase, since: Position, position: Position) -> bool:
    """Is it the same directory, with the same history until `since`?"""
    if (since.file, since.id) != (position.file, position.id) or position.serial < since.serial:
        return False
    head = reading.change_head(database, since.serial)
    # The row may be the last one that the record has lost.
    return head is None or head == since.head
