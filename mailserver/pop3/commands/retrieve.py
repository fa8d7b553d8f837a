"""RETR and TOP: the text of a message (RFC 1939 5 and 7)."""

from __future__ import annotations

from contextlib import aclosing

from mailserver.errors import ConnectionLost, MailError
from mailserver.pop3.command import TRANSACTION, Capability, CommandSpec
from mailserver.pop3.commands.messages import read_message, read_number
from mailserver.pop3.session import Session
from mailserver.pop3.wire import TopCutter
from mailserver.session.cost import BOTH, Cost
from mailserver.session.lines import DotStuffer, dot_stuffed


async def retr(session: Session, argument: bytes) -> None:
    """RETR (RFC 1939 5)."""
    number = read_message(session, argument)
    text = session.maildrop.take_in_memory(number)
    if text is None:
        await _send(session, number, None)
        return
    session.channel.write(b"+OK %d octets\r\n%b" % (len(text), dot_stuffed(text)))
    await session.channel.drain()
    session.maildrop.retrieved(number)


async def top(session: Session, argument: bytes) -> None:
    """TOP (RFC 1939 7): the header, the empty line and that many lines of the body."""
    first, _, second = argument.partition(b" ")
    number, lines = read_number(first), read_number(second)
    session.maildrop.check(number)
    await _send(session, number, TopCutter(lines), only_header=not lines)


async def _send(session: Session, number: int, cutter: TopCutter | None, *, only_header: bool = False) -> None:
    channel, stuffer = session.channel, DotStuffer()
    started = False
    async with aclosing(session.maildrop.read(number, only_header=only_header)) as pieces:
        try:
            async for piece in pieces:
                if started:
                    await channel.drain()
                else:
                    session.ok(
                        f"{session.maildrop.size(number)} octets" if cutter is None else "top of message follows"
                    )
                    started = True
                channel.write(stuffer.stuff(piece if cutter is None else cutter.cut(piece)))
                if cutter is not None and cutter.done:
                    break
        except ConnectionLost:
            raise
        except Exception as error:
            if not started:
                raise
            # The message broke off in the middle: end the connection, so that the client does not take it for whole.
            if isinstance(error, MailError):
                channel.log("message-unreadable", number=number, reason=error.reason)
            else:
                channel.bug("sending a message")
            session.end()
            return
    channel.write(stuffer.finish())
    await channel.drain()
    if cutter is None:
        session.maildrop.retrieved(number)


COMMANDS = (
    CommandSpec(b"RETR", TRANSACTION, retr, "RFC 1939 5", cost=Cost("octets of the message", BOTH)),
    CommandSpec(
        b"TOP",
        TRANSACTION,
        top,
        "RFC 1939 7",
        (Capability("TOP"),),
        cost=Cost("octets of the header and of the lines named; with lines, and without UTF8, of the message", BOTH),
    ),
)
