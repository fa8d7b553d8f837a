"""UTF8 (RFC 6856): messages with UTF-8 in headers as they are. Other sessions get surrogates (`message.surrogate`)."""

from __future__ import annotations

from mailserver.pop3.command import AUTHORIZATION, Capability, CommandSpec, no_argument
from mailserver.pop3.session import Session
from mailserver.session.cost import CONSTANT


def offer(session: Session) -> str:
    """The line of CAPA. Names and passwords may be UTF-8, before the command, too (RFC 6856 2.2), where they may come."""
    return "UTF8 USER" if session.channel.info.password_allowed else "UTF8"


async def utf8(session: Session, argument: bytes) -> None:
    """UTF8 (RFC 6856 2.1)."""
    no_argument(argument)
    session.utf8 = True
    session.ok("UTF-8 mode")


COMMANDS = (
    CommandSpec(
        b"UTF8",
        AUTHORIZATION,
        utf8,
        "RFC 6856 2.1",
        (Capability("UTF8", offer),),
        cost=CONSTANT,
    ),
)
