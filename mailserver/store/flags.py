"""Flags of messages as bits of a mask, and how STORE combines them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

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
    """The ways in which STORE combines flags."""

    ADD = "+"
    REMOVE = "-"
    REPLACE = "="

    def combine(self, flags: int, mask: int) -> int:
        """Return the flags after this change."""
        if self is FlagChange.ADD:
            return flags | mask
        return flags & ~mask if self is FlagChange.REMOVE else mask


def known_mask(names: Iterable[str], keywords: Sequence[str]) -> int:
    """Return the bits of these flags, without keywords that the mailbox does not have. Letter case does not count."""
    bits = {name.lower(): 1 << KEYWORD_BIT + bit for bit, name in enumerate(keywords) if name} | _SYSTEM_BITS
    mask = 0
    for name in names:
        mask |= bits.get(name.lower(), 0)
    return mask


_SYSTEM_BITS = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}
