"""Pokes between workers: "that mailbox changed", as datagrams of mailbox ids and nothing else.

Whoever hears of a mailbox that it has open reads what changed since its own modseq, so losing, repeating or reordering
pokes does no harm. What may be lost is repaired:

*   A socket that is not read takes about eleven datagrams. Where one is not taken, that worker is behind: it is sent no
    more ids, but, as soon as it takes datagrams again, CHECK_ALL.
*   A worker that has gone may have changed what it told nobody of: all that is open here is compared with the disk.
*   The watcher looks at every open mailbox every 30 seconds in any case.

The ids of one turn of the reactor go out together. A check of much is done a few mailboxes a turn, as each costs a hop
to the account's thread. Every other worker is told of every change: which ones have the mailbox open could be known
only from messages that may be under way, and a poke left out for that would delay the change by those 30 seconds.
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
from mailserver.types import MailboxId

ID_SIZE: Final = 16
CHECK_ALL: Final = b"*"
"""The datagram that says: compare all that you have open."""
MOST_IDS: Final = 256
"""Ids in one datagram; more changes in one turn are told as CHECK_ALL."""
AGAIN_AFTER: Final = 0.05
"""Seconds until a worker that is behind is tried again."""
CHECKED_A_TURN: Final = 50
READ_A_TURN: Final = 64
"""Datagrams read before others get their turn."""
_FULL: Final = frozenset({EAGAIN, ENOBUFS, ENOMEM})


class OpenMailbox(Protocol):
    """A mailbox that sessions of this worker have open."""

    def poked(self, names: Collection[str] | None = None) -> None:
        """As `store.live.LiveMailbox.poked`."""


class OpenMailboxes(Protocol):
    """What pokes are for: `store.live.LiveAccounts`."""

    def having(self, mailbox: MailboxId) -> Iterable[OpenMailbox]:
        """Those with that id; two accounts may have one each, where a Maildir was copied."""

    def all_open(self) -> Iterable[OpenMailbox]:
        """Every one."""


@implementer(IReadDescriptor)
class Pokes:
    """The end that one worker has."""

    def __init__(self, link: ServerLink, reactor: IReactorFDSet, clock: IReactorTime) -> None:
        self._link = link
        self._reactor = reactor
        self._clock = clock
        self._mailboxes: OpenMailboxes | None = None
        self._changed: dict[MailboxId, None] = {}
        self._flushing: IDelayedCall | None = None
        self._behind: set[int] = set()
        self._again: IDelayedCall | None = None
        self._to_check: deque[tuple[OpenMailbox, tuple[str, ...] | None]] = deque()
        self._checking: IDelayedCall | None = None

    def start(self, mailboxes: OpenMailboxes) -> None:
        """Hear others from now on."""
        self._mailboxes = mailboxes
        self._reactor.addReader(self)
        self._link.on_gone(self._gone)

    def stop(self) -> None:
        """Hear and tell nothing more."""
        if self._mailboxes is None:
            return
        self._mailboxes = None
        self._reactor.removeReader(self)
        for call in (self._flushing, self._again, self._checking):
            if call is not None and call.active():
                call.cancel()
        self._to_check.clear()

    def tell(self, _user: str, mailbox: MailboxId) -> None:
        """A mailbox was changed here: the others hear of it at the end of this turn of the reactor."""
        self._changed[mailbox] = None
        if self._flushing is None and self._mailboxes is not None:
            self._flushing = self._clock.callLater(0, self._flush)

    # --- sending

    def _flush(self) -> None:
        self._flushing = None
        changed, self._changed = self._changed, {}
        datagram = b"".join(changed) if len(changed) <= MOST_IDS else CHECK_ALL
        for worker in tuple(self._link.poke_send):
            if worker not in self._behind:
                self._send(worker, datagram)

    def _send(self, worker: int, datagram: bytes) -> None:
        try:
            self._link.poke_send[worker].send(datagram)
        except ConnectionError:
            pass  # it has ended, and `_gone` follows
        except OSError as error:
            if error.errno == ENOTCONN:
                return  # the same, said from the second time on
            if error.errno not in _FULL:
                raise
            self._behind.add(worker)
            if self._again is None:
                self._again = self._clock.callLater(AGAIN_AFTER, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        behind, self._behind = self._behind, set()
        for worker in behind:
            if worker in self._link.poke_send:
                self._send(worker, CHECK_ALL)

    # --- receiving

    def fileno(self) -> int:
        """For the reactor."""
        return self._link.poke_receive.fileno()

    def logPrefix(self) -> str:
        """For the reactor."""
        return "pokes"

    def connectionLost(self, reason: Failure) -> None:
        """For the reactor: at its end."""

    def doRead(self) -> None:
        """Datagrams are there."""
        if self._mailboxes is None:
            return
        changed: dict[MailboxId, None] = {}
        for _ in range(READ_A_TURN):
            try:
                datagram = self._link.poke_receive.recv(MOST_IDS * ID_SIZE)
            except BlockingIOError:
                break
            except ConnectionError:
                continue  # said once of a sender that has ended
            if len(datagram) % ID_SIZE or not datagram:
                self._check_all(())
                continue
            for at in range(0, len(datagram), ID_SIZE):
                changed[MailboxId(datagram[at : at + ID_SIZE])] = None
        for mailbox in changed:
            for live in self._mailboxes.having(mailbox):
                # The files need no look: whoever changed them has told the index.
                live.poked(())

    def _gone(self, worker: int) -> None:
        self._behind.discard(worker)
        self._check_all(None)

    def _check_all(self, names: tuple[str, ...] | None) -> None:
        """Poke all that is open, a few a turn; `names` as for `LiveMailbox.poked`."""
        if self._mailboxes is None:
            return
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
