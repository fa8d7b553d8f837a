"""CAPABILITY, NOOP, CHECK, LOGOUT and ENABLE (RFC 3501 6.1, 6.4.1; RFC 5161)."""

from __future__ import annotations

from mailserver.errors import BadSyntax
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import ANY, LOGGED_IN, Command, CommandSpec, State
from mailserver.imap.rev2 import IMAP4REV2
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


async def enable(session: Session, command: Command) -> None:
    """RFC 5161: turn extensions on; unknown ones, and those that need no enabling, are ignored.

    3.1 has it in authenticated state alone. Clients send it with a mailbox selected (Ruby's Net::IMAP), and Dovecot takes it.
    Raises: BadSyntax for an extension that would change the form of messages which the client has seen.
    """
    reader = command.reader
    reader.read_sp()
    names = [reader.read_word()]
    while reader.skip(b" "):
        names.append(reader.read_word())
    reader.read_end()
    if session.selected is not None and any(
        each.only_unselected and each.token.upper() in names for each in session.services.capabilities
    ):
        raise BadSyntax("close the mailbox first")
    enabled = []
    for each in session.services.capabilities:
        if each.token.upper() in names and each.enable is not None and each.token not in session.enabled:
            if not session.without_hidden([each.token]):
                continue
            each.enable(session)
            session.enabled.add(each.token)
            enabled.append(each.token)
    session.untagged(" ".join(["ENABLED", *enabled]).encode("ascii"))


def offer_literal(session: Session) -> list[str]:
    """LITERAL+ or LITERAL-, as configured."""
    return ["LITERAL+" if session.services.config.literal == "plus" else "LITERAL-"]


IMAP4REV1 = Capability("IMAP4rev1", "RFC 3501", __name__, "capability")
LITERAL = Capability("LITERAL", "RFC 7888", __name__, "literal-minus", offer=offer_literal, when="always")
ENABLE = Capability("ENABLE", "RFC 5161", __name__, "enable")

COMMANDS = (
    CommandSpec(
        "CAPABILITY",
        ANY,
        capability,
        capabilities=(IMAP4REV1, IMAP4REV2, LITERAL),
        reference="RFC 3501, RFC 7888, RFC 9051",
        cost=CONSTANT,
    ),
    CommandSpec("NOOP", ANY, noop, cost=CHANGES),
    CommandSpec("LOGOUT", ANY, logout, cost=CONSTANT),
    CommandSpec("CHECK", State.SELECTED, noop, cost=CHANGES),
    CommandSpec("ENABLE", LOGGED_IN, enable, capabilities=(ENABLE,), reference="RFC 5161", cost=CONSTANT),
)
