"""The base class of POP3 and SMTP sessions: reads a client's lines within their time and runs each as a command.

Commands run one after another, so pipelined ones are answered in their order (RFC 2449 6.6, RFC 2920 3.2). A command
awaits only what `channel` and the store's runner offer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NoReturn

from mailserver.auth.interfaces import Authenticator, User
from mailserver.config.model import Limits
from mailserver.errors import BadSyntax, ConnectionLost, MailError, PrivacyRequired, StorageFailure
from mailserver.session.channel import Channel, Wake
from mailserver.session.command_table import CommandRow
from mailserver.session.lines import LineFault, LineReader, is_http
from mailserver.session.sasl_exchange import ExposedExchange, may_begin

MAX_ERRORS = 20
"""Malformed, unknown or misplaced commands that a connection may send; by SMTP, between two messages."""

_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}")


class LineSession(ABC):
    """One connection: `run()` is its whole life."""

    protocol: ClassVar[str]
    """The protocol's name in the log."""

    def __init__(
        self, channel: Channel, limits: Limits, commands: Mapping[bytes, CommandRow], longest_line: int
    ) -> None:  # fmt: skip
        """`longest_line` is in octets, its CRLF included."""
        self.channel = channel
        self.commands = commands
        """The rows by their words."""
        self.limits = limits
        self.reader = LineReader(longest_line)
        self.user: User | None = None
        self.ended = False
        self.login_deadline = channel.now() + limits.login_time
        self._exposed_exchange: ExposedExchange | None = None
        self._errors = 0
        self._word = b""

    @property
    def command(self) -> str:
        """The word of the command that runs, or ran last."""
        return self._word.decode("ascii", "replace")

    @property
    @abstractmethod
    def timeout(self) -> float:
        """Seconds that may pass without a command."""

    @property
    @abstractmethod
    def must_log_in(self) -> bool:
        """Does `login_time` limit the session, as the client has not logged in?"""

    @abstractmethod
    def greet(self) -> None:
        """Send the greeting."""

    @abstractmethod
    def find_command(self, line: bytes | LineFault, word: bytes) -> CommandRow:
        """The row of a line's first word, in upper case. Raises: MailError where it cannot be run."""

    @abstractmethod
    def refuse(self, error: MailError) -> None:
        """Answer a command that failed."""

    @abstractmethod
    def answer_bug(self) -> None:
        """Answer a command that failed by a bug, which has been logged."""

    @abstractmethod
    def end_for_timeout(self) -> NoReturn:
        """End the connection for a timeout. Raises: ConnectionLost."""

    @abstractmethod
    def end_for_errors(self) -> None:
        """End the connection for too many errors."""

    @abstractmethod
    async def leave(self) -> None:
        """Release all that the session holds, however it ended."""

    async def run(self) -> None:
        """Serve until the client quits, is gone or is disconnected."""
        try:
            self.greet()
            while not self.ended:
                await self._run_line(await self.read_line())
        except ConnectionLost:
            pass
        finally:
            await self.leave()
            if self.user is not None:
                self.channel.log("logout", user=self.user.name)
            self.channel.close()

    def end(self) -> None:
        """Read no further command."""
        self.ended = True

    def read_auth(self, authenticator: Authenticator, argument: bytes) -> tuple[str, bytes]:
        """The mechanism of an AUTH, in capitals, and its initial response, b"" without one (RFC 5034 4, RFC 4954 4).

        Raises: PrivacyRequired, BadSyntax.
        """
        name, space, initial = argument.partition(b" ")
        mechanism = name.decode("ascii", "replace").upper()
        if not may_begin(self.channel.info, mechanism):
            # The client may continue it, by lines that are no commands.
            exchange = ExposedExchange(self.channel, authenticator, mechanism)
            if initial:
                exchange.take(initial)
            self._exposed_exchange = exchange
            raise PrivacyRequired
        if not _MECHANISM.fullmatch(name) or (space and not initial) or b" " in initial:
            raise BadSyntax("AUTH needs a mechanism, and at most an initial response")
        return mechanism, initial

    def log(self, event: str) -> None:
        """Log an event with the user, if one is logged in."""
        self.channel.log(event, user=self.user.name if self.user else None)

    async def read_line(self) -> bytes | LineFault:
        """The client's next line. Raises: ConnectionLost, also when its time has passed."""
        began: float | None = None
        while (line := self.reader.next_line()) is None:
            now = self.channel.now()
            if self.reader.pending and began is None:
                began = now
            # A whole line must come within the time, however slowly its octets come.
            deadline = now + self.timeout if began is None else began + self.limits.transfer_timeout
            if self.must_log_in:
                deadline = min(deadline, self.login_deadline)
            data = await self.channel.read(deadline - now) if now < deadline else Wake.TIMEOUT
            if isinstance(data, Wake):
                self.end_for_timeout()
            self.reader.receive_data(data)
        # Many short commands in one piece may have long answers, and other clients need their turn.
        await self.channel.drain()
        return line

    async def _run_line(self, line: bytes | LineFault) -> None:
        word = (self.reader.head if isinstance(line, LineFault) else line).partition(b" ")[0].upper()
        # A line that begins like a header field is no command either, whatever came before it.
        if is_http(word):
            self.channel.log("http-request")
            self.end()
            return
        self._word = word
        exchange, self._exposed_exchange = self._exposed_exchange, None
        try:
            await self.find_command(line, word).run(self, b"" if isinstance(line, LineFault) else line[len(word) + 1 :])
        except ConnectionLost:
            raise
        except MailError as error:
            if isinstance(error, StorageFailure):
                name = self.user.name if self.user else None
                command = word.decode("ascii", "replace")
                self.channel.log("storage-failed", user=name, command=command, reason=error.reason)
            self.refuse(error)
            if isinstance(error, BadSyntax | PrivacyRequired):
                self._count_error()
            if exchange is not None and word not in self.commands and not isinstance(line, LineFault):
                exchange.take(line)
                self._exposed_exchange = exchange
        except Exception:
            self.channel.bug(f"{self.protocol} {word.decode('ascii', 'replace')}")
            self.answer_bug()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= MAX_ERRORS and not self.ended:
            self.end_for_errors()
