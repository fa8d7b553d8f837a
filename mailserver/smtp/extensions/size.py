"""SIZE (RFC 1870): the largest message that is accepted, and the size that a client declares in MAIL."""

from __future__ import annotations

import re

from mailserver.errors import BadSyntax, TooBig
from mailserver.smtp.command import Extension, Parameter
from mailserver.smtp.session import Session

_SIZE = re.compile(r"[0-9]{1,20}")


def offer(session: Session) -> str:
    """The EHLO line (RFC 1870 3)."""
    return f"SIZE {session.common.mail.max_message_size}"


def parse_size(session: Session, value: str | None) -> int:
    """The octets that MAIL declares (RFC 1870 6). Raises: BadSyntax, TooBig."""
    if value is None or not _SIZE.fullmatch(value):
        raise BadSyntax("SIZE is a number of octets")
    size = int(value)
    if size > session.common.mail.max_message_size:
        raise TooBig(f"messages are at most {session.common.mail.max_message_size} octets")
    return size


EXTENSIONS = (Extension("SIZE", "RFC 1870", offer, mail=(Parameter("SIZE", parse_size),), defined_in=__name__),)
