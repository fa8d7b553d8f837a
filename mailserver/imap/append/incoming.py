"""The messages of one command, from their first octet until they are published, all or none.

At most PIECE octets of all of them together are held in memory: beyond that they go to files under tmp/, in turns of the
account's thread. A file whose message is complete is synced and closed in such a turn, so that many messages neither keep
files open nor are synced one after another while the account is locked.
"""

from __future__ import annotations

from typing import Final

from attrs import Factory, define

from mailserver.errors import BadMessage, LimitReached, MailError, NoSuchMailbox, OverQuota, TooBig
from mailserver.imap import updates
from mailserver.imap.append.arguments import MessageArguments
from mailserver.imap.command import TryCreate
from mailserver.imap.message_limit import TooManyMessages, save_limit
from mailserver.imap.session import Session
from mailserver.message.binary import without_binary
from mailserver.message.header_size import HeaderSizeChecker
from mailserver.store.interfaces import Account
from mailserver.store.live import LiveAccount
from mailserver.store.receiving import Appended, Delivery, NewMessage, StagedMessage

PIECE: Final = 256 * 1024
"""Octets that are written in one operation of the account's thread; no more are held in memory."""
MOST_MESSAGES: Final = 1000
"""Messages of one command."""
MOST_OCTETS: Final = 256 * 1024 * 1024
"""Octets of all messages of one command; a message of the largest size is always allowed."""


@define(eq=False)
class IncomingMessage:
    """One message that is being received."""

    arguments: MessageArguments
    size: int = 0
    """Octets so far."""
    complete: bool = False
    binary: bool = False
    """It may have octets that no message can hold (RFC 3516 4.4), as long as it is not complete."""
    refusal: MailError | None = None
    """The reason why it is refused once the client has sent it; no more of it is kept."""
    staged: StagedMessage | None = None
    pieces: list[bytes] = Factory(list)
    """Its octets in memory, which follow those in its file."""
    headers: HeaderSizeChecker | None = Factory(HeaderSizeChecker)
    """None once it is complete: its memory is then for the next message."""


class IncomingMessages:
    """The messages of one command for one mailbox. `abort` ends it where `publish` has not been called."""

    def __init__(self, session: Session, target: str) -> None:
        """`target`: the mailbox's name in the store."""
        assert session.account is not None
        self._session = session
        self._account = session.account
        self._target = target
        self._messages: list[IncomingMessage] = []
        self.urls = 0
        """URLs of the command so far (RFC 4469)."""
        self._octets = 0
        """Octets announced or written so far."""
        self._checked = 0
        """Octets that the quota has had room for."""
        self._held = 0

    @property
    def target(self) -> str:
        """The mailbox's name in the store."""
        return self._target

    @property
    def count(self) -> int:
        """The number of messages so far."""
        return len(self._messages)

    @property
    def octets(self) -> int:
        """Their octets."""
        return self._octets

    async def check_target(self) -> None:
        """Raises: TryCreate unless the mailbox exists, OverQuota if what was announced does not fit."""

        def check() -> None:
            self._account.account.mailbox(self._target)
            self._check_quota()

        try:
            await self._account.run(check)
        except NoSuchMailbox as error:
            raise TryCreate(error.sentence) from None
        finally:
            self._account.report_quota()

    def check_room(self, messages: int, octets: int) -> None:
        """In the account's thread: refuse what certainly does not fit. Raises: OverQuota."""
        self._account.account.check_quota(messages, octets)

    def _check_quota(self) -> None:
        octets = self._octets
        self.check_room(self.count, octets)
        self._checked = octets

    def begin(self, arguments: MessageArguments) -> IncomingMessage:
        """Add a message. Raises: LimitReached, TooManyMessages."""
        limit = save_limit(self._session)
        if len(self._messages) >= min(limit or MOST_MESSAGES, MOST_MESSAGES):
            raise (
                TooManyMessages(min(limit, MOST_MESSAGES))
                if limit
                else LimitReached("too many messages for one command")
            )
        message = IncomingMessage(arguments)
        self._messages.append(message)
        return message

    def announce(self, message: IncomingMessage, octets: int) -> None:
        """Note that so many octets of the message follow, before they are asked for. Raises: TooBig."""
        largest = self._session.services.mail.max_message_size
        message.size += octets
        self._octets += octets
        if message.size > largest:
            raise TooBig("the message is larger than APPENDLIMIT")
        if self._octets > max(largest, MOST_OCTETS):
            raise TooBig("the messages of one command are too large together")

    async def write(self, message: IncomingMessage, data: bytes) -> None:
        """Add octets that were announced. Raises: NoSpace, StoreUnavailable."""
        if message.refusal is not None:
            return
        assert message.headers is not None
        try:
            for _ in message.headers.writing(data):
                await self._session.channel.drain()
        except TooBig as error:
            self._refuse(message, error)
            return
        message.pieces.append(data)
        self._held += len(data)
        if self._held >= PIECE:
            try:
                await self._account.run(self._write_more)
            except OverQuota as error:
                self._refuse(message, error)
            finally:
                self._account.report_quota()

    async def end(self, message: IncomingMessage) -> None:
        """Note the end of a message. Raises: BadMessage for an empty one."""
        if not message.size:
            raise BadMessage("a message must not be empty")
        if message.refusal is None and message.headers is not None:
            try:
                for _ in message.headers.finishing():
                    await self._session.channel.drain()
            except TooBig as error:
                self._refuse(message, error)
        message.complete = True
        message.headers = None

    def _refuse(self, message: IncomingMessage, error: MailError) -> None:
        message.refusal = error
        self._held -= sum(map(len, message.pieces))
        message.pieces.clear()

    async def publish(self) -> Appended:
        """Make all messages visible, or none. Raises: TryCreate, LimitReached, NoSpace, StoreUnavailable, InUse."""
        try:
            with updates.listening(self._session.selected, self._target):
                return await self.store(self._account)
        except NoSuchMailbox as error:
            raise TryCreate(error.sentence) from None

    async def store(self, account: LiveAccount) -> Appended:
        """Do the change of the store that publishes the messages. Raises: NoSuchMailbox, and as `publish`."""
        return await account.deliver(self.stage)

    def stage(self, _store: Account) -> Delivery:
        """In the account's thread: write out what is in memory. Nothing stays staged if that fails."""
        try:
            self._write_out()
            new = [
                NewMessage(message.staged, message.arguments.flags, message.arguments.date)
                for message in self._messages
                if message.staged is not None
            ]
        except BaseException:
            self._abort()
            raise
        return Delivery(self._target, new)

    async def abort(self) -> None:
        """Remove what was received."""
        if any(message.staged is not None for message in self._messages):
            await self._account.run(self._abort)

    def _write_more(self) -> None:
        # What is announced with the first literal was checked then; further messages, and URLs, were not.
        if self._octets > self._checked:
            self._check_quota()
        self._write_out()

    def _write_out(self) -> None:
        """Write what is in memory to files. One message alone is synced when it is published."""
        for message in self._messages:
            pieces, message.pieces = message.pieces, []
            if not pieces:
                continue
            if message.staged is None:
                message.staged = self._account.account.stage()
            message.staged.write(b"".join(pieces))
        self._held = 0
        for message in self._messages:
            if message.binary and message.complete and message.staged is not None:
                message.binary = False
                self._encode(message, message.staged)
        if len(self._messages) > 1:
            for message in self._messages:
                if message.complete and message.staged is not None:
                    message.staged.finish(message.arguments.date)

    def _encode(self, message: IncomingMessage, received: StagedMessage) -> None:
        """Put a message without binary content in the place of what was received. Raises: UnknownEncoding."""
        pieces = without_binary(received.content())
        if pieces is not None:
            message.staged = self._account.account.stage()
            for piece in pieces:
                message.staged.write(piece)
            received.abort()

    def _abort(self) -> None:
        for message in self._messages:
            if message.staged is not None:
                message.staged.abort()
