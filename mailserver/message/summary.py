"""The summary of a message: rendered once, at the first request, and answered from the index ever after.

The notation is IMAP's (RFC 3501 7.4.2), the usual compact form of these facts. Every value is complete and well-formed
for any message, without literals that depend on the session. `message.render.summarise` makes it.
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
"""Lower-case names of the header fields whose lines a Summary keeps: those that mail programs request for lists."""

KEPT_LIMIT: Final = 64 * 1024
"""Octets of kept lines; a message with more has INCOMPLETE in place of them, and of the text made of them."""

RENDERING: Final = 1
"""Version of the rendering: summaries of another version are rendered anew. At most 255."""

INCOMPLETE: Final = "*"
"""In place of kept lines that are too many: the file must be read. No header begins with it."""


class Summary(NamedTuple):
    """The pre-rendered facts of one message. `body` and `body_structure` are empty if its body has not been read."""

    envelope: bytes
    """The parenthesised ENVELOPE value."""
    body: bytes
    """The parenthesised BODY value (no extension data)."""
    body_structure: bytes
    """The parenthesised BODYSTRUCTURE value."""
    fields: bytes
    """Raw header lines, CRLF ends, in order, of the fields in KEPT_FIELDS (or INCOMPLETE); answers
    BODY[HEADER.FIELDS] of those."""


class HeaderText(NamedTuple):
    """The facts of one message that SEARCH compares first. They are made of its kept lines."""

    text: str
    """Decoded header text, folded by `message.text.fold`: for each kept field "\\n" + name + ": " + value; or
    INCOMPLETE."""
    sent: int | None
    """The Date field's day, days since 1970-01-01 in the zone it names; None when unusable."""
