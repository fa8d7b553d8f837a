"""Putting a message into the mailbox of one local recipient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mailserver.errors import BadMailboxName, NoSuchMailbox
from mailserver.smtp.incoming import Incoming
from mailserver.store.interfaces import Account, Appended, NewMessage, Prepared, Staged
from mailserver.store.live import LiveAccount

T = TypeVar("T")


def choose_folder(account: Account, detail: str) -> str:
    """The mailbox that the detail of an address names, or INBOX if there is none (RFC 5233 4)."""
    if not detail or detail.upper() == "INBOX":
        return "INBOX"
    try:
        account.mailbox(detail)
    except (NoSuchMailbox, BadMailboxName):
        return "INBOX"
    return detail


class LocalCopy:
    """One copy of a message: the recipient's account, the folder wished for, what is written before the message."""

    def __init__(self, live: LiveAccount, detail: str, prefix: bytes) -> None:
        self.folder = "INBOX"
        """Where it went, once it has gone there."""
        self._live = live
        self._detail = detail
        self._prefix = prefix
        self._prepared: Prepared | None = None

    async def append(self, incoming: Incoming) -> Appended:
        """Deliver: synced and visible. Raises: NoSpace, InUse, StoreUnavailable, ..."""
        appended = await self._put(incoming, lambda account, new: account.append(self.folder, [new]))
        self._live.poke(appended.mailbox, ())
        return appended

    async def prepare(self, incoming: Incoming) -> None:
        """Make it such that `publish` cannot fail, not even through a crash. Raises: as append."""
        self._prepared = await self._put(incoming, lambda account, new: account.prepare(self.folder, [new]))

    async def publish(self) -> Appended:
        """Make the prepared copy visible."""
        prepared = self._prepared
        assert prepared is not None
        appended = await self._live.run(prepared.publish)
        self._live.poke(appended.mailbox, ())
        return appended

    async def abort(self) -> None:
        """Forget the prepared copy. Harmless when repeated, and after publish."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            await self._live.run(prepared.abort)

    async def _put(self, incoming: Incoming, finish: Callable[[Account, NewMessage], T]) -> T:
        account = self._live.account

        def begin(data: bytes) -> Staged:
            staged = account.stage()
            try:
                staged.write(self._prefix + data)
            except BaseException:
                staged.abort()
                raise
            return staged

        def end(staged: Staged) -> T:
            try:
                self.folder = choose_folder(account, self._detail)
                return finish(account, NewMessage(staged))
            except BaseException:
                staged.abort()
                raise

        text = incoming.in_memory
        if text is not None:
            # The common case costs one turn of the account.
            return await self._live.run(lambda: end(begin(text)))
        staged = await self._live.run(lambda: begin(b""))
        try:
            async for piece in incoming.pieces():
                await self._live.run(lambda piece=piece: staged.write(piece))  # type: ignore[misc]
        except BaseException:
            await self._live.run(staged.abort)
            raise
        return await self._live.run(lambda: end(staged))
