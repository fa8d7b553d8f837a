"""Mail of the server to one of its users, put into INBOX by the store itself.

No server carries it, so it cannot be refused or loop; and it says that no program may answer it (RFC 3834 5).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Any

from mailserver.errors import MailError
from mailserver.idn import ascii_name
from mailserver.store.interfaces import Account
from mailserver.store.receiving import Delivery, NewMessage

if TYPE_CHECKING:
    from mailserver.store.live.accounts import LiveAccounts

_log = logging.getLogger(__name__)


class Notices:
    """Delivers messages to users."""

    def __init__(
        self,
        accounts: Callable[[], LiveAccounts],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`spawn` runs a coroutine and logs its exceptions."""
        self.hostname = "localhost"
        """Domain of the sender where the user's name has none."""
        self._accounts = accounts
        self._spawn = spawn
        self._clock = clock

    def send(self, user: str, home: str | None, subject: str, text: str) -> None:
        """Deliver a message, after the operation that has caused it. A failure is logged."""
        self._spawn(self._send(user, home, subject, text))

    async def _send(self, user: str, home: str | None, subject: str, text: str) -> None:
        try:
            await self.deliver(user, home, lambda: (subject, text))
        except MailError as error:
            _log.warning("the message %r to user %s failed: %s", subject, user, error.reason)

    async def deliver(self, user: str, home: str | None, write: Callable[[], tuple[str, str]]) -> None:
        """Deliver a message. `write`: return subject and text, in the account's thread. Raises: MailError."""
        accounts = self._accounts()
        live = await accounts.open(user, home)
        try:
            await live.deliver(lambda account: self._stage(account, *write()))
        finally:
            accounts.release(live)

    def _stage(self, account: Account, subject: str, text: str) -> Delivery:
        """Stage the message, in the account's thread."""
        data = compose(account.user, subject, text, self.hostname, self._clock())
        staged = account.stage()
        try:
            staged.write(data)
        except BaseException:
            staged.abort()
            raise
        return Delivery("INBOX", [NewMessage(staged)], beyond_quota=True)


def compose(user: str, subject: str, text: str, hostname: str, now: float) -> bytes:
    """Return the message."""
    # Where a back end has given the domain no ASCII form, a field of addresses cannot have it.
    domain = (ascii_name(user.rpartition("@")[2]) if "@" in user else None) or hostname
    message = EmailMessage(policy.SMTP)
    message["Return-Path"] = "<>"
    message["From"] = Address("Postmaster", "postmaster", domain)
    message["To"] = user if user.isascii() and "@" in user else "undisclosed-recipients:;"
    message["Subject"] = subject
    message["Date"] = formatdate(now)
    message["Message-ID"] = make_msgid(domain=domain)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message.as_bytes()
