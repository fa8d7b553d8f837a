"""APPEND (RFC 3501 6.3.11): the message goes from the connection straight to a file, never into memory whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver.errors import BadMessage, BadSyntax, NoSuchMailbox, TooBig
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec, TryCreate
from mailserver.imap.session import Session
from mailserver.store.interfaces import NewMessage, Staged
from mailserver.store.live import LiveAccount

PIECE = 256 * 1024
"""Octets gathered before they are written in one hop to the account's thread."""

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
    announced = session.input.announced
    if announced is None:
        raise BadSyntax("expected the message as a literal")
    if announced.size > session.services.mail.max_message_size:
        raise TooBig("the message is larger than APPENDLIMIT")
    if announced.size == 0:
        raise BadMessage("an empty message is not kept")
    account = session.account
    assert account is not None
    target = session.services.namespace.to_store(name)
    staged = await account.run(lambda: _begin(account, target))
    try:
        await _receive(session, account, staged)
        try:
            appended = await account.append(target, [NewMessage(staged, frozenset(flags), date)])
        except NoSuchMailbox as error:
            raise TryCreate(error.sentence) from None
    finally:
        await account.run(staged.abort)
    session.channel.log("append", user=session.user, size=announced.size)
    return f"[APPENDUID {appended.uid_validity} {appended.uids[0]}] appended"


def _begin(account: LiveAccount, target: str) -> Staged:
    try:
        account.account.mailbox(target)
    except NoSuchMailbox as error:
        raise TryCreate(error.sentence) from None
    return account.account.stage()


async def _receive(session: Session, account: LiveAccount, staged: Staged) -> None:
    """The literal into the file, and the end of the command behind it."""
    session.input.accept_literal()
    pieces: list[bytes] = []
    size = 0
    while (piece := await session.input.literal_piece()) is not None:
        if b"\0" in piece:
            raise BadSyntax("a literal may not contain NUL")  # RFC 3501 9: CHAR8
        pieces.append(piece)
        size += len(piece)
        if size >= PIECE:
            await _write(account, staged, pieces)
            pieces, size = [], 0
    if pieces:
        await _write(account, staged, pieces)
    if await session.input.next_text() or session.input.announced is not None:
        raise BadSyntax("expected the end of the command")


async def _write(account: LiveAccount, staged: Staged, pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    await account.run(lambda: staged.write(data))


COMMANDS = (
    CommandSpec(
        "APPEND",
        LOGGED_IN,
        append,
        capabilities=("UIDPLUS", "APPENDLIMIT"),
        reference="RFC 3501, RFC 4315, RFC 7889",
        max_literal=4096,
        streams=is_message,
    ),
)
