"""One POP3 connection: its state, the reading of commands, the writing of answers (RFC 1939 3).

Commands run one after another, so pipelined ones are answered in their order (RFC 2449 6.6). What a command may
await is what `channel` and the store's runner offer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from mailserver.auth.interfaces import Authenticator, LoginContext, User
from mailserver.channel import Channel, Wake
from mailserver.config.model import Limits, Pop3
from mailserver.errors import BadSyntax, ConnectionLost, MailError, PrivacyRequired, UnknownCommand, WrongState
from mailserver.lines import LineReader, Refused, is_http
from mailserver.pop3.commands import COMMANDS
from mailserver.pop3.maildrop import Maildrop
from mailserver.pop3.spec import CommandSpec, State
from mailserver.pop3.uidl import UidlFormat, parse_uidl_format
from mailserver.pop3.wire import MAX_LINE
from mailserver.sasl.mechanism import Credentials, Mechanism
from mailserver.store.interfaces import MaildropLock
from mailserver.store.live import LiveAccount, LiveAccounts

MAX_ERRORS = 20
"""Malformed, unknown or misplaced commands that a connection may send."""
MAX_LOGIN_FAILURES = 5
"""Failed logins that a connection may make."""
PACE = 64
"""Pipelined commands after which the client must have taken enough of the answers."""


@frozen
class Services:
    """What POP3 sessions share."""

    authenticator: Authenticator
    accounts: LiveAccounts
    config: Pop3
    mechanisms: Mapping[str, Callable[[], Mechanism]]
    """SASL mechanisms offered, by name, in the order of CAPA."""
    hostname: str
    limits: Limits = field(factory=Limits)
    uidl_format: UidlFormat = field(init=False)

    @uidl_format.default
    def _parse_uidl_format(self) -> UidlFormat:
        return parse_uidl_format(self.config.uidl_format)


class Session:
    """What commands see: the channel, the state, the maildrop."""

    def __init__(self, channel: Channel, services: Services) -> None:
        self.channel = channel
        self.services = services
        self.state = State.AUTHORIZATION
        self.user_name: str | None = None
        """What USER said, for PASS."""
        self.user: User | None = None
        self.reader = LineReader(MAX_LINE)
        self.ended = False
        self._account: LiveAccount | None = None
        self._maildrop: Maildrop | None = None
        self._lock: MaildropLock | None = None
        self._errors = 0
        self._unpaced = 0
        self._login_failures = 0
        self._login_deadline = channel.now() + services.limits.login_time

    @property
    def maildrop(self) -> Maildrop:
        """The listing; there is one in TRANSACTION."""
        assert self._maildrop is not None
        return self._maildrop

    @property
    def mailbox_name(self) -> str | None:
        """INBOX, once its maildrop is open."""
        return None if self._maildrop is None else "INBOX"

    async def run(self) -> None:
        """Serve until the client quits, is gone or is cut. Without QUIT nothing is deleted (RFC 1939 6)."""
        try:
            self.ok(f"{self.services.hostname} ready")
            while not self.ended:
                line = await self.read_line()
                if line is None:
                    break
                await self._run_line(line)
        except ConnectionLost:
            pass
        finally:
            if self.user is not None:
                self.channel.log("logout", user=self.user.name)
            self._release()
            self.channel.close()

    def ok(self, text: str) -> None:
        """A positive answer."""
        self.channel.write(f"+OK {text}\r\n".encode("ascii"))

    def error(self, text: str, code: str | None = None) -> None:
        """A negative answer, with its response code (RFC 2449 8)."""
        self.channel.write((f"-ERR [{code}] {text}" if code else f"-ERR {text}").encode("ascii", "replace") + b"\r\n")

    def end(self) -> None:
        """Read no further command."""
        self.ended = True

    async def read_line(self) -> bytes | Refused | None:
        """The client's next line; None when it let its time pass: then it is cut without a word (RFC 1939 3)."""
        began: float | None = None
        while (line := self.reader.next_line()) is None:
            now = self.channel.now()
            if self.reader.pending and began is None:
                began = now
            deadline = now + self.services.config.timeout
            if began is not None:
                # A whole line must come within the time, however its octets drip.
                deadline = began + self.services.limits.transfer_timeout
            if self.state is State.AUTHORIZATION:
                deadline = min(deadline, self._login_deadline)
            data = await self.channel.read(deadline - now) if now < deadline else Wake.TIMEOUT
            if isinstance(data, Wake):
                self.channel.log("timeout", user=self.user.name if self.user else None)
                return None
            self.reader.receive_data(data)
            self._unpaced = 0
        self._unpaced += 1
        if self._unpaced % PACE == 0:
            # Many short commands in one piece may have long answers.
            await self.channel.drain()
        return line

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
            self.error(error.sentence, error.pop3_code)
            if isinstance(error, BadSyntax | PrivacyRequired):
                self._count_error()
        except Exception:
            self.channel.bug(f"POP3 {word.decode('ascii', 'replace')}")
            self.error("internal error", "SYS/TEMP")

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= MAX_ERRORS:
            self.channel.log("too-many-errors", user=self.user.name if self.user else None)
            self.end()

    def _find_command(self, line: bytes | Refused, word: bytes) -> CommandSpec:
        if isinstance(line, Refused):
            raise BadSyntax(line.value)
        spec = COMMANDS.get(word)
        if spec is None:
            raise UnknownCommand
        if self.state not in spec.states:
            raise WrongState
        return spec

    async def login(self, credentials: Credentials, method: str) -> None:
        """Verify, open the maildrop and answer. Raises: MailError, and the state is as before."""
        channel, services, info = self.channel, self.services, self.channel.info
        context = LoginContext("pop3", info.peer, info.tls.server_name if info.tls else None, info.session_id)
        self.user_name = None
        try:
            user = await services.authenticator.login(credentials, context)
            await self._open(user)
        except MailError as error:
            channel.log("login-failed", user=credentials.name, method=method, reason=error.sentence)
            self.count_login_failure()
            raise
        self.user = user
        self.state = State.TRANSACTION
        channel.log("login", user=user.name, method=method)
        count, octets = self.maildrop.total
        self.ok(f"{count} messages ({octets} octets)")

    def count_login_failure(self) -> None:
        """A login failed; after too many the connection ends."""
        self._login_failures += 1
        if self._login_failures >= MAX_LOGIN_FAILURES:
            self.end()

    async def _open(self, user: User) -> None:
        """RFC 1939 4: take the lock that the policy asks for, and the listing."""
        services = self.services
        try:
            account = self._account = await services.accounts.open(user.name, user.home)
            if services.config.lock == "session":
                self._lock = await account.run(account.account.lock_maildrop)
            self._maildrop = await Maildrop.open(self._account)
            self.channel.logged_in(user.name)
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
