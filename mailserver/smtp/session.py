"""One SMTP or LMTP connection: its state, the reading of commands and data, the writing of replies.

What concerns one message is in `transaction`; what the two roles do differently in `submission` and `lmtp`, whose
sessions are children of this one. Commands run one after another, so pipelined ones are answered in their order
(RFC 2920 3.2).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NoReturn

from attrs import field, frozen

from mailserver.auth.interfaces import Authenticator, User
from mailserver.channel import Channel, Wake
from mailserver.config.model import Limits, Mail
from mailserver.errors import BadSyntax, ConnectionLost, MailError, PrivacyRequired, UnknownCommand
from mailserver.lines import LineReader, Refused, is_http
from mailserver.smtp.address import Command
from mailserver.smtp.spec import CommandSpec
from mailserver.smtp.spool import Spool
from mailserver.smtp.transaction import Transaction
from mailserver.smtp.wire import MAX_LINE, Reply, reply, reply_to
from mailserver.store.live import LiveAccounts

MAX_ERRORS = 20
"""Malformed, unknown or misplaced commands between two messages."""
PACE = 64
"""Pipelined commands after which the client must have taken enough of the replies."""
MIN_PROGRESS = 1024
"""Octets of message data that must come within each `transfer_timeout`."""
MAX_SWALLOWED = 64 * 1024 * 1024
"""Octets of a refused message, beyond the size limit, that are read to stay in step."""
MAX_SWALLOWED_UNKNOWN = 1024 * 1024
"""Octets of a chunk that are read to stay in step where no message may come."""


class LineRefused(BadSyntax):
    """A line that is too long, or not one (RFC 5321 4.5.3.1.9)."""

    smtp_reply: ClassVar[tuple[int, str]] = (500, "5.5.2")


@frozen(kw_only=True)
class Services:
    """What sessions of both roles share."""

    authenticator: Authenticator
    accounts: LiveAccounts
    hostname: str
    mail: Mail
    limits: Limits
    spool: Spool
    clock: Callable[[], float] = field(default=time.time)
    """Seconds since 1970, for Received and Date."""


class Session(ABC):
    """What commands see."""

    table: ClassVar[Mapping[bytes, CommandSpec]]
    banner: ClassVar[str]
    """The protocol's name in the greeting."""
    mailbox_name: ClassVar[str | None] = None
    """What the administrator sees: none is ever open."""

    def __init__(self, channel: Channel, services: Services) -> None:
        self.channel = channel
        self.common = services
        self.reader = LineReader(MAX_LINE)
        self.hello: str | None = None
        """The name the client gave with EHLO, HELO or LHLO."""
        self.extended = False
        """Did it say EHLO or LHLO?"""
        self.user: User | None = None
        self.transaction: Transaction | None = None
        self.receiving = False
        """Is message data expected? An unforeseen failure then cannot leave the stream in step."""
        self.ended = False
        self._errors = 0
        self._unpaced = 0
        self._messages = 0
        self._progress_deadline = 0.0
        self._progress_left = 0
        self.login_deadline = channel.now() + services.limits.login_time

    @property
    @abstractmethod
    def timeout(self) -> float:
        """Seconds that may pass without a command (RFC 5321 4.5.3.2.7)."""

    @property
    @abstractmethod
    def max_recipients(self) -> int:
        """Recipients of one message."""

    @property
    @abstractmethod
    def must_start_tls(self) -> bool:
        """Is nothing done before STARTTLS?"""

    @property
    @abstractmethod
    def must_log_in(self) -> bool:
        """Has the client yet to log in, so that its time is short?"""

    @abstractmethod
    def require_login(self) -> None:
        """Raises: MailError if nothing may be sent before a login."""

    @abstractmethod
    async def begin(self, command: Command) -> Transaction:
        """The transaction that a MAIL command begins. Raises: MailError."""

    def keywords(self) -> list[str]:
        """What EHLO or LHLO offers now."""
        info = self.channel.info
        offered = ["PIPELINING", f"SIZE {self.common.mail.max_message_size}", "8BITMIME", "CHUNKING"]
        if info.starttls_offered and info.tls is None:
            offered.append("STARTTLS")
        return [*offered, "ENHANCEDSTATUSCODES"]

    def new_message_name(self) -> str:
        """The id of a message in its Received field and in the log."""
        self._messages += 1
        return f"{self.channel.info.session_id}.{self._messages}"

    async def run(self) -> None:
        """Serve until the client quits, is gone or is cut. A message that is not whole by then is forgotten."""
        try:
            self.reply(reply(220, None, f"{self.common.hostname} {self.banner} ready"))
            while not self.ended:
                await self._run_line(await self.read_line())
        except ConnectionLost:
            pass
        finally:
            await self.reset()
            if self.user is not None:
                self.channel.log("logout", user=self.user.name)
            self.channel.close()

    def reply(self, answer: Reply) -> None:
        """Write a reply."""
        self.channel.write(answer.write())

    def end(self) -> None:
        """Read no further command."""
        self.ended = True

    def cut(self, answer: Reply, event: str) -> NoReturn:
        """A last reply, a log line, and the end of the connection. Raises: ConnectionLost."""
        self.reply(answer)
        self.channel.log(event, user=self.user.name if self.user else None)
        self.ended = True
        raise ConnectionLost

    async def reset(self) -> None:
        """Forget the transaction (RFC 5321 4.1.1.5)."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            await transaction.close()

    def message_accepted(self) -> None:
        """A message came through: the count of errors begins anew."""
        self._errors = 0

    async def read_line(self) -> bytes | Refused:
        """The client's next line. Raises: ConnectionLost, also when its time has passed."""
        began: float | None = None
        while (line := self.reader.next_line()) is None:
            now = self.channel.now()
            if self.reader.pending and began is None:
                began = now
            # A whole line must come within the time, however its octets drip.
            deadline = now + self.timeout if began is None else began + self.common.limits.transfer_timeout
            if self.must_log_in:
                deadline = min(deadline, self.login_deadline)
            data = await self.channel.read(deadline - now) if now < deadline else Wake.TIMEOUT
            if isinstance(data, Wake):
                self.cut(reply(421, "4.4.2", f"{self.common.hostname} timeout, closing the connection"), "timeout")
            self.reader.receive_data(data)
            self._unpaced = 0
        self._unpaced += 1
        if self._unpaced % PACE == 0:
            await self.channel.drain()
        return line

    def expect_data(self) -> None:
        """Message data follows: `read_data` may be called."""
        self.receiving = True
        self._progress_deadline = self.channel.now() + self.common.limits.transfer_timeout
        self._progress_left = MIN_PROGRESS

    async def read_data(self, count: int | None = None) -> bytes:
        """Some octets, at most `count`, at least one. Raises: ConnectionLost, also when they drip or stay away."""
        if not (data := self.reader.take(count)):
            now = self.channel.now()
            read = await self.channel.read(self._progress_deadline - now) if now < self._progress_deadline else None
            if read is None or isinstance(read, Wake):
                self.cut(reply(421, "4.4.2", f"{self.common.hostname} timeout, closing the connection"), "timeout")
            self.reader.receive_data(read)
            data = self.reader.take(count)
        self._progress_left -= len(data)
        if self._progress_left <= 0:
            self.expect_data()
        return data

    async def _run_line(self, line: bytes | Refused) -> None:
        word = (self.reader.head if isinstance(line, Refused) else line).partition(b" ")[0].upper()
        # A line that begins as a header field does is no command either, whatever came before it.
        if is_http(word):
            self.channel.log("http-request")
            self.end()
            return
        try:
            await self._find_command(line, word).run(self, b"" if isinstance(line, Refused) else line[len(word) + 1 :])
        except ConnectionLost:
            raise
        except MailError as error:
            self.reply(reply_to(error))
            if isinstance(error, BadSyntax | PrivacyRequired):
                self._count_error()
        except Exception:
            self.channel.bug(f"SMTP {word.decode('ascii', 'replace')}")
            if self.receiving:
                self.cut(reply(421, "4.3.0", "internal error, closing the connection"), "cut")
            self.reply(reply(451, "4.3.0", "internal error"))

    def _find_command(self, line: bytes | Refused, word: bytes) -> CommandSpec:
        spec = None if isinstance(line, Refused) else self.table.get(word)
        if self.must_start_tls and not (spec and spec.before_tls):
            raise PrivacyRequired("start TLS first: nothing else is done in clear text here")
        if isinstance(line, Refused):
            raise LineRefused(line.value)
        if spec is None:
            raise UnknownCommand
        return spec

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= MAX_ERRORS and not self.ended:
            self.cut(reply(421, "4.7.0", "too many errors, closing the connection"), "too-many-errors")
