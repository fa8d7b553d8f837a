"""One copy of a message, for one user here: what its filer plans, at once or prepared for later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from mailserver.cancellation import shielded
from mailserver.errors import StoreUnavailable
from mailserver.filing.interfaces import Filer, FilingRecipient, MessageRejected, Plan
from mailserver.filing.stored_message import StoredMessage
from mailserver.queue.interfaces import Content
from mailserver.store.interfaces import Account
from mailserver.store.live import LiveAccount
from mailserver.store.receiving import Appended, Delivery, NewMessage, Prepared

T = TypeVar("T")


class NotOneFile(Exception):
    """The plan has no file, or several: the copy is prepared instead of appended."""


def _uncancelled(operation: Callable[[], T]) -> T:
    """Run an operation to its end, also for a session that has ended meanwhile."""
    with shielded():
        return operation()


class LocalCopy:
    """One copy. `prefix`: the fields before the message."""

    def __init__(
        self,
        live: LiveAccount,
        filer: Filer,
        *,
        address: str,
        detail: str = "",
        sender: str = "",
        prefix: bytes = b"",
    ) -> None:
        self.mailboxes: tuple[str, ...] = ()
        """Where it is filed, once that is planned."""
        self._live = live
        self._filer = filer
        self._address = address
        self._detail = detail
        self._sender = sender
        self._prefix = prefix
        self._prepared: Sequence[Prepared] = ()

    async def append(self, content: Content) -> Appended:
        """File one copy: synced and visible. Raises: NotOneFile, MessageRejected, NoSpace, InUse, StoreUnavailable, ..."""
        message = StoredMessage(self._prefix, content)

        def stage(account: Account) -> Delivery:
            with message:
                plan = self._plan(account, message)
                if len(plan.files) != 1:
                    raise NotOneFile
                [(mailbox, flags)] = plan.files
                return Delivery(mailbox, [NewMessage(message.stage(account), flags)])

        return await self._live.deliver(stage)

    async def prepare(self, content: Content, token: str = "") -> None:
        """Prepare what is planned: `publish` then cannot fail, not even by a crash. Raises: as append."""
        message = StoredMessage(self._prefix, content)

        def prepare() -> Sequence[Prepared]:
            with message:
                return self._prepare(message, token)

        try:
            self._prepared = await self._live.run(prepare)
        finally:
            self._live.report_quota()

    async def publish(self) -> None:
        """Make the prepared messages visible. Raises: the first failure, once all were tried."""
        prepared, self._prepared = self._prepared, ()
        failures: list[Exception] = []
        for each in prepared:
            try:
                appended = await self._live.run(partial(_uncancelled, each.publish))
            except Exception as error:
                failures.append(error)
            else:
                self._live.poke(appended.mailbox, ())
        if failures:
            raise failures[0]

    async def abort(self) -> None:
        """Drop what is prepared. Harmless when repeated, and after publish."""
        prepared, self._prepared = self._prepared, ()
        for each in prepared:
            await self._live.run(partial(_uncancelled, each.abort))

    async def run(self, operation: Callable[[], T]) -> T:
        """Run a blocking operation to its end, in the account's thread."""
        return await self._live.run(partial(_uncancelled, operation))

    def _plan(self, account: Account, message: StoredMessage) -> Plan:
        plan = self._filer.plan(message, FilingRecipient(account, self._address, self._detail, self._sender))
        if plan.reject:
            raise MessageRejected(_one_line(plan.reject))
        if plan.redirects:
            raise StoreUnavailable("messages cannot be redirected")
        self.mailboxes = tuple(mailbox for mailbox, _flags in plan.files)
        return plan

    def _prepare(self, message: StoredMessage, token: str) -> Sequence[Prepared]:
        account = self._live.account
        prepared: list[Prepared] = []
        try:
            for mailbox, flags in self._plan(account, message).files:
                staged = message.stage(account)
                try:
                    prepared.append(account.prepare(mailbox, [NewMessage(staged, flags)], token))
                except BaseException:
                    staged.abort()
                    raise
        except BaseException:
            for each in prepared:
                each.abort()
            raise
        return prepared


def _one_line(reason: str) -> str:
    """Fold a text of the recipient into one line of ASCII."""
    words = " ".join(reason.split()).encode("ascii", "replace").decode("ascii")
    return "".join(filter(str.isprintable, words))[:400] or MessageRejected.text
