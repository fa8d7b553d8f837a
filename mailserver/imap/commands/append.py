"""APPEND (RFC 3501 6.3.11) of one message or several (RFC 3502), each a literal or made of parts (RFC 4469).

A large message goes from the connection straight to a file and is never held in memory whole. Small ones are received whole
and stored in one operation of the account's thread. Where the client waits for a continuation request, the mailbox is looked
up before it is sent; a client that does not wait gets the error afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver.imap.append.catenate import CATENATE, URL_PARTIAL
from mailserver.imap.append.incoming import IncomingMessages
from mailserver.imap.append.message import receive_message
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.commands.expunge import UIDPLUS
from mailserver.imap.commands.status import APPENDLIMIT
from mailserver.imap.fetch.binary import BINARY
from mailserver.imap.message_limit import MESSAGELIMIT, SAVELIMIT
from mailserver.imap.quota_limits import update_quota
from mailserver.imap.session import Session
from mailserver.imap.utf8_accept import UTF8_ACCEPT
from mailserver.imap.wire.reader import Reader
from mailserver.imap.wire.sequence_set import format_set
from mailserver.session.cost import Cost

_BEFORE_MAILBOX = re.compile(rb"[^ ]+ append *", re.IGNORECASE)


def is_message(parts: Sequence[bytes]) -> bool:
    """Is the announced literal the message, and not the mailbox's name?"""
    return len(parts) > 1 or not _BEFORE_MAILBOX.fullmatch(parts[0])


async def append(session: Session, command: Command) -> str:
    """RFC 3501 6.3.11, RFC 3502, with APPENDUID (RFC 4315 3). Sizes and mailbox are checked before octets are asked for."""
    reader = command.reader
    reader.read_sp()
    name = reader.read_mailbox()
    messages = IncomingMessages(session, session.services.namespace.to_store(name))
    await update_quota(session)
    try:
        await _receive(session, messages, reader)
    except BaseException:
        await messages.abort()
        raise
    appended = await messages.publish()
    session.note_own_messages(appended.mailbox, appended.uids)
    session.channel.log("append", user=session.user, size=messages.octets, messages=messages.count)
    return f"[APPENDUID {appended.uid_validity} {format_set(appended.uids).decode('ascii')}] appended"


async def _receive(session: Session, messages: IncomingMessages, reader: Reader) -> None:
    """Receive all messages and the end of the command."""
    while True:
        reader = await receive_message(session, messages, reader)
        if reader.at_end and session.input.announced is None:
            return
        # Many tiny messages may have come at once: others have their turn between them.
        await session.channel.drain()


MULTIAPPEND = Capability("MULTIAPPEND", "RFC 3502", __name__, "multiappend")

COMMANDS = (
    CommandSpec(
        "APPEND",
        LOGGED_IN,
        append,
        capabilities=(
            UIDPLUS,
            APPENDLIMIT,
            MULTIAPPEND,
            BINARY,
            CATENATE,
            URL_PARTIAL,
            UTF8_ACCEPT,
            MESSAGELIMIT,
            SAVELIMIT,
        ),
        reference="RFC 3501, RFC 3502, RFC 3516, RFC 4315, RFC 4469, RFC 5550, RFC 6855, RFC 7889, RFC 9738, RFC 9755",
        max_literal=4096,
        streams=is_message,
        cost=Cost("octets of the messages", "reactor (receiving), account's thread (writing)"),
    ),
)
