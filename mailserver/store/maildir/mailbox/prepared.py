"""Messages that are prepared now and published later.

The local copies of a submission wait for the next hop's answer. The copies of a message in several accounts wait for each
other: they share a token, and whoever finds them after a crash asks whether it was decided (`home.recovery`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from mailserver.errors import MailError, NoSpace
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.home import intent, recovery
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox.publication import (
    Arrival,
    existing_paths,
    name_files,
    publish,
    save,
    sync_messages,
    write_intent,
)
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.store.maildir.sync.usage import Addition
from mailserver.store.receiving import Appended, NewMessage


class PreparedMessages:
    """Messages synced in tmp/ with an intent; see `store.receiving.Prepared`."""

    def __init__(self, home: Home, pending: intent.Intent, arrivals: list[Arrival]) -> None:
        self._home = home
        self._pending = pending
        self._arrivals = arrivals
        self._appended: Appended | None = None
        self._done = False
        self._is_late = False
        """The first attempt to publish them failed, so another process may have done it meanwhile."""

    def publish(self) -> Appended:
        """Publish them. Repeated, it returns the same.

        After a failure the next holder of the account's lock publishes them. Raises: InUse, StoreUnavailable.
        """
        if self._appended is not None:
            return self._appended
        if self._done:
            raise ValueError("these messages have been aborted")
        try:
            return self._publish()
        except BaseException:
            self._is_late = True
            self._home.something_due = True
            try:
                self._pending = intent.make_due(self._home.root, self._pending)
            except (OSError, MailError):
                self._home.due.add(self._pending.id)
            raise

    def _publish(self) -> Appended:
        home = self._home
        with home.changing():
            name = recovery.find_mailbox(home, self._pending.payload)
            if self._is_late:
                # Does nothing if it has been done.
                self._appended = self._publish_without_uids(name)
                self._done = True
                intent.forget(home.root, self._pending)
                return self._appended
            try:
                with home.dotlocked([home.paths(name).directory], must=True):
                    state = sync_uidlist(home, name)
                    self._appended = publish(home, state, self._arrivals, must=True)
            except NoSpace:
                self._appended = self._publish_without_uids(name)
            self._done = True
            intent.forget(home.root, self._pending)
        return self._appended

    def _publish_without_uids(self, name: str) -> Appended:
        """Rename the files, which needs no disk space. The next reader gives them UIDs when there is space."""
        home = self._home
        touched = recovery.SETTLERS[recovery.PUBLISH](home, self._pending.payload)
        home.update(lambda index: index.mailboxes.distrust(touched))
        known = home.read(lambda index: index.mailboxes.by_name(name))
        if known is None:
            raise NoSpace
        return Appended(known.guid, known.uid_validity, [])

    def abort(self) -> None:
        """Remove them, unless they are published, or left to others to be published."""
        if self._done or self._is_late:
            return
        self._done = True
        # The intent first: after the loss of some files it would publish the others.
        intent.forget(self._home.root, self._pending)
        for arrival in self._arrivals:
            safeio.discard(arrival.staged.path)
        if safeio.leftovers:
            # No process may publish it later.
            with contextlib.suppress(OSError, MailError), self._home.locked():
                pass


def prepare(home: Home, name: str, messages: Sequence[NewMessage], token: str = "") -> PreparedMessages:
    """Do steps 1 to 3. Raises: as `append`."""
    arrivals = sync_messages(messages)
    with home.changing(), home.dotlocked([existing_paths(home, name).directory]):
        state = sync_uidlist(home, name)
        home.check_messages(state, len(arrivals))
        addition = Addition(home)
        addition.check(sum(arrival.size for arrival in arrivals), len(arrivals))
        name_files(home, state, arrivals)
        save(home, state, [])
        home.expect_intents()
        pending = write_intent(home, state, arrivals, token)
        addition.done()
    for arrival in arrivals:
        arrival.staged.release()
    return PreparedMessages(home, pending, arrivals)
