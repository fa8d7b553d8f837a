"""Delivery of a message into the mailbox of one local recipient."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from mailserver.cancellation import shielded
from mailserver.errors import BadMailboxName, NoSuchMailbox
from mailserver.smtp.incoming import Incoming
from mailserver.store.interfaces import Account
from mailserver.store.live import LiveAccount
from mailserver.store.receiving import Appended, Delivery, NewMessage, Prepared, StagedMessage

T = TypeVar("T")


def _uncancelled(operation: Callable[[], T]) -> T:
    """Run an operation to its end, also for a session that has ended meanwhile."""
    with shielded():
        return operation()


def choose_folder(account: Account, detail: str) -> str:
    """The mailbox that the detail of an address names, or INBOX if there is none (RFC 5233 4)."""
    if not detail or (detail.isascii() and detail.upper() == "INBOX"):
        return "INBOX"
    try:
        account.mailbox(detail)
    except (NoSuchMailbox, BadMailboxName):
        return "INBOX"
    return detail


class LocalCopy:
    """One copy of a message: the recipient's account, the detail of the address, the fields before the message."""

    def __init__(self, live: LiveAccount, detail: str, prefix: bytes) -> None:
        self.folder = "INBOX"
        """The mailbox of the copy, once it is delivered."""
        self._live = live
        self._detail = detail
        self._prefix = prefix
        self._prepared: Prepared | None = None

    async def append(self, incoming: Incoming) -> Appended:
        """Deliver: synced and visible. Raises: NoSpace, InUse, StoreUnavailable, ..."""

        def deliver(begin: Callable[[], StagedMessage]) -> Awaitable[Appended]:
            return self._live.deliver(lambda _account: self._end(begin(), lambda new: Delivery(self.folder, [new])))

        return await self._put(incoming, deliver)

    async def prepare(self, incoming: Incoming) -> None:
        """Prepare the copy: `publish` then cannot fail, not even by a crash. Raises: as append."""
        account = self._live.account

        def prepare(begin: Callable[[], StagedMessage]) -> Awaitable[Prepared]:
            return self._live.run(lambda: self._end(begin(), lambda new: account.prepare(self.folder, [new])))

        try:
            self._prepared = await self._put(incoming, prepare)
        finally:
            self._live.report_quota()

    async def publish(self) -> Appended:
        """Make the prepared copy visible."""
        prepared = self._prepared
        assert prepared is not None
        appended = await self._live.run(partial(_uncancelled, prepared.publish))
        self._live.poke(appended.mailbox, ())
        return appended

    async def abort(self) -> None:
        """Drop the prepared copy. Harmless when repeated, and after publish."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._live.run(partial(_uncancelled, prepared.abort))

    async def _put(self, incoming: Incoming, keep: Callable[[Callable[[], StagedMessage]], Awaitable[T]]) -> T:
        """Stage and store the copy in one turn of the account.

        `Incoming` has written the message once, however many copies there are: a file is copied within the kernel, behind
        the fields of each copy.
        """
        text, in_file = incoming.in_memory, incoming.in_file
        if in_file is None:
            assert text is not None
            return await keep(lambda: self._begin(text))
        start, descriptor, offset, count = in_file
        # A descriptor of its own: the operation may outlive the session, which closes that of the file.
        descriptor = os.dup(descriptor)

        def begin() -> StagedMessage:
            try:
                return self._begin(start, (descriptor, offset, count))
            finally:
                os.close(descriptor)

        return await keep(begin)

    def _begin(self, text: bytes, rest: tuple[int, int, int] | None = None) -> StagedMessage:
        """Stage the copy, in the account's thread. `rest`: descriptor, offset and number of the octets behind the text."""
        staged = self._live.account.stage()
        try:
            staged.write(self._prefix + text)
            if rest is not None:
                staged.copy(*rest)
        except BaseException:
            staged.abort()
            raise
        return staged

    def _end(self, staged: StagedMessage, put: Callable[[NewMessage], T]) -> T:
        try:
            self.folder = choose_folder(self._live.account, self._detail)
            return put(NewMessage(staged))
        except BaseException:
            staged.abort()
            raise
