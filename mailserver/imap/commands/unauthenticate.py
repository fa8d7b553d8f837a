"""UNAUTHENTICATE (RFC 8437): back to the state before the login, for a client that acts for one user after another."""

from __future__ import annotations

from mailserver.errors import BadSyntax, LimitReached
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.session import Session
from mailserver.session.cost import CONSTANT


async def unauthenticate(session: Session, command: Command) -> str:
    """RFC 8437 3. It is never answered by NO, as a client may send AUTHENTICATE behind it: what cannot be done ends the session.

    It is not offered while COMPRESS is active: octets behind the command could be compressed or not.
    """
    command.reader.read_end()
    if session.channel.compressed:
        raise BadSyntax("not offered while DEFLATE is active")
    session.leave()
    try:
        session.channel.logged_out()
    except LimitReached as error:
        session.bye(error.sentence)
    return "logged out, log in again"


def offer_unauthenticate(session: Session) -> list[str]:
    """UNAUTHENTICATE, once logged in and while COMPRESS is not active."""
    return [] if session.account is None or session.channel.compressed else ["UNAUTHENTICATE"]


UNAUTHENTICATE = Capability(
    "UNAUTHENTICATE",
    "RFC 8437",
    __name__,
    "unauthenticate",
    offer=offer_unauthenticate,
    when="logged in, unless COMPRESS is active",
)

COMMANDS = (
    CommandSpec(
        "UNAUTHENTICATE",
        LOGGED_IN,
        unauthenticate,
        capabilities=(UNAUTHENTICATE,),
        reference="RFC 8437",
        cost=CONSTANT,
    ),
)
