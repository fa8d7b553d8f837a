"""The session of one POP3 connection: its state, answers, login and maildrop (RFC 1939 3)."""

from __future__ import annotations

from typing import NoReturn

from attrs import field, frozen

from mailserver.auth.interfaces import Authenticator, LoginContext, User
from mailserver.config.model import Limits, Pop3
from mailserver.errors import BadSyntax, ConnectionLost, MailError, UnknownCommand, WrongState
from mailserver.pop3.command import CommandSpec, State, Table
from mailserver.pop3.maildrop import Maildrop
from mailserver.pop3.uidl import UidlFormat, parse_uidl_format
from mailserver.pop3.wire import MAX_LINE
from mailserver.sasl.mechanism import Credentials
from mailserver.sasl.registry import Mechanisms
from mailserver.session.channel import Channel
from mailserver.session.line_session import LineSession
from mailserver.session.lines import LineFault
from mailserver.session.login_refusal import refuse_login
from mailserver.session.sasl_exchange import login_context
from mailserver.store.interfaces import MaildropLock
from mailserver.store.live import LiveAccount, LiveAccounts

MAX_LOGIN_FAILURES = 5
"""Failed logins that a connection may make."""


@frozen
class Services:
    """The objects and settings that POP3 sessions share."""

    table: Table = field(kw_only=True)
    """`commands.TABLE`."""
    authenticator: Authenticator
    accounts: LiveAccounts
    config: Pop3
    mechanisms: Mechanisms
    """SASL mechanisms that the configuration allows, in the order of CAPA."""
    hostname: str
    limits: Limits = field(factory=Limits)
    uidl_format: UidlFormat = field(init=False)

    @uidl_format.default
    def _parse_uidl_format(self) -> UidlFormat:
        return parse_uidl_format(self.config.uidl_format)


class Session(LineSession):
    """The session: the channel, the state, the maildrop."""

    protocol = "POP3"

    def __init__(self, channel: Channel, services: Services) -> None:
        super().__init__(channel, services.limits, services.table.commands, MAX_LINE)
        self.services = services
        self.state = State.AUTHORIZATION
        self.user_name: str | None = None
        """The argument of USER, for PASS."""
        self.utf8 = False
        """Is the session in UTF-8 mode (RFC 6856 2.1)?"""
        self._account: LiveAccount | None = None
        self._maildrop: Maildrop | None = None
        self._lock: MaildropLock | None = None
        self._login_failures = 0

    @property
    def maildrop(self) -> Maildrop:
        """The listing; there is one in TRANSACTION."""
        assert self._maildrop is not None
        return self._maildrop

    @property
    def mailbox_name(self) -> str | None:
        """INBOX, once its maildrop is open."""
        return None if self._maildrop is None else "INBOX"

    @property
    def timeout(self) -> float:
        """See LineSession."""
        return self.services.config.timeout

    @property
    def must_log_in(self) -> bool:
        """See LineSession."""
        return self.state is State.AUTHORIZATION

    def greet(self) -> None:
        """See LineSession."""
        self.ok(f"{self.channel.info.asked_host or self.services.hostname} ready")

    async def leave(self) -> None:
        """See LineSession. Without QUIT nothing is deleted (RFC 1939 6)."""
        self._release()

    def ok(self, text: str) -> None:
        """A positive answer."""
        self.channel.write(f"+OK {text}\r\n".encode("ascii"))

    def error(self, text: str, code: str | None = None) -> None:
        """A negative answer, with its response code (RFC 2449 8)."""
        self.channel.write((f"-ERR [{code}] {text}" if code else f"-ERR {text}").encode("ascii", "replace") + b"\r\n")

    def refuse(self, error: MailError) -> None:
        """See LineSession."""
        self.error(error.sentence, error.pop3_code)

    def answer_bug(self) -> None:
        """See LineSession."""
        self.error("internal error", "SYS/TEMP")

    def end_for_timeout(self) -> NoReturn:
        """See LineSession. There is no answer (RFC 1939 3)."""
        self.log("timeout")
        raise ConnectionLost

    def end_for_errors(self) -> None:
        """See LineSession."""
        self.log("too-many-errors")
        self.end()

    def find_command(self, line: bytes | LineFault, word: bytes) -> CommandSpec:
        """See LineSession."""
        if isinstance(line, LineFault):
            raise BadSyntax(line.value)
        spec = self.services.table.commands.get(word)
        if spec is None:
            raise UnknownCommand
        if self.state not in spec.states:
            raise WrongState
        return spec

    async def login(self, credentials: Credentials, method: str) -> None:
        """Verify, open the maildrop and answer. Raises: MailError, and the state is as before."""
        self.user_name = None
        context = login_context("pop3", self.channel.info)
        try:
            user = await self.services.authenticator.login(credentials, context)
        except MailError as error:
            self.login_failed(context, credentials.name, method, error)
            raise
        await self.enter(user, method, context)

    async def enter(self, user: User, method: str, context: LoginContext) -> None:
        """Open the maildrop of a verified user and answer. Raises: MailError, and the state is as before."""
        try:
            await self._open(user, context)
        except MailError as error:
            self.login_failed(context, user.name, method, error)
            raise
        self.user = user
        self.state = State.TRANSACTION
        self.channel.log("login", user=user.name, method=method)
        self.services.authenticator.accepted(user, method, context)
        count, octets = self.maildrop.total
        self.ok(f"{count} messages ({octets} octets)")

    def login_failed(self, context: LoginContext, name: str, method: str, error: MailError) -> None:
        """Log and record a failed login; after too many the connection ends."""
        refuse_login(self.channel, self.services.authenticator, context, name, error, method=method)
        self._login_failures += 1
        if self._login_failures >= MAX_LOGIN_FAILURES:
            self.end()

    async def _open(self, user: User, context: LoginContext) -> None:
        """Take the lock, if the configuration asks for one, and the listing (RFC 1939 4)."""
        services = self.services
        try:
            account = self._account = await services.accounts.open(user.name, user.home)
            if services.config.lock == "session":
                self._lock = await account.run(account.account.lock_maildrop)
            self._maildrop = await Maildrop.open(
                self._account, names=self.services.uidl_format.needs_names, utf8=self.utf8
            )
            await services.authenticator.confirm(user, context)
            self.channel.logged_in(user.name, user.credential, user.delegate)
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        if self._maildrop is not None:
            self._maildrop.close()
            self._maildrop = None
        if self._account is not None:
            self.services.accounts.release(self._account)
            self._account = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
