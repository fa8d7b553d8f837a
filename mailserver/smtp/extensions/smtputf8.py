"""SMTPUTF8 (RFC 6531): UTF-8 in addresses and header fields.

A message that needs it is not sent to a next hop without it: its recipients there are refused.
"""

from __future__ import annotations

from mailserver.errors import BadSyntax
from mailserver.smtp.command import Extension, Parameter
from mailserver.smtp.session import Session


def parse_smtputf8(_session: Session, value: str | None) -> bool:
    """SMTPUTF8 of MAIL (RFC 6531 3.4). Raises: BadSyntax."""
    if value is not None:
        raise BadSyntax("SMTPUTF8 has no value")
    return True


EXTENSIONS = (Extension("SMTPUTF8", "RFC 6531", mail=(Parameter("SMTPUTF8", parse_smtputf8),), defined_in=__name__),)
