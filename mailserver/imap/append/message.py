"""Receiving one message of APPEND or REPLACE: `append-message` of RFC 4466 6, with `append-data` of RFC 4469 5 and RFC 6855 4."""

from __future__ import annotations

from mailserver.imap.append.arguments import read_form, read_message_arguments
from mailserver.imap.append.catenate import receive_parts
from mailserver.imap.append.incoming import PIECE, IncomingMessages
from mailserver.imap.append.literal import announce_literal, receive_literal
from mailserver.imap.session import Session
from mailserver.imap.utf8_accept import begin_data
from mailserver.imap.wire.reader import Reader


async def receive_message(session: Session, messages: IncomingMessages, reader: Reader) -> Reader:
    """Receive a message from before its flags to behind its last octet. Return a reader of what follows.

    Raises: BadSyntax, Cannot, BadMessage, TooBig, BadUrl, TryCreate, LimitReached, OverQuota, NoSpace, StoreUnavailable, TimedOut.
    """
    message = messages.begin(read_message_arguments(reader))
    form = read_form(reader)
    if form == "CATENATE":
        if messages.count == 1:
            await messages.check_target()
        reader = await receive_parts(session, messages, message, reader)
        await messages.end(message)
    else:
        if form:
            reader.read_sp()
            begin_data(session, reader)
        waits = announce_literal(session, messages, message)
        if messages.count == 1 and (waits or message.size > PIECE):
            await messages.check_target()
        await receive_literal(session, messages, message)
        await messages.end(message)
        reader = Reader([await session.input.next_text()])
        if form:
            reader.take(b")")
    if message.refusal is not None:
        raise message.refusal
    return reader
