"""The session of one SMTP or LMTP connection: its state, reading data, writing replies.

`transaction` has the work for one message. `submission` and `lmtp` have a subclass for each role.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NoReturn

from attrs import field, frozen

from mailserver.auth.interfaces import Authenticator
from mailserver.config.model import Limits, Mail
from mailserver.errors import BadSyntax, ConnectionLost, MailError, PrivacyRequired, UnknownCommand
from mailserver.filing.concurrency import Gather, gather_in_turn
from mailserver.filing.detail import DetailFiler
from mailserver.filing.interfaces import CopyDecisions, Filer
from mailserver.filing.local_copies import Filing
from mailserver.session.channel import Channel, Wake
from mailserver.session.line_session import LineSession
from mailserver.session.lines import LineFault
from mailserver.session.quotas import UserQuotas
from mailserver.smtp.address import Address
from mailserver.smtp.command import CommandSpec, Table
from mailserver.smtp.postmaster import Postmaster
from mailserver.smtp.spool import Spool
from mailserver.smtp.transaction import Transaction
from mailserver.smtp.wire import MAX_LINE, Reply, reply, reply_to
from mailserver.store.live import LiveAccounts

MOST_LABELS = 128
"""Labels that a domain name has at most (RFC 1035 2.3.4: 255 octets)."""
MIN_PROGRESS = 1024
"""Octets of message data that must come within each `transfer_timeout`."""
MAX_SWALLOWED = 64 * 1024 * 1024
"""Octets of a refused message, beyond the size limit, that are read to stay in step."""
MAX_SWALLOWED_UNKNOWN = 1024 * 1024
"""Octets of a chunk that are read to stay in step where no message may come."""


class LineRefused(BadSyntax):
    """A line that is too long or malformed (RFC 5321 4.5.3.1.9)."""

    smtp_reply: ClassVar[tuple[int, str]] = (500, "5.5.2")


@frozen(kw_only=True)
class Services:
    """The objects and settings that sessions of both roles share."""

    table: Table
    """The commands and extensions of the role: `tables.SUBMISSION` or `tables.LMTP`."""
    authenticator: Authenticator
    accounts: LiveAccounts
    hostname: str
    mail: Mail
    limits: Limits
    spool: Spool
    clock: Callable[[], float] = field(default=time.time)
    """Seconds since 1970, for Received and Date."""
    quotas: UserQuotas = UserQuotas()
    postmaster: Postmaster = Postmaster()
    """The configuration of mail to postmaster."""
    gather: Gather = gather_in_turn
    """Runs coroutines for the recipients of one message concurrently."""
    filer: Filer = field(factory=DetailFiler)
    """Plans where messages for users here go."""
    decisions: CopyDecisions | None = None
    """Decides about messages with several copies here; see `filing.local_copies`."""

    @property
    def filing(self) -> Filing:
        """What deliveries to users here share."""
        return Filing(self.accounts, self.quotas.of_user, self.filer, self.decisions, self.gather)


class Session(LineSession):
    """The session, as commands use it."""

    protocol = "SMTP"
    banner: ClassVar[str]
    """The protocol's name in the greeting."""
    mailbox_name: ClassVar[str | None] = None
    """For the administrator's list of sessions: no mailbox is ever open."""

    def __init__(self, channel: Channel, services: Services) -> None:
        super().__init__(channel, services.limits, services.table.commands, MAX_LINE)
        self.common = services
        self.table = services.table
        self.hello: str | None = None
        """The name the client gave with EHLO, HELO or LHLO."""
        self.extended = False
        """Did it send EHLO or LHLO?"""
        self.transaction: Transaction | None = None
        self.receiving = False
        """Is message data expected? After a bug the stream is then out of step."""
        self._messages = 0
        self._progress_deadline = 0.0
        self._progress_left = 0

    def verifies_here(self, name: str) -> bool:
        """Would mail programs take this authserv-id for this server: its name, a domain here, or a name within one?"""
        is_local = self.common.authenticator.is_local_domain
        labels = name.rsplit(".", MOST_LABELS)[-MOST_LABELS:]
        return name == self.common.hostname or any(is_local(".".join(labels[at:])) for at in range(len(labels)))

    @property
    @abstractmethod
    def max_recipients(self) -> int:
        """Recipients of one message."""

    @property
    @abstractmethod
    def must_start_tls(self) -> bool:
        """Must TLS be started first?"""

    @abstractmethod
    def require_login(self) -> None:
        """Raises: MailError if nothing may be sent before a login."""

    @abstractmethod
    async def begin(self, sender: Address | None, parameters: Mapping[str, object]) -> Transaction:
        """Begin the transaction of a MAIL command, whose parameters have been parsed. Raises: MailError."""

    def ehlo_lines(self) -> list[str]:
        """The extensions that EHLO or LHLO lists now."""
        return [line for extension in self.table.extensions if (line := extension.line(self)) is not None]

    def new_message_name(self) -> str:
        """The id of a message in its Received field and in the log."""
        self._messages += 1
        return f"{self.channel.info.session_id}.{self._messages}"

    @property
    def hostname(self) -> str:
        """The host name for the client: the one that it asked for, or the server's own."""
        return self.channel.info.asked_host or self.common.hostname

    def greet(self) -> None:
        """See LineSession."""
        self.reply(reply(220, None, f"{self.hostname} {self.banner} ready"))

    async def leave(self) -> None:
        """See LineSession. A message that is not whole is dropped."""
        await self.reset()

    def reply(self, answer: Reply) -> None:
        """Write a reply."""
        self.channel.write(answer.write())

    def refuse(self, error: MailError) -> None:
        """See LineSession."""
        self.reply(reply_to(error))

    def answer_bug(self) -> None:
        """See LineSession."""
        if self.receiving:
            self.cut(reply(421, "4.3.0", "internal error, closing the connection"), "cut")
        self.reply(reply(451, "4.3.0", "internal error"))

    def cut(self, answer: Reply, event: str) -> NoReturn:
        """Send a last reply, log an event, and end the connection. Raises: ConnectionLost."""
        self.reply(answer)
        self.log(event)
        self.end()
        raise ConnectionLost

    def end_for_timeout(self) -> NoReturn:
        """See LineSession (RFC 5321 4.5.3.2)."""
        self.cut(reply(421, "4.4.2", f"{self.hostname} timeout, closing the connection"), "timeout")

    def end_for_errors(self) -> None:
        """See LineSession."""
        self.cut(reply(421, "4.7.0", "too many errors, closing the connection"), "too-many-errors")

    async def reset(self) -> None:
        """Drop the transaction (RFC 5321 4.1.1.5)."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            await transaction.close()

    def message_accepted(self) -> None:
        """Reset the count of errors after a message."""
        self._errors = 0

    def expect_data(self) -> None:
        """Prepare for message data, which `read_data` returns."""
        self.receiving = True
        self._progress_deadline = self.channel.now() + self.limits.transfer_timeout
        self._progress_left = MIN_PROGRESS

    async def read_data(self, count: int | None = None) -> bytes:
        """Some octets, at most `count`, at least one. Raises: ConnectionLost, also when they come too slowly or not at all."""
        if not (data := self.reader.take(count)):
            now = self.channel.now()
            read = await self.channel.read(self._progress_deadline - now) if now < self._progress_deadline else None
            if read is None or isinstance(read, Wake):
                self.end_for_timeout()
            self.reader.receive_data(read)
            data = self.reader.take(count)
        self._progress_left -= len(data)
        if self._progress_left <= 0:
            self.expect_data()
        return data

    def find_command(self, line: bytes | LineFault, word: bytes) -> CommandSpec:
        """See LineSession."""
        spec = None if isinstance(line, LineFault) else self.table.commands.get(word)
        if self.must_start_tls and not (spec and spec.before_tls):
            raise PrivacyRequired("start TLS first: nothing else is done in clear text here")
        if isinstance(line, LineFault):
            raise LineRefused(line.value)
        if spec is None:
            raise UnknownCommand
        return spec
