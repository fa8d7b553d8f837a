"""What is rendered once, when a message arrives, and answered from the index ever after.

The notation is IMAP's (RFC 3501 7.4.2), the field's common compact form of these facts. Every value is complete and
well-formed whatever the message is like, without literals that depend on the session.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Summary:
    """The pre-rendered facts of one message."""

    envelope: bytes
    """The parenthesised ENVELOPE value."""
    body: bytes
    """The parenthesised BODY value (no extension data)."""
    body_structure: bytes
    """The parenthesised BODYSTRUCTURE value."""
    fields: bytes
    """Raw header lines, CRLF ends, in order, of the fields in KEPT_FIELDS; answers BODY[HEADER.FIELDS] of those."""
    search: str
    """Decoded, case-folded header text for SEARCH: for each kept field, "\\n" + lower-case name + ":" + value."""
    sent: int | None
    """The Date field's day, days since 1970-01-01 in the zone it names; None when unusable."""
