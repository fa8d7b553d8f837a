"""Flags of messages as bits of a mask, and how STORE combines them."""

from __future__ import annotations

import enum

# Bits 0 to 4 are the system flags; bit 5 + n is the n-th keyword of the mailbox (Maildir letter a..z).
ANSWERED = 1
FLAGGED = 2
DELETED = 4
SEEN = 8
DRAFT = 16
SYSTEM_FLAGS: dict[str, int] = {
    "\\Answered": ANSWERED, "\\Flagged": FLAGGED, "\\Deleted": DELETED, "\\Seen": SEEN, "\\Draft": DRAFT,
}  # fmt: skip
KEYWORD_BIT = 5
MAX_KEYWORDS = 26


class FlagChange(enum.Enum):
    """How STORE combines flags."""

    ADD = "+"
    REMOVE = "-"
    REPLACE = "="
