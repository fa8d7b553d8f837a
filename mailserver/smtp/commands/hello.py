"""EHLO and HELO of submission, LHLO of LMTP."""

from __future__ import annotations

import re

from mailserver.errors import BadSyntax
from mailserver.session.cost import CONSTANT
from mailserver.smtp.address import is_hello_name
from mailserver.smtp.command import LMTP_ONLY, SUBMISSION_ONLY, CommandSpec
from mailserver.smtp.session import Session
from mailserver.smtp.wire import reply

_NAME = re.compile(r"[!-~]{1,255}")


async def ehlo(session: Session, argument: bytes) -> None:
    """EHLO (RFC 5321 4.1.1.1), LHLO (RFC 2033 4.1): lists the extensions. It ends a transaction."""
    await _greet(session, argument, extended=True)


async def helo(session: Session, argument: bytes) -> None:
    """HELO (RFC 5321 4.1.1.1)."""
    await _greet(session, argument, extended=False)


async def _greet(session: Session, argument: bytes, *, extended: bool) -> None:
    name = argument.decode("ascii", "replace").strip(" ")
    if not _NAME.fullmatch(name):
        raise BadSyntax("a host name or an address literal is expected")
    await session.reset()
    # Phones and old programs send what is neither. The name decides nothing, so they are served, and it is not repeated.
    session.hello, session.extended = name if is_hello_name(name) else "unknown", extended
    session.reply(reply(250, None, session.hostname, *(session.ehlo_lines() if extended else ())))


COMMANDS = (
    CommandSpec(b"EHLO", ehlo, "RFC 5321 4.1.1.1", before_tls=True, roles=SUBMISSION_ONLY, cost=CONSTANT),
    CommandSpec(b"HELO", helo, "RFC 5321 4.1.1.1", roles=SUBMISSION_ONLY, cost=CONSTANT),
    CommandSpec(b"LHLO", ehlo, "RFC 2033 4.1", before_tls=True, roles=LMTP_ONLY, cost=CONSTANT),
)
