"""UTF8=ACCEPT (RFC 9755): UTF-8 in mailbox names, in quoted strings and in the headers of messages, for clients that enable it.

Other clients get surrogates of messages with UTF-8 in headers (`message.surrogate`). Their APPEND of 8-bit headers is taken as
before, though RFC 9755 4 asks for NO: they copy old mail with raw 8-bit headers from elsewhere.
"""

from __future__ import annotations

from mailserver.errors import BadSyntax
from mailserver.imap.capabilities import Capability
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader


def enable(session: Session) -> None:
    """Do what ENABLE UTF8=ACCEPT does beyond being on."""
    session.utf8 = True


def refuse_charset(session: Session) -> None:
    """Refuse CHARSET in SEARCH, which would contradict UTF-8 (RFC 9755 3). Raises: BadSyntax."""
    if UTF8_ACCEPT.token in session.enabled:
        raise BadSyntax("no CHARSET after ENABLE UTF8=ACCEPT: everything is UTF-8")


def begin_data(session: Session, reader: Reader) -> None:
    """Read `SP "("` behind UTF8, up to the literal8 of APPEND or CATENATE (RFC 6855 4; clients of RFC 9755 do without).

    Raises: BadSyntax.
    """
    if UTF8_ACCEPT.token not in session.enabled:
        raise BadSyntax("UTF8 needs ENABLE UTF8=ACCEPT")
    reader.take(b"(")
    announced = session.input.announced
    if not reader.at_end or announced is None or not announced.literal8:
        raise BadSyntax("expected the message as a literal8")


UTF8_ACCEPT = Capability("UTF8=ACCEPT", "RFC 9755", __name__, "utf8-accept", enable=enable, only_unselected=True)
