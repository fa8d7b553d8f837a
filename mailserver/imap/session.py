"""The session of one IMAP connection: reads commands, runs them one after another, sends changes and answers.

Rules:

*   A command is answered before the next one is read. Untagged responses stand before its tagged one.
*   A MailError is an answer. Any other exception is a bug: it is logged whole and answered by NO [SERVERBUG].
*   After each command in a mailbox comes the closing sync (`updates`): EXPUNGE only where RFC 3501 7.4.1 lets it.
*   However the session ends, the view is closed and mailbox and account are released.
*   A mailbox deleted or replaced below the session ends it with BYE (RFC 2180 3.3 leaves that choice): its sequence
    numbers mean nothing any more, and a client reconnects better than it repairs.
*   Limits come before memory: a literal is requested only after its command, the state and its size have been checked.

Rejected: running pipelined commands concurrently. RFC 3501 5.5 allows it where no ambiguity arises, and to find that
out costs more than it gains.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import Factory, field, frozen

from mailserver.auth.interfaces import Authenticator
from mailserver.config.model import Cache, Imap, Limits, Mail
from mailserver.errors import (
    AuthFailed,
    BadSyntax,
    Cancelled,
    ConnectionLost,
    InUse,
    MailboxChanged,
    MailError,
    PrivacyRequired,
    StorageFailure,
    UnknownCommand,
    WrongState,
)
from mailserver.imap import updates
from mailserver.imap.argument_cache import ArgumentCache
from mailserver.imap.command import (
    ANY,
    Command,
    CommandSpec,
    State,
    Table,
    one_word_forms,
    row_capabilities,
    row_offers,
)
from mailserver.imap.input import Input, TimedOut
from mailserver.imap.list_answers import ListAnswers
from mailserver.imap.selected_mailbox import SelectedMailbox
from mailserver.imap.wire.command_head import HEAD, HTTP, HTTP_METHOD, tag_of
from mailserver.imap.wire.framer import FramingLost, Line, LineRefused, LiteralAnnounced
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import SequenceSet
from mailserver.sasl.registry import Mechanisms
from mailserver.session.channel import Channel
from mailserver.session.sasl_exchange import ExposedExchange
from mailserver.store.live import LiveAccount, LiveAccounts
from mailserver.store.view import View
from mailserver.types import UID

_NOT_AUTHENTICATED, _AUTHENTICATED = State.NOT_AUTHENTICATED.value, State.AUTHENTICATED.value
_SELECTED, _LOGOUT = State.SELECTED.value, State.LOGOUT.value

ERRORS_BEFORE_LOGIN = 5
ERRORS_AFTER_LOGIN = 10
FAILED_LOGINS = 5
"""In one connection, whatever comes between them."""
CLEARTEXT_LOGINS = 20
"""Logins before TLS in one connection: right or wrong, they get the same answer."""


@frozen
class Services:
    """The objects and settings that all sessions share."""

    authenticator: Authenticator
    accounts: LiveAccounts
    hostname: str
    mail: Mail
    mechanisms: Mechanisms
    """SASL mechanisms that the configuration allows."""
    config: Imap = Factory(Imap)
    limits: Limits = Factory(Limits)
    argument_cache: ArgumentCache = Factory(lambda: ArgumentCache(Cache().commands))
    list_answers: ListAnswers = Factory(ListAnswers)
    table: Table = field(kw_only=True)
    """`commands.TABLE`."""
    one_word_forms: Mapping[bytes, str] = field(
        init=False, default=Factory(lambda self: one_word_forms(self.table), takes_self=True)
    )
    row_capabilities: tuple[str, ...] = field(
        init=False, default=Factory(lambda self: self.list_capabilities(), takes_self=True)
    )
    offers: tuple[Callable[[Any], Sequence[str]], ...] = field(
        init=False, default=Factory(lambda self: row_offers(self.table), takes_self=True)
    )
    namespace: Namespace = field(
        default=Factory(
            lambda self: Namespace.make(self.mail.separator, self.mail.prefix, slashes=bool(self.mail.escape)),
            takes_self=True,
        )
    )

    def list_capabilities(self) -> tuple[str, ...]:
        """The tokens of the table's rows, with their values."""
        limit = f"APPENDLIMIT={self.mail.max_message_size}"  # RFC 7889 3: the same for every mailbox
        names = row_capabilities(self.table, ANY)
        return tuple(limit if name == "APPENDLIMIT" else name for name in names)


class Session:
    """The session of one connection; `run()` is its whole life."""

    def __init__(self, channel: Channel, services: Services) -> None:
        self.channel = channel
        self.services = services
        self.account: LiveAccount | None = None
        self.user = ""
        self.selected: SelectedMailbox | None = None
        self.logged_out = False
        self.command = ""
        """The form of the command that runs, or ran last."""
        self.identified = False
        """Has the client's ID been logged?"""
        self.exposed_exchange: ExposedExchange | None = None
        """A refused exchange, which the client may continue by lines that are no commands."""
        self.input = Input(channel, services.config, services.limits)
        self._errors = 0
        self._failed_logins = 0
        self._cleartext_logins = 0
        self._first = True
        self._after_reply: Callable[[], Awaitable[None]] | None = None

    # --- What commands use

    @property
    def state(self) -> State:
        """The state as RFC 3501 3 defines it."""
        if self.logged_out:
            return State.LOGOUT
        if self.account is None:
            return State.NOT_AUTHENTICATED
        return State.AUTHENTICATED if self.selected is None else State.SELECTED

    def _state_bit(self) -> int:
        """`state.value`; enum's own way to it takes a tenth of a NOOP."""
        if self.logged_out:
            return _LOGOUT
        if self.account is None:
            return _NOT_AUTHENTICATED
        return _AUTHENTICATED if self.selected is None else _SELECTED

    def write(self, data: bytes) -> None:
        """Queue bytes as they are."""
        self.channel.write(data)

    def untagged(self, data: bytes) -> None:
        """Queue one untagged response: `* `, data, CRLF."""
        self.channel.write(b"* %b\r\n" % data)

    def positions(self, command: Command, sequence_set: SequenceSet) -> list[tuple[int, int]]:
        """The messages meant, as rising half-open ranges of positions in the view (`view.uids[low:high]`).

        Raises: BadSyntax for a sequence number beyond the view. UIDs that are not in it are left out.
        """
        view = self.view
        if command.uid:
            found = []
            for low, high in sequence_set.ranges(view.uids[view.count - 1] if view.count else 0):
                start = bisect_left(view.uids, low, 0, view.count)
                end = bisect_right(view.uids, high, start, view.count)
                if start < end:
                    found.append((start, end))
            return found
        ranges = sequence_set.ranges(view.count)
        if not ranges or ranges[-1][1] > view.count:
            raise BadSyntax("no message has that sequence number")
        return [(low - 1, high) for low, high in ranges]

    def uids(self, command: Command, sequence_set: SequenceSet) -> list[UID]:
        """The UIDs of the messages meant, rising. Raises as `positions`."""
        uids = self.view.uids
        return [UID(uid) for low, high in self.positions(command, sequence_set) for uid in uids[low:high]]

    @property
    def mailbox(self) -> SelectedMailbox:
        """The selected mailbox, in commands that are allowed only with one."""
        assert self.selected is not None
        return self.selected

    @property
    def view(self) -> View:
        """Its view."""
        return self.mailbox.view

    @property
    def mailbox_name(self) -> str | None:
        """The name of the selected mailbox."""
        return None if self.selected is None else self.selected.live.mailbox.name

    def capabilities(self) -> str:
        """The tokens that CAPABILITY lists now."""
        services = self.services
        tokens = ["IMAP4rev1", "LITERAL+" if services.config.literal == "plus" else "LITERAL-"]
        for offer in services.offers:
            tokens += offer(self)
        return " ".join([*tokens, *services.row_capabilities])

    def enter(self, account: LiveAccount, user: str) -> None:
        """The client has logged in: limits grow, and the account is released at the end."""
        self.account = account
        self.user = user
        self.input.log_in()

    def reset_for_tls(self) -> None:
        """Drop all that the client sent before TLS (RFC 3501 6.2.1)."""
        self.input.reset_for_tls()
        self.exposed_exchange = None
        self._errors = 0
        self._first = True

    def after_reply(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run a step once the current command has been answered OK."""
        self._after_reply = step

    def open_mailbox(self, selected: SelectedMailbox) -> None:
        """Select a mailbox; none may be open."""
        assert self.selected is None
        self.selected = selected

    def close_mailbox(self) -> None:
        """Leave the selected mailbox, if there is one. Nothing is expunged."""
        selected, self.selected = self.selected, None
        if selected is not None:
            selected.live.close_view(selected.view)
            selected.live.account.release(selected.live)

    def bye(self, text: str) -> None:
        """Say BYE; the session ends after the command that runs."""
        if not self.logged_out:
            self.untagged(b"BYE " + text.encode("ascii", "replace"))
            self.logged_out = True

    # --- Running

    async def run(self) -> None:
        """Serve until LOGOUT, an error that ends the session, or the end of the connection."""
        try:
            host = self.channel.info.asked_host or self.services.hostname
            self.untagged(f"OK [CAPABILITY {self.capabilities()}] {host} ready".encode("ascii"))
            while not self.logged_out:
                await self._serve()
        except ConnectionLost:
            pass
        except TimedOut:
            self.channel.log("timeout", user=self.user)
            self.bye("too long without a command" if self.account else "too long without logging in")
        except FramingLost:
            self.bye("more data was sent than can be discarded")
        except BaseException:
            # It may have been in the middle of changing what the mailbox's sessions share.
            if self.selected is not None:
                self.selected.live.account.distrust(self.selected.live)
            raise
        finally:
            self.close_mailbox()
            account, self.account = self.account, None
            if account is not None:
                self.services.accounts.release(account)
            self.channel.close()

    async def _serve(self) -> None:
        event = self.input.next_command() or await self.input.first_event()
        first, self._first = self._first, False
        if isinstance(event, LineRefused):
            if first and HTTP_METHOD.match(event.head):
                self._http()
                return
            self._answer_error(tag_of(event.head), BadSyntax(event.reason))
        else:
            if first and HTTP.match(event.data):
                self._http()
                return
            await self._command(event)
        if self._errors or self._failed_logins or self._cleartext_logins:
            self._end_for_errors()
        self.input.end_command()
        await self.channel.drain()

    def _http(self) -> None:
        """End the session of a web page or proxy that was made to connect here: neither its line nor its body gets an answer."""
        self.channel.log("http-request")
        self.logged_out = True

    def _end_for_errors(self) -> None:
        if self._errors >= (ERRORS_AFTER_LOGIN if self.account else ERRORS_BEFORE_LOGIN):
            self.channel.log("too-many-errors", user=self.user)
            self.bye("too many errors")
        elif self._failed_logins >= FAILED_LOGINS or self._cleartext_logins >= CLEARTEXT_LOGINS:
            self.channel.log("too-many-errors", user=self.user)
            self.bye("too many failed logins")

    async def _command(self, event: Line | LiteralAnnounced) -> None:
        line = event.data
        tag, _, rest = line.partition(b" ")
        word = rest.partition(b" ")[0]
        form = self.services.one_word_forms.get(word)
        if form is not None and tag.isalnum():
            start = len(tag) + 1 + len(word)
        else:
            head = HEAD.match(line)
            if head is None:
                self._answer_error(tag_of(line), BadSyntax("expected a tag, a space and a command"))
                if self.exposed_exchange is not None:
                    self.exposed_exchange.take(line)
                return
            tag = head[1]
            form = head[2].decode("ascii").upper()
            start = head.end()
        try:
            await self._execute(tag, form, start, event)
        except (ConnectionLost, FramingLost, TimedOut):
            raise
        except Exception:
            self.channel.bug(f"{form} of {self.user or 'a client not logged in'}")
            self.write(tag + b" NO [SERVERBUG] internal error, it has been logged\r\n")

    async def _execute(self, tag: bytes, form: str, start: int, event: Line | LiteralAnnounced) -> None:
        self.command = form
        uid = form.startswith("UID ")
        spec = self.services.table.get(form)
        try:
            if spec is None:
                raise UnknownCommand
            if not self._state_bit() & spec.allowed:
                raise WrongState(self.state.refusal)
            if spec.precondition is not None:
                try:
                    spec.precondition(self)
                except PrivacyRequired as error:
                    self._answer_error(tag, error)
                    await self._record_exposed(spec, event, start)
                    return
            parts = [event.data] if isinstance(event, Line) else await self.input.read_parts(spec, event)
            text = await spec.run(self, Command(tag.decode("ascii"), spec.name, uid, Reader(parts, start)))
            selected = self.selected
            if selected is not None and (selected.live.unsettled or selected.view.behind()):
                await self._closing_sync(allow_expunge=uid or not spec.uses_sequence_numbers, uid=uid)
            self._errors = 0
            done = text.encode("ascii") if text else b"UID " + spec.completed if uid else spec.completed
            self.channel.write(b"%b OK %b\r\n" % (tag, done))
            if self._after_reply is not None:
                step, self._after_reply = self._after_reply, None
                await step()
        except MailError as error:
            # A client does not wait twice for a lock that was not free in time, nor where the session ends.
            if self.selected is not None and error.imap_status == "NO" and not isinstance(error, InUse | Cancelled):
                await self._closing_sync(allow_expunge=uid or not (spec and spec.uses_sequence_numbers), uid=uid)
            if isinstance(error, StorageFailure):
                self.channel.log("storage-failed", user=self.user, command=form, reason=error.reason)
            self._answer_error(tag, error)

    async def _record_exposed(self, spec: CommandSpec, event: Line | LiteralAnnounced, start: int) -> None:
        """Record a password that the client has sent in clear text; the command has been answered."""
        if spec.exposed is None:
            return
        with suppress(MailError):
            spec.exposed(self, Reader(await self.input.read_unrequested(event), start))

    async def _closing_sync(self, *, allow_expunge: bool, uid: bool) -> None:
        try:
            await updates.sync(self.channel, self.mailbox, allow_expunge=allow_expunge, uid=uid)
        except MailboxChanged as error:
            self.bye(f"[{error.imap_code}] {error.sentence}")
        except MailError as error:
            self.untagged(f"NO [{error.imap_code}] {error.sentence}".encode("ascii", "replace"))

    def _answer_error(self, tag: bytes, error: MailError) -> None:
        if isinstance(error, MailboxChanged):
            self.bye(f"[{error.imap_code}] {error.sentence}")
        failed_login = isinstance(error, AuthFailed)
        self._cleartext_logins += isinstance(error, PrivacyRequired)
        self._failed_logins += failed_login
        if error.imap_status == "BAD" or failed_login:
            self._errors += 1
        else:
            self._errors = 0
        code = f"[{error.imap_code}] " if error.imap_code else ""
        self.write(b"%b %b\r\n" % (tag, f"{error.imap_status} {code}{error.sentence}".encode("ascii", "replace")))
