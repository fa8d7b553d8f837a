"""The session of one IMAP connection: reads commands, runs them one after another, sends changes and answers.

Rules:

*   A command is answered before the next one is read. Untagged responses stand before its tagged one.
*   A MailError is an answer. Any other exception is a bug: it is logged whole and answered by NO [SERVERBUG].
*   After each command in a mailbox, but for the one that opens it, comes the closing sync (`updates`): EXPUNGE only where RFC 3501 7.4.1 lets it.
*   However the session ends, the view is closed and mailbox and account are released.
*   A mailbox deleted or replaced below the session ends it with BYE (RFC 2180 3.3 leaves that choice): its sequence
    numbers mean nothing any more, and a client reconnects better than it repairs.
*   Limits come before memory: a literal is requested only after its command, the state and its size have been checked.

Rejected: running pipelined commands concurrently. RFC 3501 5.5 allows it where no ambiguity arises, and to find that
out costs more than it gains.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from mailserver.config.model import HiddenCapabilities
from mailserver.errors import (
    BadSyntax,
    Cancelled,
    ConnectionLost,
    InUse,
    MailboxChanged,
    MailError,
    OverQuota,
    PrivacyRequired,
    StorageFailure,
    UIDRequired,
    UnknownCommand,
    WrongState,
)
from mailserver.imap import updates
from mailserver.imap.command import (
    Command,
    CommandSpec,
    State,
)
from mailserver.imap.error_counts import ErrorCounts
from mailserver.imap.hidden import visible
from mailserver.imap.input import Input, TimedOut
from mailserver.imap.selected_mailbox import SelectedEvents, SelectedMailbox
from mailserver.imap.services import Pushes, Services
from mailserver.imap.wire import writer
from mailserver.imap.wire.command_head import HEAD, HTTP, HTTP_METHOD, tag_of
from mailserver.imap.wire.framer import FramingLost, Line, LineRefused, LiteralAnnounced
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import SequenceSet, runs
from mailserver.session.channel import Channel, CorruptInput
from mailserver.session.sasl_exchange import ExposedExchange
from mailserver.store.columns import find_all
from mailserver.store.live import LiveAccount, LiveMailbox
from mailserver.store.view import View
from mailserver.types import UID, MailboxId

_NOT_AUTHENTICATED, _AUTHENTICATED = State.NOT_AUTHENTICATED.value, State.AUTHENTICATED.value
_SELECTED, _LOGOUT = State.SELECTED.value, State.LOGOUT.value


class Session:
    """The session of one connection; `run()` is its whole life."""

    def __init__(self, channel: Channel, services: Services) -> None:
        self.channel = channel
        self.services = services
        self.account: LiveAccount | None = None
        self.user = ""
        self.selected: SelectedMailbox | None = None
        self.selected_events = SelectedEvents()
        self.pushes: Pushes | None = None
        """Set while NOTIFY (RFC 5465) is in effect."""
        self.logged_out = False
        self.command = ""
        """The form of the command that runs, or ran last."""
        self.enabled: set[str] = set()
        """Capabilities that are on, by ENABLE or by a command that enables them (RFC 5161 3.1)."""
        self.utf8 = False
        """Mailbox names are UTF-8 in both directions, not modified UTF-7, and messages are sent with UTF-8 in their headers."""
        self.saved_result = array("I")
        """The UIDs that SEARCH RETURN (SAVE) found, rising (RFC 5182). Those expunged since mean nothing."""
        self.identified = False
        """Has the client's ID been logged?"""
        self.hiding_client: Sequence[HiddenCapabilities] = ()
        """Rules of `[[imap.hide]]` that the client's ID satisfies."""
        self.exposed_exchange: ExposedExchange | None = None
        """A refused exchange, which the client may continue by lines that are no commands."""
        self.input = Input(channel, services.config, services.limits)
        self._errors = ErrorCounts()
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

    def mailbox_octets(self, name: str) -> bytes:
        """A mailbox name of the store, as a response to this client has it."""
        return writer.mailbox(self.services.namespace.to_client(name), self.utf8)

    def positions(self, command: Command, sequence_set: SequenceSet) -> list[tuple[int, int]]:
        """The messages meant, as rising half-open ranges of positions in the view (`view.uids[low:high]`).

        Raises: BadSyntax for a sequence number beyond the view. UIDs that are not in it are left out.
        """
        view = self.view
        if sequence_set.is_saved:
            return self.saved_positions()
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

    def saved_positions(self) -> list[tuple[int, int]]:
        """The messages of the saved result that the view has, as `positions` returns them."""
        view = self.view
        places = find_all(view.uids, self.saved_result, view.count)
        return [(low - 1, high) for low, high in runs([at + 1 for at in places if at >= 0])]

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
    def searched(self) -> LiveMailbox:
        """The mailbox that its searches are about (`SearchScope`)."""
        return self.mailbox.live

    @property
    def mailbox_name(self) -> str | None:
        """The name of the selected mailbox."""
        return None if self.selected is None else self.selected.live.mailbox.name

    def capabilities(self) -> str:
        """The tokens that CAPABILITY lists now."""
        tokens: list[str] = []
        for each in self.services.capabilities:
            if each.offer is None:
                tokens.append(each.token)
            else:
                tokens += each.offer(self)
        return " ".join(self.without_hidden(tokens))

    def without_hidden(self, tokens: Sequence[str]) -> Sequence[str]:
        """Those of the tokens that the configuration does not hide from this client."""
        rules = self.services.config.hide
        return visible(tokens, rules, self.hiding_client, self.user, self.channel.info) if rules else tokens

    def enter(self, account: LiveAccount, user: str) -> None:
        """The client has logged in: limits grow, and the account is released at the end."""
        self.account = account
        self.user = user
        self.input.log_in()

    def leave(self) -> None:
        """Drop all that depends on the login (RFC 8437 3): mailbox, account, enabled extensions, limits.

        The client's ID and the count of its failed logins stay.
        """
        self.close_mailbox()
        self._release_account()
        self.user = ""
        self.enabled = set()
        self.utf8 = False
        self.selected_events = SelectedEvents()
        self.saved_result = array("I")
        self.input.log_out()

    def _release_account(self) -> None:
        pushes, self.pushes = self.pushes, None
        if pushes is not None:
            pushes.end()
        account, self.account = self.account, None
        if account is not None:
            self.services.accounts.release(account)

    def reset_for_tls(self) -> None:
        """Drop all that the client sent before TLS (RFC 3501 6.2.1)."""
        self.input.reset_for_tls()
        self.exposed_exchange = None
        self._errors.note_success()
        self._first = True

    def after_reply(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run a step once the current command has been answered OK."""
        self._after_reply = step

    def open_mailbox(self, selected: SelectedMailbox) -> None:
        """Select a mailbox; none may be open."""
        assert self.selected is None
        self.selected = selected
        self.saved_result = array("I")

    def close_mailbox(self) -> None:
        """Leave the selected mailbox, if there is one. Nothing is expunged."""
        selected, self.selected = self.selected, None
        self.selected_events.own.clear()
        if selected is not None:
            selected.live.close_view(selected.view)
            selected.live.account.release(selected.live)

    def note_own_messages(self, mailbox: MailboxId, uids: Sequence[UID]) -> None:
        """Note that the client itself has put these messages there."""
        selected, events = self.selected, self.selected_events
        if (
            selected is not None
            and selected.live.id == mailbox
            and events.messages
            and (events.fetch_new is not None or selected.result_updates is not None)
        ):
            events.own.update(uids)

    async def pass_over_names(self, *names: str) -> None:
        """Note that the client itself has changed these names, as `Pushes.pass_over`."""
        if self.pushes is not None:
            await self.pushes.pass_over(names)

    async def pass_over_annotations(self, name: str | None) -> None:
        """Note that the client itself has changed annotations, as `Pushes.pass_over_annotations`."""
        if self.pushes is not None:
            await self.pushes.pass_over_annotations(name)

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
        except CorruptInput as error:
            self.channel.log("connection-cut", reason=str(error))
            self.bye(str(error))
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
            self._release_account()
            self.channel.close()

    async def _serve(self) -> None:
        event = self.input.next_command()
        if event is None:
            event = await (self.input.first_event() if self.pushes is None else self.pushes.next_event())
        if event is None:
            return
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
        excess = self._errors.excess(logged_in=self.account is not None)
        if excess:
            self.channel.log("too-many-errors", user=self.user)
            self.bye(excess)
        self.input.end_command()
        await self.channel.drain()

    def _http(self) -> None:
        """End the session of a web page or proxy that was made to connect here: neither its line nor its body gets an answer."""
        self.channel.log("http-request")
        self.logged_out = True

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
            if spec.uid_form and not uid and "UIDONLY" in self.enabled and not spec.numberless:
                raise UIDRequired
            if spec.precondition is not None:
                try:
                    spec.precondition(self)
                except PrivacyRequired as error:
                    self._answer_error(tag, error)
                    await self._record_exposed(spec, event, start)
                    return
            parts = [event.data] if isinstance(event, Line) else await self.input.read_parts(spec, event)
            before = self.selected
            text = await spec.run(self, Command(tag.decode("ascii"), spec.name, uid, Reader(parts, start, self.utf8)))
            selected = self.selected
            if selected is not None and selected is before and (selected.live.unsettled or selected.view.behind()):
                await self._closing_sync(allow_expunge=uid or not spec.uses_sequence_numbers, uid=uid)
            self._errors.note_success()
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
            elif isinstance(error, OverQuota):
                self.channel.log("quota-refused", user=self.user, command=form)
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
        self._errors.note(error)
        code = f"[{error.imap_code}] " if error.imap_code else ""
        self.write(b"%b %b\r\n" % (tag, f"{error.imap_status} {code}{error.sentence}".encode("ascii", "replace")))
