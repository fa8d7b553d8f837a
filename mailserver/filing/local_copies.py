"""The copies of a message for users here: all of them become visible, or none.

One copy is appended. Several are prepared with one token, which the queue's table of decisions then gets in one commit: from
then on they are published, by this process or, once it is dead, by the next one that opens each account. Before it, they
are dropped. Where there is no table, a copy that was prepared is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from attrs import field, frozen

from mailserver.auth.interfaces import User
from mailserver.errors import MailError, MailLoop, TooManyEnds
from mailserver.filing.concurrency import Gather, gather_in_turn, gather_limited
from mailserver.filing.detail import DetailFiler
from mailserver.filing.interfaces import CopyDecisions, Filer
from mailserver.filing.local_copy import LocalCopy, NotOneFile
from mailserver.filing.trace import trace_fields
from mailserver.queue.interfaces import Content
from mailserver.queue.tokens import make_token
from mailserver.store.live import LiveAccount, LiveAccounts
from mailserver.store.receiving import Appended
from mailserver.types import Quota

MAX_COPIES: Final = 1000
"""Copies of one message: as many as one address may lead to. A larger number of recipients is one of copies, too."""


def check_copies(copies: int, max_recipients: int) -> None:
    """Raises: TooManyEnds, by which the client sends to the other recipients in another transaction (RFC 5321 4.5.3.1.10)."""
    if copies > most_copies(max_recipients):
        raise TooManyEnds


def most_copies(max_recipients: int) -> int:
    """Copies that one message may have, where a transaction may have that many recipients."""
    return max(MAX_COPIES, max_recipients)


class FilingLog(Protocol):
    """Where failures are reported that nobody waits for."""

    def log(self, event: str, **fields: object) -> None:
        """Log an event."""

    def bug(self, doing: str) -> None:
        """Log the exception that is being handled."""


@frozen
class Filing:
    """What all deliveries share."""

    accounts: LiveAccounts
    quota_of: Callable[[User], Quota]
    """The limits of a user that was just looked up."""
    filer: Filer = field(factory=DetailFiler)
    decisions: CopyDecisions | None = None
    """Decides about messages with several copies; None: nothing does, and a crash may leave some of them."""
    gather: Gather = gather_in_turn
    """Runs coroutines for several copies concurrently."""


class LocalCopies:
    """The copies of one message. Prepared copies survive a crash, and their publication cannot fail any more."""

    def __init__(self, log: FilingLog, filing: Filing, sender: str = "", earlier: frozenset[str] = frozenset()) -> None:
        """`sender`: of the envelope. `earlier`: recipients in whose copies the message was before, by `trace`."""
        self._log = log
        self._filing = filing
        self._sender = sender
        self._earlier = earlier
        self._accounts: list[LiveAccount] = []
        self._copies: list[LocalCopy] = []
        self._token = ""
        self._decided = False

    async def add(self, user: User, detail: str, address: str, fields: bytes = b"") -> LocalCopy:
        """Add a copy. `address`: its recipient. `fields`: the fields before the message but those of final delivery.

        Raises: MailLoop, and MailError if the account cannot be opened.
        """
        if address.lower() in self._earlier:
            raise MailLoop
        filing = self._filing
        live = await filing.accounts.open(user.name, user.home, filing.quota_of(user))
        self._accounts.append(live)
        prefix = trace_fields(self._sender, address) + fields
        copy = LocalCopy(live, filing.filer, address=address, detail=detail, sender=self._sender, prefix=prefix)
        self._copies.append(copy)
        return copy

    async def file(self, content: Content) -> Appended | None:
        """File all copies, or none. Return the place of a message that has only one. Raises: the first failure."""
        if len(self._copies) == 1:
            try:
                return await self._copies[0].append(content)
            except NotOneFile:
                pass
        await self.prepare(content, is_decided=True)
        await self.decide()
        await self.publish()
        return None

    async def prepare(self, content: Content, *, is_decided: bool = False) -> None:
        """Prepare all copies. Raises: the first failure, once all were tried.

        `is_decided`: also a single copy waits for `decide`, as several do.
        """
        decisions = self._filing.decisions
        if decisions is not None and (is_decided or len(self._copies) > 1):
            # Before the token is made: one that is older than the table counts as decided.
            await self._copies[0].run(decisions.get_ready)
            self._token = make_token(int(time.time()))
        works = [_prepare(copy, content, self._token) for copy in self._copies]
        for failure in await gather_limited(self._filing.gather, works):
            if failure is not None:
                raise failure

    async def decide(self) -> None:
        """Decide that prepared copies are published, durably. Raises: MailError; nothing is decided then."""
        decisions, token = self._filing.decisions, self._token
        if token and decisions is not None:
            await self._copies[0].run(lambda: decisions.decide(token))
            self._decided = True

    async def publish(self) -> None:
        """Make the prepared copies visible. The next holder of an account's lock publishes what fails here."""
        copies, self._copies = self._copies, []
        results = await gather_limited(self._filing.gather, [self._publish(copy) for copy in copies])
        if self._decided and all(results):
            # What failed is found by its token after a crash.
            await self._forget(copies[0])

    async def close(self) -> None:
        """Drop what was prepared and is not published, and release the accounts. Harmless when repeated."""
        copies, self._copies = self._copies, []
        if copies and self._decided:
            # First: of copies that are dropped one by one, a crash must not leave the others to be published.
            await self._forget(copies[0])
        for copy in copies:
            await copy.abort()
        accounts, self._accounts = self._accounts, []
        for live in accounts:
            self._filing.accounts.release(live)

    async def _forget(self, copy: LocalCopy) -> None:
        decisions, token = self._filing.decisions, self._token
        assert decisions is not None
        self._decided = False
        try:
            await copy.run(lambda: decisions.forget([token]))
        except MailError as error:
            # Its row is of no use any more, and is swept later.
            self._log.log("decision-kept", reason=error.reason)

    async def _publish(self, copy: LocalCopy) -> bool:
        try:
            await copy.publish()
        except MailError as error:
            self._log.log("publish-delayed", reason=error.reason)
        except Exception:
            self._log.bug("publishing an accepted message")
        else:
            return True
        return False


async def _prepare(copy: LocalCopy, content: Content, token: str) -> Exception | None:
    """Prepare a copy and return its failure: the other copies are prepared all the same."""
    try:
        await copy.prepare(content, token)
    except Exception as error:
        return error
    return None
