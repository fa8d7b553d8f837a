"""What is rendered once, when a message arrives, and answered from the index ever after.

The notation is IMAP's (RFC 3501 7.4.2), the field's common compact form of these facts. Every value is complete and
well-formed whatever the message is like, without literals that depend on the session. `message.render.summarise`
makes it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

KEPT_FIELDS: Final = frozenset(
    {
        "bcc", "cc", "content-description", "content-disposition", "content-language", "content-transfer-encoding",
        "content-type", "date", "delivered-to", "disposition-notification-to", "followup-to", "from", "importance",
        "in-reply-to", "lines", "list-archive", "list-help", "list-id", "list-owner", "list-post", "list-subscribe",
        "list-unsubscribe", "mail-followup-to", "mail-reply-to", "message-id", "mime-version", "newsgroups",
        "organization", "priority", "references", "reply-to", "resent-date", "resent-from", "resent-to", "return-path",
        "sender", "subject", "to", "user-agent", "x-draft-info", "x-label", "x-mailer", "x-priority", "x-spam-flag",
        "x-spam-status", "x-uniform-type-identifier", "x-universally-unique-identifier",
    }
)  # fmt: skip
"""Lower-case names of the header fields whose lines a Summary keeps: what mail programs ask for in lists."""

KEPT_LIMIT: Final = 64 * 1024
"""Octets of kept lines; a message with more has INCOMPLETE in place of both `fields` and `search`."""

RENDERING: Final = 1
"""Counts the changes of what is rendered: summaries of another one are made anew. At most 255."""

INCOMPLETE: Final = "*"
"""Stands for kept lines that are not kept, as they are too many: the file must be read. No header starts so."""


class Summary(NamedTuple):
    """The pre-rendered facts of one message. Of one whose body has not been read, `body` and `body_structure` are empty."""

    envelope: bytes
    """The parenthesised ENVELOPE value."""
    body: bytes
    """The parenthesised BODY value (no extension data)."""
    body_structure: bytes
    """The parenthesised BODYSTRUCTURE value."""
    fields: bytes
    """Raw header lines, CRLF ends, in order, of the fields in KEPT_FIELDS (or INCOMPLETE); answers
    BODY[HEADER.FIELDS] of those."""
    search: str = INCOMPLETE
    """Decoded header text for SEARCH, folded by `message.text.fold`: for each kept field "\\n" + name + ": " + value;
    or INCOMPLETE."""
    sent: int | None = None
    """The Date field's day, days since 1970-01-01 in the zone it names; None when unusable."""
