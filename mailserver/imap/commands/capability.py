"""CAPABILITY, NOOP, CHECK, LOGOUT, ID and ENABLE (RFC 3501 6.1, 6.4.1; RFC 2971; RFC 5161)."""

from __future__ import annotations

from mailserver.errors import BadSyntax
from mailserver.imap.command import ANY, LOGGED_IN, Command, CommandSpec, State
from mailserver.imap.session import Session
from mailserver.session.cost import CHANGES, CONSTANT


async def capability(session: Session, command: Command) -> None:
    """RFC 3501 6.1.1."""
    command.reader.read_end()
    session.untagged(b"CAPABILITY " + session.capabilities().encode("ascii"))


async def noop(_session: Session, command: Command) -> None:
    """RFC 3501 6.1.2 and 6.4.1: the closing sync sends all that is new."""
    command.reader.read_end()


async def logout(session: Session, command: Command) -> None:
    """RFC 3501 6.1.3."""
    command.reader.read_end()
    session.close_mailbox()
    session.bye("logging out")


MAX_ID_PAIRS = 30
"""RFC 2971 3.3 bounds fields to 30 octets, values to 1024, pairs to 30."""

LOGGED_ID = 256
"""Characters of an ID that the log keeps: anybody can send one."""


async def identify(session: Session, command: Command) -> None:
    """RFC 2971: the client's first ID goes to the log, and nothing depends on it."""
    reader = command.reader
    reader.read_sp()
    fields: dict[str, str] = {}
    if reader.skip(b"("):
        while not reader.skip(b")"):
            if fields:
                reader.read_sp()
            name = reader.read_string()
            reader.read_sp()
            value = reader.read_nstring()
            if len(name) > 30 or len(value or b"") > 1024 or len(fields) >= MAX_ID_PAIRS:
                raise BadSyntax("an ID field is too long, or there are too many")
            fields[name.decode("utf-8", "replace").lower()] = (value or b"").decode("utf-8", "replace")
    elif reader.read_nstring() is not None:
        raise BadSyntax("expected ( or NIL")
    reader.read_end()
    if fields and not session.identified:
        session.identified = True
        text = " ".join(f"{key}={value}" for key, value in fields.items())
        session.channel.log("client", user=session.user, id=text[:LOGGED_ID])
    session.untagged(b'ID ("name" "mailserver")')


async def enable(session: Session, command: Command) -> None:
    """RFC 5161: unknown extensions are ignored, and none of ours needs enabling.

    3.1 has it in authenticated state alone. Clients send it with a mailbox selected (Ruby's Net::IMAP), and Dovecot takes it.
    """
    reader = command.reader
    reader.read_sp()
    reader.read_atom()
    while reader.skip(b" "):
        reader.read_atom()
    reader.read_end()
    session.untagged(b"ENABLED")


COMMANDS = (
    CommandSpec("CAPABILITY", ANY, capability, cost=CONSTANT),
    CommandSpec("NOOP", ANY, noop, cost=CHANGES),
    CommandSpec("LOGOUT", ANY, logout, cost=CONSTANT),
    CommandSpec("CHECK", State.SELECTED, noop, cost=CHANGES),
    CommandSpec("ID", ANY, identify, capabilities=("ID",), reference="RFC 2971", cost=CONSTANT),
    CommandSpec("ENABLE", LOGGED_IN, enable, capabilities=("ENABLE",), reference="RFC 5161", cost=CONSTANT),
)
