"""STAT, LIST, UIDL, DELE and RSET: the listing of a maildrop and its marks (RFC 1939 5 and 7)."""

from __future__ import annotations

import re
from collections.abc import Callable

from mailserver.errors import BadSyntax
from mailserver.pop3.command import TRANSACTION, Capability, CommandSpec, no_argument
from mailserver.pop3.session import Session
from mailserver.session.cost import CONSTANT, Cost

_NUMBER = re.compile(rb"[0-9]{1,10}")
_LINES_AT_ONCE = 2048
"""Lines of a listing that are written before a wait for the client to take them."""


def read_number(text: bytes) -> int:
    """A number. Raises: BadSyntax."""
    if not _NUMBER.fullmatch(text):
        raise BadSyntax("a number of digits is expected")
    return int(text)


def read_message(session: Session, argument: bytes) -> int:
    """A message number. Raises: BadSyntax unless it is digits and names a message not marked deleted."""
    number = read_number(argument)
    session.maildrop.check(number)
    return number


async def _write_listing(session: Session, write_line: Callable[[int], str]) -> None:
    for numbers in session.maildrop.slices(_LINES_AT_ONCE):
        session.channel.write("".join(map(write_line, numbers)).encode("ascii"))
        await session.channel.drain()
    session.channel.write(b".\r\n")


async def stat(session: Session, argument: bytes) -> None:
    """STAT (RFC 1939 5): messages and octets, deleted ones not counted."""
    no_argument(argument)
    count, octets = session.maildrop.total
    session.ok(f"{count} {octets}")


async def list_(session: Session, argument: bytes) -> None:
    """LIST (RFC 1939 5): sizes as sent."""
    maildrop = session.maildrop
    if argument:
        number = read_message(session, argument)
        session.ok(f"{number} {maildrop.size(number)}")
        return
    count, octets = maildrop.total
    session.ok(f"{count} messages ({octets} octets)")
    await _write_listing(session, lambda number: f"{number} {maildrop.size(number)}\r\n")


async def uidl(session: Session, argument: bytes) -> None:
    """UIDL (RFC 1939 7): unique-ids in the configured format."""
    maildrop, uidl_format = session.maildrop, session.services.uidl_format
    if argument:
        number = read_message(session, argument)
        session.ok(f"{number} {maildrop.unique_id(number, uidl_format)}")
        return
    session.ok("unique-ids follow")
    await _write_listing(session, lambda number: f"{number} {maildrop.unique_id(number, uidl_format)}\r\n")


async def dele(session: Session, argument: bytes) -> None:
    """DELE (RFC 1939 5): marks the message; QUIT deletes it."""
    number = read_message(session, argument)
    session.maildrop.delete(number)
    session.ok("marked deleted")


async def rset(session: Session, argument: bytes) -> None:
    """RSET (RFC 1939 5): removes all marks."""
    no_argument(argument)
    session.maildrop.reset()
    count, octets = session.maildrop.total
    session.ok(f"{count} messages ({octets} octets)")


COMMANDS = (
    CommandSpec(b"STAT", TRANSACTION, stat, "RFC 1939 5", cost=Cost("messages")),
    CommandSpec(b"LIST", TRANSACTION, list_, "RFC 1939 5", cost=Cost("messages; constant with a number")),
    CommandSpec(
        b"UIDL", TRANSACTION, uidl, "RFC 1939 7", (Capability("UIDL"),), cost=Cost("messages; constant with a number")
    ),
    CommandSpec(b"DELE", TRANSACTION, dele, "RFC 1939 5", cost=CONSTANT),
    CommandSpec(b"RSET", TRANSACTION, rset, "RFC 1939 5", cost=Cost("messages")),
)
