"""CATENATE (RFC 4469): a message of literals and of parts of messages that are in the user's mailboxes, by URL.

A URL's octets are read in the account's thread, about PIECE at a time, and go the way of received ones. The same limits hold
for them. Nothing of the command is kept if one URL fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from mailserver.errors import (
    BadMailboxName,
    BadSyntax,
    LimitReached,
    MailboxChanged,
    MailError,
    MessageExpunged,
    NoSuchMailbox,
    TooBig,
)
from mailserver.imap.append.incoming import PIECE, IncomingMessage, IncomingMessages
from mailserver.imap.append.literal import announce_literal, receive_literal
from mailserver.imap.capabilities import Capability
from mailserver.imap.fetch.budget import UnlimitedBudget
from mailserver.imap.fetch.header_fields import SelectedFields
from mailserver.imap.fetch.open_message import OpenMessage
from mailserver.imap.fetch.section import PIECE as READ
from mailserver.imap.fetch.section import Section, read_section
from mailserver.imap.session import Session
from mailserver.imap.utf8_accept import begin_data
from mailserver.imap.wire.imap_url import LONGEST, ImapUrl, NoSuchUrl, parse_url
from mailserver.imap.wire.reader import Reader
from mailserver.store.interfaces import Account, MessageFile
from mailserver.types import UID

CATENATE: Final = Capability("CATENATE", "RFC 4469", __name__, "catenate")
URL_PARTIAL: Final = Capability("URL-PARTIAL", "RFC 5550", __name__, "catenate-urls")
MOST_URLS: Final = 100
"""URLs in one command: each may have a message's structure parsed."""


class BadUrl(MailError):
    """NO [BADURL url] (RFC 4469 4.1)."""

    text = "the URL names no message or part of one here"

    def __init__(self, url: bytes) -> None:
        super().__init__()
        shown = "".join(
            chr(octet) if 0x21 <= octet < 0x7F and octet not in b'"\\]' else f"%{octet:02X}" for octet in url
        )
        self.imap_code = f"BADURL {shown[:LONGEST]}"  # type: ignore[misc]


async def receive_parts(
    session: Session, messages: IncomingMessages, message: IncomingMessage, reader: Reader
) -> Reader:
    """`SP "(" cat-part *(SP cat-part) ")"`, from behind CATENATE; returns a reader of what follows.

    Raises: BadSyntax, BadUrl, TooBig, LimitReached, NoSpace, StoreUnavailable.
    """
    reader.read_sp()
    reader.take(b"(")
    while True:
        word = reader.read_word()
        reader.read_sp()
        if word == "TEXT":
            if not reader.at_end:
                raise BadSyntax("expected the text as a literal")
            announce_literal(session, messages, message, may_be_empty=True)
            await receive_literal(session, messages, message)
            reader = Reader([await session.input.next_text()])
        elif word == "UTF8":
            begin_data(session, reader)
            announce_literal(session, messages, message, may_be_empty=True)
            await receive_literal(session, messages, message)
            reader = Reader([await session.input.next_text()])
            reader.take(b")")
        elif word == "URL":
            url, reader = await _read_url(session, reader)
            if not url:
                raise BadSyntax("a URL is not empty")  # [BADURL ] could not name it
            messages.urls += 1
            if messages.urls > MOST_URLS:
                raise LimitReached("too many URLs in one command")
            await _copy(session, messages, message, url)
        else:
            raise BadSyntax("expected TEXT, UTF8 or URL")
        await session.channel.drain()
        if reader.skip(b")"):
            return reader
        reader.read_sp()


async def _read_url(session: Session, reader: Reader) -> tuple[bytes, Reader]:
    """An astring, which may be a literal, and a reader of what follows."""
    announced = session.input.announced
    if not reader.at_end or announced is None:
        return reader.read_astring(), reader
    if announced.literal8:
        raise BadSyntax("a URL is no binary literal")
    if announced.size > LONGEST:
        raise TooBig("the URL is too long")
    session.input.accept_literal()
    pieces = []
    while (piece := await session.input.literal_piece()) is not None:
        pieces.append(piece)
    return b"".join(pieces), Reader([await session.input.next_text()])


async def _copy(session: Session, messages: IncomingMessages, message: IncomingMessage, url: bytes) -> None:
    account = session.account
    assert account is not None
    part = _UrlPart(session, url)
    try:
        while data := await account.run(partial(part.read, account.account)):
            messages.announce(message, len(data))
            await messages.write(message, data)
            if message.refusal is not None:
                raise message.refusal
    except (NoSuchMailbox, MailboxChanged, MessageExpunged):
        raise BadUrl(url) from None
    finally:
        if part.is_open:
            await account.run(part.close)


class _UrlPart:
    """The octets of one URL; `read` and `close` are called in the account's thread."""

    def __init__(self, session: Session, url: bytes) -> None:
        """Raises: BadUrl for a URL of another kind, or of a mailbox or section that there cannot be."""
        self._url = url
        self._user = session.user
        try:
            self._named = parse_url(url)
            self._mailbox = _mailbox_of(session, self._named)
            self._section = _section_of(self._named)
        except (NoSuchUrl, BadSyntax, LimitReached, BadMailboxName, NoSuchMailbox):
            raise BadUrl(url) from None
        self._file: MessageFile | None = None
        self._pieces: Iterator[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Is there a file to close?"""
        return self._file is not None

    def read(self, account: Account) -> bytes:
        """The next octets, some PIECE at most; none at the end. Raises: NoSuchMailbox, MessageExpunged, BadUrl, StoreUnavailable."""
        if self._pieces is None:
            self._pieces = self._open(account)
        found: list[bytes] = []
        size = 0
        for piece in self._pieces:
            found.append(piece)
            size += len(piece)
            if size >= PIECE:
                break
        return b"".join(found)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, account: Account) -> Iterator[bytes]:
        named = self._named
        mailbox = account.mailbox(self._mailbox)
        if named.uid_validity is not None and mailbox.status().uid_validity != named.uid_validity:
            raise BadUrl(self._url)
        self._file = mailbox.open_message(UID(named.uid))
        message = OpenMessage(self._file, (self._user, mailbox.id, named.uid), (self._section,), UnlimitedBudget())
        return self._octets(message, self._file)

    def _octets(self, message: OpenMessage, file: MessageFile) -> Iterator[bytes]:
        resolving = message.resolve(self._section)
        while True:
            try:
                next(resolving)
            except StopIteration as end:
                found = end.value
                break
        if found is None:
            raise BadUrl(self._url)
        if isinstance(found, bytes):
            yield found
        elif isinstance(found, SelectedFields):
            for piece in found.pieces:
                if piece:
                    yield piece
        else:
            low, high = found
            while low < high and (data := file.read(low, min(READ, high - low))):
                low += len(data)
                yield data


def _mailbox_of(session: Session, url: ImapUrl) -> str:
    """The store's name. Raises: NoSuchUrl, BadMailboxName, NoSuchMailbox."""
    if url.mailbox is not None:
        return session.services.namespace.to_store(url.mailbox)
    if session.mailbox_name is None:
        raise NoSuchUrl
    return session.mailbox_name


def _section_of(url: ImapUrl) -> Section:
    """Raises: BadSyntax, LimitReached."""
    reader = Reader([url.section + b"]" + (b"<%d.%d>" % url.partial if url.partial else b"")])
    section = read_section(reader, "" if reader.peek(b"]") else reader.read_atom())
    reader.read_end()
    return section
