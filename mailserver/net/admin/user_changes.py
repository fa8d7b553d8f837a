"""End the sessions of users whose accounts have changed: disabled, deleted, renamed, another password, other networks.

A back end that provides IChanges is asked once a second, which costs some microseconds while nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.task import LoopingCall

from mailserver.auth.changed_users import ChangedUsers
from mailserver.net.admin.sessions import Sessions
from mailserver.net.log.events import log

EVERY: Final = 1.0
"""Seconds between two questions."""
REASON: Final = "this account was changed: log in again"


class UserChanges:
    """The looks at changed users of one process."""

    def __init__(self, changed_users: Callable[[], ChangedUsers | None], sessions: Sessions, clock: Any) -> None:
        """`changed_users` returns the users that changed since the last call; None: it may be anybody."""
        self._changed_users = changed_users
        self._sessions = sessions
        self._due: ChangedUsers | None = frozenset()
        """Users whose sessions are still to be ended."""
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def start(self) -> None:
        """Begin to look, unless it does already."""
        if not self._looking.running:
            self._looking.start(EVERY)

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        try:
            users = self._changed_users()
            self._due = None if users is None or self._due is None else self._due | users
        except Exception:
            # A fault of a back end must not end the looks.
            log.failure("changed users could not be looked up: they are asked for again", event="bug")
        if self._due is None or self._due:
            self._end_due()

    def _end_due(self) -> None:
        try:
            self._sessions.end_of_users(self._due, REASON)
        except Exception:
            # A back end reports a change once: it stays due.
            log.failure("sessions of changed users could not be ended: it is tried again", event="bug")
        else:
            self._due = frozenset()
