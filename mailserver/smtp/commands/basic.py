"""NOOP, VRFY, HELP and QUIT: commands that touch no message (RFC 5321 4.1.1)."""

from __future__ import annotations

from mailserver.errors import BadSyntax
from mailserver.session.cost import CONSTANT
from mailserver.smtp.command import CommandSpec, no_argument
from mailserver.smtp.session import Session
from mailserver.smtp.wire import reply


async def noop(session: Session, argument: bytes) -> None:  # noqa: ARG001 - its argument means nothing
    """NOOP (RFC 5321 4.1.1.9)."""
    session.reply(reply(250, "2.0.0", "nothing done"))


async def vrfy(session: Session, argument: bytes) -> None:
    """VRFY (RFC 5321 3.5.3): does not disclose which users exist."""
    if not argument.strip():
        raise BadSyntax("VRFY needs an address")
    session.reply(reply(252, "2.5.2", "not verified: send the message, and it will be tried"))


async def help_(session: Session, argument: bytes) -> None:  # noqa: ARG001 - one text for all
    """HELP (RFC 5321 4.1.1.8): lists the commands."""
    session.reply(reply(214, "2.0.0", " ".join(sorted(name.decode("ascii") for name in session.commands))))


async def quit_(session: Session, argument: bytes) -> None:
    """QUIT (RFC 5321 4.1.1.10)."""
    no_argument("QUIT", argument)
    session.reply(reply(221, "2.0.0", "goodbye"))
    session.end()


COMMANDS = (
    CommandSpec(b"NOOP", noop, "RFC 5321 4.1.1.9", before_tls=True, cost=CONSTANT),
    CommandSpec(b"VRFY", vrfy, "RFC 5321 4.1.1.6", cost=CONSTANT),
    CommandSpec(b"HELP", help_, "RFC 5321 4.1.1.8", cost=CONSTANT),
    CommandSpec(b"QUIT", quit_, "RFC 5321 4.1.1.10", before_tls=True, cost=CONSTANT),
)
