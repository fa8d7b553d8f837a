"""STLS (RFC 2595 4)."""

from __future__ import annotations

from mailserver.errors import BadSyntax, WrongState
from mailserver.pop3.command import AUTHORIZATION, Capability, CommandSpec, State
from mailserver.pop3.session import Session
from mailserver.session.cost import CONSTANT


def offer(session: Session) -> str | None:
    """The line of CAPA, where TLS can be started and has not been."""
    info = session.channel.info
    offered = info.starttls_offered and info.tls is None and session.state is State.AUTHORIZATION
    return "STLS" if offered else None


async def stls(session: Session, argument: bytes) -> None:
    """STLS (RFC 2595 4). What the client said before is forgotten; an octet behind the command ends the connection."""
    if argument:
        raise BadSyntax("STLS takes no argument")
    info = session.channel.info
    if info.tls is not None or not info.starttls_offered:
        raise WrongState("TLS cannot be started here")
    if session.utf8:
        raise WrongState("STLS must come before UTF8")  # RFC 6856 2.1
    if session.reader.pending:
        session.channel.log("plaintext-behind-stls")
        session.error("nothing may follow STLS before the handshake")
        session.end()
        return
    session.ok("begin TLS")
    await session.channel.start_tls()
    session.user_name = None


COMMANDS = (CommandSpec(b"STLS", AUTHORIZATION, stls, "RFC 2595 4", (Capability("STLS", offer),), cost=CONSTANT),)
