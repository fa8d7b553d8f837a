"""STARTTLS (RFC 3207)."""

from __future__ import annotations

from typing import ClassVar

from mailserver.errors import MailError, WrongState
from mailserver.session.cost import CONSTANT
from mailserver.smtp.command import CommandSpec, Extension, no_argument
from mailserver.smtp.session import Session
from mailserver.smtp.wire import reply


class TLSNotAvailable(MailError):
    """RFC 3207 4."""

    smtp_reply: ClassVar[tuple[int, str]] = (454, "4.7.0")
    text = "TLS is not available here"


def offer(session: Session) -> str | None:
    """The EHLO line, where TLS can be started and has not been."""
    info = session.channel.info
    return "STARTTLS" if info.starttls_offered and info.tls is None else None


async def starttls(session: Session, argument: bytes) -> None:
    """STARTTLS (RFC 3207 4). What the client said before is forgotten; an octet behind the command ends the connection."""
    no_argument("STARTTLS", argument)
    info = session.channel.info
    if info.tls is not None:
        raise WrongState("TLS has been started already")
    if not info.starttls_offered:
        raise TLSNotAvailable
    if session.reader.pending:
        session.reply(reply(501, "5.5.2", "nothing may follow STARTTLS before the handshake"))
        session.channel.log("plaintext-behind-starttls")
        session.end()
        return
    await session.reset()
    session.reply(reply(220, "2.0.0", "begin TLS"))
    await session.channel.start_tls()
    session.hello, session.extended, session.user = None, False, None


EXTENSIONS = (
    Extension(
        "STARTTLS",
        "RFC 3207",
        offer,
        commands=(CommandSpec(b"STARTTLS", starttls, "RFC 3207 4", before_tls=True, cost=CONSTANT),),
        defined_in=__name__,
    ),
)
