"""Commands on the maildrop, and the table of all POP3 commands (RFC 1939 5 to 7)."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from mailserver.errors import BadSyntax, ConnectionLost, MailError
from mailserver.pop3 import login
from mailserver.pop3.spec import CommandSpec, State
from mailserver.pop3.wire import TopCutter
from mailserver.session.cost import ACCOUNT, BOTH, CONSTANT, Cost
from mailserver.session.line_session import build_table
from mailserver.session.lines import DotStuffer, stuffed

if TYPE_CHECKING:
    from mailserver.pop3.session import Session


_NUMBER = re.compile(rb"[0-9]{1,10}")
_LINES_AT_ONCE = 2048
"""Lines of a listing written before the client's pace is asked for."""


def _read_number(text: bytes) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadSyntax("a number of digits is expected")
    return int(text)


def _read_message(session: Session, argument: bytes) -> int:
    """A message number. Raises: BadSyntax unless it is digits and names a message not marked deleted."""
    number = _read_number(argument)
    session.maildrop.check(number)
    return number


def _no_argument(argument: bytes) -> None:
    if argument:
        raise BadSyntax("no argument is expected")


async def _write_listing(session: Session, write_line: Callable[[int], str]) -> None:
    numbers = session.maildrop.numbers()
    for start in range(0, len(numbers), _LINES_AT_ONCE):
        lines = map(write_line, numbers[start : start + _LINES_AT_ONCE])
        session.channel.write("".join(lines).encode("ascii"))
        await session.channel.drain()
    session.channel.write(b".\r\n")


async def stat(session: Session, argument: bytes) -> None:
    """STAT (RFC 1939 5): messages and octets, deleted ones not counted."""
    _no_argument(argument)
    count, octets = session.maildrop.total
    session.ok(f"{count} {octets}")


async def list_(session: Session, argument: bytes) -> None:
    """LIST (RFC 1939 5): sizes as sent."""
    maildrop = session.maildrop
    if argument:
        number = _read_message(session, argument)
        session.ok(f"{number} {maildrop.size(number)}")
        return
    count, octets = maildrop.total
    session.ok(f"{count} messages ({octets} octets)")
    await _write_listing(session, lambda number: f"{number} {maildrop.size(number)}\r\n")


async def uidl(session: Session, argument: bytes) -> None:
    """UIDL (RFC 1939 7): unique-ids in the configured format."""
    maildrop, uidl_format = session.maildrop, session.services.uidl_format
    if argument:
        number = _read_message(session, argument)
        session.ok(f"{number} {maildrop.unique_id(number, uidl_format)}")
        return
    session.ok("unique-ids follow")
    await _write_listing(session, lambda number: f"{number} {maildrop.unique_id(number, uidl_format)}\r\n")


async def retr(session: Session, argument: bytes) -> None:
    """RETR (RFC 1939 5)."""
    number = _read_message(session, argument)
    text = session.maildrop.take_ahead(number)
    if text is None:
        await _send(session, number, None)
        return
    session.channel.write(b"+OK %d octets\r\n%b" % (len(text), stuffed(text)))
    await session.channel.drain()
    session.maildrop.retrieved(number)


async def top(session: Session, argument: bytes) -> None:
    """TOP (RFC 1939 7): the header, the empty line and that many lines of the body."""
    first, _, second = argument.partition(b" ")
    number, lines = _read_number(first), _read_number(second)
    session.maildrop.check(number)
    await _send(session, number, TopCutter(lines))


async def _send(session: Session, number: int, cutter: TopCutter | None) -> None:
    channel, stuffer = session.channel, DotStuffer()
    started = False
    async with aclosing(session.maildrop.read(number)) as pieces:
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
            # The message broke off in the middle: the client must not take it for whole.
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


async def dele(session: Session, argument: bytes) -> None:
    """DELE (RFC 1939 5): only marks; QUIT deletes."""
    number = _read_message(session, argument)
    session.maildrop.delete(number)
    session.ok("marked deleted")


async def noop(session: Session, argument: bytes) -> None:
    """NOOP (RFC 1939 5)."""
    _no_argument(argument)
    session.ok("nothing done")


async def rset(session: Session, argument: bytes) -> None:
    """RSET (RFC 1939 5): no message is marked deleted any more."""
    _no_argument(argument)
    session.maildrop.reset()
    count, octets = session.maildrop.total
    session.ok(f"{count} messages ({octets} octets)")


async def quit_(session: Session, argument: bytes) -> None:
    """QUIT (RFC 1939 4 and 6): in TRANSACTION, what is marked deleted is removed first, in one operation.

    So is \\Seen stored of what was retrieved.
    """
    _no_argument(argument)
    session.end()
    if session.state is State.TRANSACTION:
        removed = await session.maildrop.update()
        if removed:
            session.channel.log("expunge", user=session.user.name if session.user else None, messages=removed)
    session.ok("goodbye")


_TRANSACTION = frozenset([State.TRANSACTION])
_ANY = frozenset(State)

COMMANDS = build_table(
    login.COMMANDS,
    (
        CommandSpec(b"STAT", _TRANSACTION, stat, "RFC 1939 5", cost=Cost("messages")),
        CommandSpec(b"LIST", _TRANSACTION, list_, "RFC 1939 5", cost=Cost("messages; constant with a number")),
        CommandSpec(b"UIDL", _TRANSACTION, uidl, "RFC 1939 7", cost=Cost("messages; constant with a number")),
        CommandSpec(b"RETR", _TRANSACTION, retr, "RFC 1939 5", cost=Cost("octets of the message", BOTH)),
        CommandSpec(
            b"TOP", _TRANSACTION, top, "RFC 1939 7", cost=Cost("octets of the header and of the lines named", BOTH)
        ),
        CommandSpec(b"DELE", _TRANSACTION, dele, "RFC 1939 5", cost=CONSTANT),
        CommandSpec(b"NOOP", _TRANSACTION, noop, "RFC 1939 5", cost=CONSTANT),
        CommandSpec(b"RSET", _TRANSACTION, rset, "RFC 1939 5", cost=Cost("messages")),
        CommandSpec(
            b"QUIT", _ANY, quit_, "RFC 1939 6", cost=Cost("messages marked deleted, messages retrieved", ACCOUNT)
        ),
    ),
)
