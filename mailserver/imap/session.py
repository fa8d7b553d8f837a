"""One IMAP connection: reads commands, runs them one after another, tells what changed, answers.

Rules:

*   A command is answered before the next one is read. Untagged responses stand before its tagged one.
*   A MailError is an answer. Any other exception is a bug: logged whole, told as NO [SERVERBUG].
*   After each command in a mailbox comes the closing sync (`updates`): EXPUNGE only where RFC 3501 7.4.1 lets it.
*   Whatever ends the session, the view is closed and mailbox and account are given back.
*   A mailbox deleted or replaced below the session ends it with BYE (RFC 2180 3.3 leaves that choice): its sequence
    numbers mean nothing any more, and a client reconnects better than it repairs.
*   Limits before memory: a literal is asked for only once its command, its state and its size are found right.

Rejected: running pipelined commands side by side. RFC 3501 5.5 allows it where no ambiguity arises, and finding that
out costs more than it gains.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from attrs import Factory, field, frozen

from mailserver.auth.interfaces import Authenticator
from mailserver.channel import Channel, Wake
from mailserver.config.model import Imap, Limits, Mail
from mailserver.errors import (
    AuthFailed,
    BadSyntax,
    ConnectionLost,
    MailboxChanged,
    MailError,
    TooBig,
    UnknownCommand,
    WrongState,
)
from mailserver.imap import updates
from mailserver.imap.command import Command, CommandSpec, State, Table
from mailserver.imap.wire.framer import (
    NEED_DATA,
    Event,
    Framer,
    FramingLost,
    Line,
    LineRefused,
    LiteralAnnounced,
    LiteralData,
)
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import SequenceSet
from mailserver.sasl.mechanism import Mechanism
from mailserver.store.view import View
from mailserver.types import UID, SeqNum

if TYPE_CHECKING:
    from mailserver.store.live import LiveAccount, LiveAccounts, LiveMailbox

# tag SP ["UID" SP] name: a tag is ASTRING-CHARs without "+".
_HEAD = re.compile(rb"([!#$&',-\[\]^-z|}~]+) ((?:[Uu][Ii][Dd] )?[A-Za-z0-9][A-Za-z0-9.=_-]*)(?= |\Z)")
_TAG = re.compile(rb"([!#$&',-\[\]^-z|}~]{1,64})(?: |\Z)")
_HTTP = re.compile(rb"(?:GET|POST|HEAD|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) \S+ HTTP/[0-9]", re.ASCII)

LINE_BEFORE_LOGIN = 8192
LITERALS_BEFORE_LOGIN = 4096
SWALLOW_BEFORE_LOGIN = 64 * 1024
SWALLOW_AFTER_LOGIN = 1024 * 1024
ERRORS_BEFORE_LOGIN = 5
ERRORS_AFTER_LOGIN = 10
PROGRESS = 16 * 1024
"""Octets of a message that must come within each transfer time-out: who drips slower is cut."""
LITERAL_MINUS = 4096
"""Largest non-synchronizing literal under LITERAL- (RFC 7888 5)."""


def _command_table() -> Table:
    from mailserver.imap.commands import TABLE  # noqa: PLC0415 - the commands know the session

    return TABLE


@frozen
class Services:
    """What all sessions of a listener share."""

    authenticator: Authenticator
    accounts: LiveAccounts
    hostname: str
    mail: Mail
    mechanisms: Mapping[str, Callable[[], Mechanism]]
    """SASL mechanisms that are offered, by name."""
    config: Imap = Factory(Imap)
    limits: Limits = Factory(Limits)
    table: Table = Factory(_command_table)
    namespace: Namespace = field(
        default=Factory(lambda self: Namespace.make(self.mail.separator, self.mail.prefix), takes_self=True)
    )


@frozen
class Selected:
    """The mailbox that is open."""

    live: LiveMailbox
    view: View
    read_only: bool


class TimedOut(Exception):
    """The client was silent for too long."""


class Session:
    """The session of one connection; `run()` is its whole life."""

    def __init__(self, channel: Channel, services: Services) -> None:
        self.channel = channel
        self.services = services
        self.account: LiveAccount | None = None
        self.user = ""
        self.selected: Selected | None = None
        self.logged_out = False
        self._framer = Framer(LINE_BEFORE_LOGIN, SWALLOW_BEFORE_LOGIN)
        self._login_deadline = channel.now() + services.limits.login_time
        self._errors = 0
        self._first = True
        self._announced: LiteralAnnounced | None = None
        self._afterwards: Callable[[], Awaitable[None]] | None = None
        self._command_deadline = 0.0
        self._progress = 0

    # --- What commands use

    @property
    def state(self) -> State:
        """The state as RFC 3501 3 defines it."""
        if self.logged_out:
            return State.LOGOUT
        if self.account is None:
            return State.NOT_AUTHENTICATED
        return State.AUTHENTICATED if self.selected is None else State.SELECTED

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

    def messages(self, command: Command, sequence_set: SequenceSet) -> list[tuple[SeqNum, UID]]:
        """The messages meant, by rising number. Raises as `positions`."""
        uids = self.view.uids
        return [
            (SeqNum(at + 1), UID(uids[at]))
            for low, high in self.positions(command, sequence_set)
            for at in range(low, high)
        ]

    @property
    def mailbox(self) -> Selected:
        """The selected mailbox, in commands that are allowed only with one."""
        assert self.selected is not None
        return self.selected

    @property
    def view(self) -> View:
        """Its view."""
        return self.mailbox.view

    def capabilities(self) -> str:
        """The tokens that CAPABILITY lists now."""
        from mailserver.imap.commands.capability import tokens  # noqa: PLC0415 - the commands know the session

        return " ".join(tokens(self))

    def enter(self, account: LiveAccount, user: str) -> None:
        """The client has logged in: bounds grow, the account is given back at the end."""
        self.account = account
        self.user = user
        self._framer.max_line = self.services.config.max_line
        self._framer.swallow_limit = SWALLOW_AFTER_LOGIN

    def forget(self) -> None:
        """TLS has started: nothing from before counts (RFC 3501 6.2.1)."""
        self._framer = Framer(LINE_BEFORE_LOGIN, SWALLOW_BEFORE_LOGIN)
        self._errors = 0
        self._first = True

    @property
    def pipelined(self) -> bool:
        """Has the client sent bytes behind the command that runs?"""
        return self._framer.buffered

    def then(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do that once the command that runs has been answered OK."""
        self._afterwards = step

    def open_mailbox(self, selected: Selected) -> None:
        """A mailbox is selected; none may be open."""
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
            self.untagged(b"BYE " + text.encode("ascii"))
            self.logged_out = True

    # --- Input inside a command

    @property
    def announced(self) -> LiteralAnnounced | None:
        """The literal that waits for a streaming command's decision."""
        return self._announced

    def accept_literal(self) -> None:
        """Take the announced literal; ask for it if the client waits. Then read it with `literal_piece`."""
        self._begin_transfer()
        self._accept()

    def _accept(self) -> None:
        announced, self._announced = self._announced, None
        assert announced is not None
        self._framer.accept_literal()
        if not announced.non_sync:
            self.channel.write(b"+ OK\r\n")

    async def literal_piece(self) -> bytes | None:
        """The next octets of the accepted literal, None at its end."""
        event = await self._event_in_command()
        if not isinstance(event, LiteralData):
            return None
        self._progress += len(event.data)
        if self._progress >= PROGRESS:
            self._begin_transfer()
        return event.data

    async def next_text(self) -> bytes:
        """The line that follows a streamed literal. `announced` tells if it ends in another one."""
        event = await self._event_in_command()
        if isinstance(event, LineRefused):
            raise BadSyntax(event.reason)
        assert isinstance(event, Line | LiteralAnnounced)
        self._announced = event if isinstance(event, LiteralAnnounced) else None
        return event.data

    async def read_continuation(self, prompt: bytes) -> bytes:
        """Write `+ prompt` and read the client's line. Raises: BadSyntax."""
        self.channel.write(b"+ %b\r\n" % prompt)
        return self._continuation(await self._line_event())

    async def read_idle(self, timeout: float) -> bytes | Wake:
        """The client's next line, or why there is none yet: poked, or `timeout` seconds passed. Raises: BadSyntax."""
        event = await self._event(self.channel.now() + timeout, pokes=True)
        return event if isinstance(event, Wake) else self._continuation(event)

    def _continuation(self, event: Event) -> bytes:
        if isinstance(event, Line):
            return event.data
        raise BadSyntax(event.reason if isinstance(event, LineRefused) else "expected a line, not a literal")

    async def _event(self, deadline: float, *, pokes: bool = False) -> Event | Wake:
        while True:
            event = self._framer.next_event()
            if event is not NEED_DATA:
                return event
            data = await self.channel.read(max(0.0, deadline - self.channel.now()), pokes=pokes)
            if isinstance(data, Wake):
                return data
            self._framer.receive_data(data)

    def _begin_transfer(self) -> None:
        self._progress = 0
        deadline = self.channel.now() + self.services.limits.transfer_timeout
        self._command_deadline = deadline if self.account else min(deadline, self._login_deadline)

    async def _event_in_command(self) -> Event:
        event = await self._event(self._command_deadline)
        if isinstance(event, Wake):
            raise TimedOut
        return event

    async def _line_event(self) -> Event:
        """The first event of a line: long patience before its first octet, short from then on."""
        framer, channel, limits = self._framer, self.channel, self.services.limits
        now = channel.now()
        deadline = now + self.services.config.timeout if self.account else self._login_deadline
        begun = False
        while True:
            event = framer.next_event()
            if event is not NEED_DATA:
                return event
            if not begun and framer.within_command:
                begun = True
                deadline = min(deadline, channel.now() + limits.transfer_timeout)
            data = await channel.read(max(0.0, deadline - channel.now()))
            if isinstance(data, Wake):
                raise TimedOut
            framer.receive_data(data)

    async def _read_parts(self, spec: CommandSpec, event: Line | LiteralAnnounced) -> list[bytes]:
        """The whole command, but for a literal that it streams itself. Raises: BadSyntax, TooBig."""
        parts: list[bytes] = []
        self._begin_transfer()
        budget = spec.max_literal if self.account else min(spec.max_literal, LITERALS_BEFORE_LOGIN)
        while True:
            parts.append(event.data)
            if isinstance(event, Line):
                return parts
            self._announced = event
            if event.literal8:
                raise BadSyntax("binary literals are not supported")
            if event.non_sync and event.size > LITERAL_MINUS and self.services.config.literal == "minus":
                raise BadSyntax("a non-synchronizing literal of that size needs LITERAL+")  # RFC 7888 5
            if spec.streams is not None and spec.streams(parts):
                return parts
            if event.size > budget:
                raise TooBig("the literal is too large for this command")
            budget -= event.size
            self._accept()
            pieces = []
            while isinstance(piece := await self._event_in_command(), LiteralData):
                pieces.append(piece.data)
            parts.append(b"".join(pieces))
            following = await self._event_in_command()
            if isinstance(following, LineRefused):
                raise BadSyntax(following.reason)
            assert isinstance(following, Line | LiteralAnnounced)
            event = following

    # --- The session's life

    async def run(self) -> None:
        """Serve until LOGOUT, an error that ends it, or the client's going."""
        try:
            self.untagged(f"OK [CAPABILITY {self.capabilities()}] {self.services.hostname} ready".encode("ascii"))
            while not self.logged_out:
                await self._serve()
        except ConnectionLost:
            pass
        except TimedOut:
            self.channel.log("timeout", user=self.user)
            self.bye("too long without a command" if self.account else "too long without logging in")
        except FramingLost:
            self.bye("more data was sent than can be discarded")
        finally:
            self.close_mailbox()
            account, self.account = self.account, None
            if account is not None:
                self.services.accounts.release(account)
            self.channel.close()

    async def _serve(self) -> None:
        event = await self._line_event()
        first, self._first = self._first, False
        if isinstance(event, LineRefused):
            if first and _HTTP.match(event.head):
                self._http()
                return
            self._answer_error(_tag(event.head), BadSyntax(event.reason))
        else:
            assert isinstance(event, Line | LiteralAnnounced)
            if first and _HTTP.match(event.data):
                self._http()
                return
            await self._command(event)
        self._announced = None
        if self._errors >= (ERRORS_AFTER_LOGIN if self.account else ERRORS_BEFORE_LOGIN):
            self.channel.log("too_many_errors", user=self.user)
            self.bye("too many errors")
        self._framer.abandon_command()
        await self.channel.drain()

    def _http(self) -> None:
        """A web page or proxy was made to talk to us: neither its line nor its body gets an answer."""
        self.channel.log("http_request")
        self.logged_out = True

    async def _command(self, event: Line | LiteralAnnounced) -> None:
        head = _HEAD.match(event.data)
        if head is None:
            self._answer_error(_tag(event.data), BadSyntax("expected a tag, a space and a command"))
            return
        tag = head[1]
        form = head[2].decode("ascii").upper()
        try:
            await self._execute(tag, form, head.end(), event)
        except (ConnectionLost, FramingLost, TimedOut):
            raise
        except Exception:
            self.channel.bug(f"{form} of {self.user or 'a client not logged in'}")
            self.write(tag + b" NO [SERVERBUG] internal error, it has been logged\r\n")

    async def _execute(self, tag: bytes, form: str, start: int, event: Line | LiteralAnnounced) -> None:
        uid = form.startswith("UID ")
        spec = self.services.table.get(form)
        try:
            if spec is None:
                raise UnknownCommand
            if not self.state & spec.states:
                raise WrongState(_wrong_state(self.state))
            if spec.precondition is not None:
                spec.precondition(self)
            parts = await self._read_parts(spec, event)
            command = Command(tag.decode("ascii"), spec.name, uid, Reader(parts, start))
            text = await spec.run(self, command)
            if self.selected is not None:
                await self._closing_sync(allow_expunge=uid or not spec.uses_sequence_numbers, uid=uid)
            self._errors = 0
            self.write(b"%b OK %b\r\n" % (tag, (text or f"{form} completed").encode("ascii")))
            if self._afterwards is not None:
                step, self._afterwards = self._afterwards, None
                await step()
        except MailError as error:
            if self.selected is not None and error.imap_status == "NO":
                await self._closing_sync(allow_expunge=uid or not (spec and spec.uses_sequence_numbers), uid=uid)
            self._answer_error(tag, error)

    async def _closing_sync(self, *, allow_expunge: bool, uid: bool) -> None:
        selected = self.mailbox
        if not selected.live.stale and not selected.view.behind():
            return
        try:
            await updates.tell(self, allow_expunge=allow_expunge, uid=uid)
        except MailboxChanged as error:
            self.bye(f"[{error.imap_code}] {error.sentence}")
        except MailError as error:
            self.untagged(f"NO [{error.imap_code}] {error.sentence}".encode("ascii"))

    def _answer_error(self, tag: bytes, error: MailError) -> None:
        if isinstance(error, MailboxChanged):
            self.bye(f"[{error.imap_code}] {error.sentence}")
        if error.imap_status == "BAD" or isinstance(error, AuthFailed):
            self._errors += 1
        else:
            self._errors = 0
        code = f"[{error.imap_code}] " if error.imap_code else ""
        self.write(b"%b %b\r\n" % (tag, f"{error.imap_status} {code}{error.sentence}".encode("ascii", "replace")))


def _tag(line: bytes) -> bytes:
    """The tag of a line that is no command, `*` if it has none."""
    match = _TAG.match(line)
    return match[1] if match else b"*"


def _wrong_state(state: State) -> str:
    if state is State.NOT_AUTHENTICATED:
        return "log in first"
    if state is State.AUTHENTICATED:
        return "not allowed now: select a mailbox first, or you are logged in already"
    return "not allowed while logged in"
