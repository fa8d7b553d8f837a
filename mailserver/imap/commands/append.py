"""APPEND (RFC 3501 6.3.11): a large message goes from the connection straight to a file and is never held in memory whole.

A small one is received whole and stored in one operation of the account's thread. Where the client waits for a continuation
request, the mailbox is looked up before it is sent; a client that does not wait gets the error afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from mailserver.errors import BadMessage, BadSyntax, Cannot, NoSuchMailbox, TooBig
from mailserver.imap import updates
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec, TryCreate
from mailserver.imap.session import Session
from mailserver.message.header_size import HeaderSizeChecker
from mailserver.session.cost import Cost
from mailserver.store.interfaces import Account
from mailserver.store.live import LiveAccount
from mailserver.store.receiving import DATES, Appended, Delivery, NewMessage, StagedMessage

PIECE = 256 * 1024
"""Octets that are written in one operation of the account's thread; no more of a message is held in memory."""

Deliver = Callable[[StagedMessage], Delivery]
"""Makes the delivery of a staged message."""

_BEFORE_MAILBOX = re.compile(rb"[^ ]+ append *", re.IGNORECASE)


def is_message(parts: Sequence[bytes]) -> bool:
    """Is the announced literal the message, and not the mailbox's name?"""
    return len(parts) > 1 or not _BEFORE_MAILBOX.fullmatch(parts[0])


async def append(session: Session, command: Command) -> str:
    """RFC 3501 6.3.11, with APPENDUID (RFC 4315 3). Size and mailbox are checked before the octets are asked for."""
    reader = command.reader
    reader.read_sp()
    name = reader.read_mailbox()
    reader.read_sp()
    flags: list[str] = []
    if reader.peek(b"("):
        flags = reader.read_flags()
        reader.read_sp()
    date = None
    if reader.peek(b'"'):
        date = reader.read_date_time()
        reader.read_sp()
    reader.read_end()
    if date is not None and date not in DATES:
        # The file could not hold it: the next scan would find another date. "NO - error in flags or date/time" (RFC 3501 6.3.11).
        raise Cannot("dates before 1902 or after 2445 cannot be stored")
    announced = session.input.announced
    if announced is None:
        raise BadSyntax("expected the message as a literal")
    if announced.size > session.services.mail.max_message_size:
        raise TooBig("the message is larger than APPENDLIMIT")
    if announced.size == 0:
        raise BadMessage("a message must not be empty")
    account = session.account
    assert account is not None
    target = session.services.namespace.to_store(name)

    def deliver(staged: StagedMessage) -> Delivery:
        return Delivery(target, [NewMessage(staged, frozenset(flags), date)])

    try:
        if announced.size > PIECE:
            appended = await _append_large(session, account, target, deliver)
        else:
            appended = await _append_small(session, account, target, deliver, check=not announced.non_sync)
    except NoSuchMailbox as error:
        raise TryCreate(error.sentence) from None
    session.channel.log("append", user=session.user, size=announced.size)
    return f"[APPENDUID {appended.uid_validity} {appended.uids[0]}] appended"


async def _append_small(
    session: Session, account: LiveAccount, target: str, deliver: Deliver, *, check: bool
) -> Appended:  # fmt: skip
    if check:
        await account.run(lambda: _check(account, target))
    gathered: list[bytes] = []

    async def gather(pieces: list[bytes]) -> None:
        gathered.extend(pieces)

    await _receive(session, gather)

    def stage(store: Account) -> Delivery:
        staged = store.stage()
        try:
            staged.write(b"".join(gathered))
        except BaseException:
            staged.abort()
            raise
        return deliver(staged)

    with updates.listening(session.selected, target):
        return await account.deliver(stage)


async def _append_large(session: Session, account: LiveAccount, target: str, deliver: Deliver) -> Appended:
    def begin() -> StagedMessage:
        _check(account, target)
        return account.account.stage()

    staged = await account.run(begin)

    async def write(pieces: list[bytes]) -> None:
        data = b"".join(pieces)
        await account.run(lambda: staged.write(data))

    try:
        await _receive(session, write)
    except BaseException:
        await account.run(staged.abort)
        raise
    with updates.listening(session.selected, target):
        return await account.deliver(lambda _account: deliver(staged))


def _check(account: LiveAccount, target: str) -> None:
    """Find the mailbox, in the account's thread. Raises: NoSuchMailbox."""
    account.account.mailbox(target)


async def _receive(session: Session, take: Callable[[list[bytes]], Awaitable[None]]) -> None:
    """Receive the literal, in large pieces, and the end of the command behind it.

    Raises: TooBig for a header that is too large, at the end of the literal: the client sends all of it.
    """
    session.input.accept_literal()
    headers = HeaderSizeChecker()
    refusal: TooBig | None = None
    pieces: list[bytes] = []
    size = 0
    while (piece := await session.input.literal_piece()) is not None:
        if b"\0" in piece:
            raise BadSyntax("a literal may not contain NUL")  # RFC 3501 9: CHAR8
        if refusal is not None:
            continue
        try:
            for _ in headers.writing(piece):
                await session.channel.drain()
        except TooBig as error:
            refusal = error
            pieces.clear()
            continue
        pieces.append(piece)
        size += len(piece)
        if size >= PIECE:
            await take(pieces)
            pieces, size = [], 0
    if refusal is None:
        try:
            for _ in headers.finishing():
                await session.channel.drain()
        except TooBig as error:
            refusal = error
        else:
            if pieces:
                await take(pieces)
    if await session.input.next_text() or session.input.announced is not None:
        raise BadSyntax("expected the end of the command")
    if refusal is not None:
        raise refusal


COMMANDS = (
    CommandSpec(
        "APPEND",
        LOGGED_IN,
        append,
        capabilities=("UIDPLUS", "APPENDLIMIT"),
        reference="RFC 3501, RFC 4315, RFC 7889",
        max_literal=4096,
        streams=is_message,
        cost=Cost("octets of the messages", "reactor (receiving), account's thread (writing)"),
    ),
)
