"""The copies of a message for several users here: all of them become visible, or none."""

from __future__ import annotations

from typing import Final

from mailserver.auth.interfaces import User
from mailserver.errors import MailError, TooManyEnds
from mailserver.session.channel import Channel
from mailserver.smtp.concurrency import gather_limited
from mailserver.smtp.delivery import LocalCopy
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.session import Services
from mailserver.store.live import LiveAccount

MAX_COPIES: Final = 1000
"""Copies of one message: as many as one address may lead to. A larger number of recipients is one of copies, too."""


def check_copies(copies: int, max_recipients: int) -> None:
    """Raises: TooManyEnds, by which the client sends to the other recipients in another transaction (RFC 5321 4.5.3.1.10)."""
    if copies > most_copies(max_recipients):
        raise TooManyEnds


def most_copies(max_recipients: int) -> int:
    """Copies that one message may have, where a transaction may have that many recipients."""
    return max(MAX_COPIES, max_recipients)


class LocalCopies:
    """The copies of one message. Prepared copies survive a crash, and their publication cannot fail any more."""

    def __init__(self, channel: Channel, services: Services) -> None:
        self._channel = channel
        self._services = services
        self._accounts: list[LiveAccount] = []
        self._copies: list[LocalCopy] = []

    async def add(self, user: User, detail: str, prefix: bytes) -> LocalCopy:
        """Add a copy. `prefix`: the fields before the message. Raises: MailError if the account cannot be opened."""
        services = self._services
        live = await services.accounts.open(user.name, user.home, services.quotas.of_user(user))
        self._accounts.append(live)
        copy = LocalCopy(live, detail, prefix)
        self._copies.append(copy)
        return copy

    async def prepare(self, incoming: Incoming) -> None:
        """Prepare all copies. Raises: the first failure, once all were tried."""
        works = [_prepare(copy, incoming) for copy in self._copies]
        for failure in await gather_limited(self._services.gather, works):
            if failure is not None:
                raise failure

    async def publish(self) -> None:
        """Make the prepared copies visible. The next holder of an account's lock publishes what fails here."""
        copies, self._copies = self._copies, []
        await gather_limited(self._services.gather, [self._publish(copy) for copy in copies])

    async def close(self) -> None:
        """Drop what was prepared and is not published, and release the accounts. Harmless when repeated."""
        copies, self._copies = self._copies, []
        for copy in copies:
            await copy.abort()
        accounts, self._accounts = self._accounts, []
        for live in accounts:
            self._services.accounts.release(live)

    async def _publish(self, copy: LocalCopy) -> None:
        try:
            await copy.publish()
        except MailError as error:
            self._channel.log("publish-delayed", reason=error.reason)
        except Exception:
            self._channel.bug("publishing an accepted message")


async def _prepare(copy: LocalCopy, incoming: Incoming) -> Exception | None:
    """Prepare a copy and return its failure: the other copies are prepared all the same."""
    try:
        await copy.prepare(incoming)
    except Exception as error:
        return error
    return None
