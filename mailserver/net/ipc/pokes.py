"""Pokes between workers: a poke says that a mailbox changed, and is a datagram of mailbox ids, nothing else.

A worker that has the mailbox open reads the changes since its own modseq, so lost, repeated or reordered pokes do no harm.
Losses are repaired:

*   A socket that nobody reads holds about eleven datagrams. If a worker's socket is full, it gets no more ids, but
    CHECK_ALL as soon as there is room again.
*   A worker that has gone may have changed mailboxes without a poke: all mailboxes that are open here are compared with
    the disk.
*   The watcher compares every open mailbox every 30 seconds in any case.

The ids of one turn of the reactor go out together. CHECK_ALL is done for a few mailboxes a turn, as each takes a hop to the
account's thread. A change is sent to the workers that may have the mailbox open (`open_mailbox_table`): for any other a poke is a
wake-up and nothing else, which costs as much as a tenth of a STORE.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from errno import EAGAIN, ENOBUFS, ENOMEM, ENOTCONN
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.ipc.server_link import ServerLink
from mailserver.types import MailboxId, account_id

ID_SIZE: Final = 16
CHECK_ALL: Final = b"*"
"""The datagram that asks to compare every open mailbox."""
MOST_IDS: Final = 256
"""Ids in one datagram; more changes in one turn are sent as CHECK_ALL."""
AGAIN_AFTER: Final = 0.05
"""Seconds until a worker with a full socket is tried again."""
CHECKED_A_TURN: Final = 50
READ_A_TURN: Final = 64
"""Datagrams that are read in one turn of the reactor."""
_NO_ROOM: Final = frozenset({EAGAIN, ENOBUFS, ENOMEM})


class OpenMailbox(Protocol):
    """A mailbox that sessions of this worker have open."""

    def poked(self, names: Collection[str] | None = None) -> object:
        """Handle a poke, as `store.live.LiveMailbox.poked`."""


class OpenMailboxes(Protocol):
    """The open mailboxes of a worker: `store.live.LiveAccounts`."""

    def having_any(self, mailboxes: Iterable[MailboxId]) -> Iterable[OpenMailbox]:
        """Return those with one of these ids; where a Maildir was copied, two accounts have one each."""

    def all_open(self) -> Iterable[OpenMailbox]:
        """Return every one."""

    def poke_followed(self, ids: Collection[MailboxId]) -> None:
        """Handle the ids of accounts among these, whose changed mailboxes are the others."""

    def check_followed(self) -> None:
        """Compare the mailboxes of all accounts that sessions follow as a whole."""


@implementer(IReadDescriptor)
class Pokes:
    """Sends and receives the pokes of one worker."""

    def __init__(self, link: ServerLink, reactor: IReactorFDSet, clock: IReactorTime) -> None:
        self._link = link
        self._reactor = reactor
        self._clock = clock
        self._mailboxes: OpenMailboxes | None = None
        self._changed: dict[MailboxId, MailboxId] = {}
        """Mailbox -> the id of its account."""
        self._flushing: IDelayedCall | None = None
        self._full: set[int] = set()
        self._again: IDelayedCall | None = None
        self._to_check: deque[tuple[OpenMailbox, tuple[str, ...] | None]] = deque()
        self._checking: IDelayedCall | None = None

    def start(self, mailboxes: OpenMailboxes) -> None:
        """Receive pokes from now on."""
        self._mailboxes = mailboxes
        self._reactor.addReader(self)
        self._link.on_gone(self._gone)

    def stop(self) -> None:
        """Send and receive nothing more."""
        if self._mailboxes is None:
            return
        self._mailboxes = None
        self._reactor.removeReader(self)
        for call in (self._flushing, self._again, self._checking):
            if call is not None and call.active():
                call.cancel()
        self._to_check.clear()

    def send(self, user: str, mailbox: MailboxId) -> None:
        """Flag the mailbox as changed for the other workers at once, and poke them at the end of this turn of the reactor.

        Workers in which a session follows the whole account get the account's id with the mailbox's.
        """
        self._link.open_mailboxes.set_changed(mailbox)
        if not self._link.poke_send:
            return
        account = account_id(user)
        if not self._workers_with(mailbox) and not self._workers_with(account):
            return
        self._changed[mailbox] = account
        if self._flushing is None and self._mailboxes is not None:
            self._flushing = self._clock.callLater(0, self._flush)

    # --- sending

    def _flush(self) -> None:
        self._flushing = None
        changed, self._changed = self._changed, {}
        wanted: dict[int, dict[MailboxId, None]] = {}
        for mailbox, account in changed.items():
            for worker in self._workers_with(mailbox):
                wanted.setdefault(worker, {})[mailbox] = None
            for worker in self._workers_with(account):
                wanted.setdefault(worker, {}).update({mailbox: None, account: None})
        for worker, mailboxes in wanted.items():
            if worker not in self._full:
                self._send_datagram(worker, b"".join(mailboxes) if len(mailboxes) <= MOST_IDS else CHECK_ALL)

    def _workers_with(self, mailbox: MailboxId) -> list[int]:
        """Return the other workers that may have the mailbox open."""
        may_be_open = self._link.open_mailboxes.may_be_open
        return [worker for worker in self._link.poke_send if may_be_open(mailbox, worker)]

    def _send_datagram(self, worker: int, datagram: bytes) -> None:
        try:
            self._link.poke_send[worker].send(datagram)
        except ConnectionError:
            pass  # the worker has ended; `_gone` is called soon
        except OSError as error:
            if error.errno == ENOTCONN:
                return  # the same, from the second time on
            if error.errno not in _NO_ROOM:
                raise
            self._full.add(worker)
            if self._again is None:
                self._again = self._clock.callLater(AGAIN_AFTER, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        behind, self._full = self._full, set()
        for worker in behind:
            if worker in self._link.poke_send:
                self._send_datagram(worker, CHECK_ALL)

    # --- receiving

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._link.poke_receive.fileno()

    def logPrefix(self) -> str:
        """Name in the log."""
        return "pokes"

    def connectionLost(self, reason: Failure) -> None:
        """Handle the end of the reactor."""

    def doRead(self) -> None:
        """Read datagrams."""
        if self._mailboxes is None:
            return
        changed: dict[MailboxId, None] = {}
        for _ in range(READ_A_TURN):
            try:
                datagram = self._link.poke_receive.recv(MOST_IDS * ID_SIZE)
            except BlockingIOError:
                break
            except ConnectionError:
                continue  # reported once for a sender that has ended
            if len(datagram) % ID_SIZE or not datagram:
                self._check_all(())
                continue
            for at in range(0, len(datagram), ID_SIZE):
                changed[MailboxId(datagram[at : at + ID_SIZE])] = None
        for mailbox in changed:
            # Changes until now are read for the poke. Without this the next command would read them again.
            changed_too = self._link.open_mailboxes.take_changed(mailbox)
            for live in self._mailboxes.having_any({mailbox, *changed_too}):
                # The worker that changed the files has written the index: they need no comparison.
                live.poked(())
        self._mailboxes.poke_followed(changed)

    def _gone(self, worker: int) -> None:
        self._full.discard(worker)
        self._check_all(None)

    def _check_all(self, names: tuple[str, ...] | None) -> None:
        """Poke every open mailbox, a few a turn; `names` as for `LiveMailbox.poked`."""
        if self._mailboxes is None:
            return
        self._mailboxes.check_followed()
        waiting = {live for live, looked_for in self._to_check if looked_for is None or names is not None}
        self._to_check.extend((live, names) for live in self._mailboxes.all_open() if live not in waiting)
        if self._checking is None and self._to_check:
            self._checking = self._clock.callLater(0, self._check_some)

    def _check_some(self) -> None:
        self._checking = None
        for _ in range(min(CHECKED_A_TURN, len(self._to_check))):
            live, names = self._to_check.popleft()
            live.poked(names)
        if self._to_check:
            self._checking = self._clock.callLater(0, self._check_some)
