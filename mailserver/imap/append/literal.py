"""Receiving one literal of a message, piece by piece (RFC 3501 4.3, RFC 7888)."""

from __future__ import annotations

from mailserver.errors import BadMessage, BadSyntax
from mailserver.imap.append.incoming import IncomingMessage, IncomingMessages
from mailserver.imap.session import Session


def announce_literal(
    session: Session, messages: IncomingMessages, message: IncomingMessage, *, may_be_empty: bool = False
) -> bool:
    """Check the announced literal before its octets are asked for. Return whether the client waits for that.

    Raises: BadSyntax if there is none, TooBig.
    """
    announced = session.input.announced
    if announced is None:
        raise BadSyntax("expected the message as a literal")
    message.binary = message.binary or announced.literal8
    messages.announce(message, announced.size)
    if announced.size == 0 and not may_be_empty:
        raise BadMessage("a message must not be empty")
    return not announced.non_sync


async def receive_literal(session: Session, messages: IncomingMessages, message: IncomingMessage) -> None:
    """Ask for the announced literal if the client waits, and take its octets. Raises: BadSyntax for NUL, NoSpace, TimedOut."""
    is_binary = session.input.announced is not None and session.input.announced.literal8
    session.input.accept_literal()
    while (piece := await session.input.literal_piece()) is not None:
        if b"\0" in piece and not is_binary:
            raise BadSyntax("a literal may not contain NUL")  # RFC 3501 9: CHAR8
        await messages.write(message, piece)
