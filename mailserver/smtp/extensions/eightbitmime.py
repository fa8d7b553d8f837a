"""8BITMIME (RFC 6152): messages may have octets above 127, whether BODY announces them or not."""

from __future__ import annotations

from mailserver.smtp.address import UnknownParameter
from mailserver.smtp.command import Extension, Parameter
from mailserver.smtp.session import Session


def parse_body(_session: Session, value: str | None) -> str:
    """BODY of MAIL (RFC 6152 2). Raises: UnknownParameter."""
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise UnknownParameter("BODY is 7BIT or 8BITMIME")
    return body


EXTENSIONS = (Extension("8BITMIME", "RFC 6152", mail=(Parameter("BODY", parse_body),), defined_in=__name__),)
