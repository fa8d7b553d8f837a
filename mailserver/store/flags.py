"""Flags of messages as bits of a mask, and how STORE combines them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from mailserver.errors import LimitReached

# Bits 0 to 4 are the system flags; bit 5 + n is the n-th keyword of the mailbox. The first 26 have a Maildir letter (a..z).
ANSWERED = 1
FLAGGED = 2
DELETED = 4
SEEN = 8
DRAFT = 16
SYSTEM_FLAGS: dict[str, int] = {
    "\\Answered": ANSWERED, "\\Flagged": FLAGGED, "\\Deleted": DELETED, "\\Seen": SEEN, "\\Draft": DRAFT,
}  # fmt: skip
KEYWORD_BIT = 5
LETTERS = 26
"""Keywords of a mailbox that have a letter; further ones make its masks wider than 32 bits."""
MAX_KEYWORDS = 500
MAX_KEYWORD_OCTETS = 16 * 1024
"""Length of all keywords of a mailbox together: a client may have all of them set on each message of a FETCH."""
NARROW = (1 << KEYWORD_BIT + LETTERS) - 1
"""The bits of the system flags and the keywords with a letter."""


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
    bits = keyword_bits(tuple(keywords))
    mask = 0
    for name in names:
        lower = name.lower()
        mask |= bits.get(lower, 0) | _SYSTEM_BITS.get(lower, 0)
    return mask


@lru_cache(maxsize=64)
def keyword_bits(keywords: tuple[str, ...]) -> Mapping[str, int]:
    """Return the bit of each keyword by its name in lower case; the first of two equal ones counts."""
    bits: dict[str, int] = {}
    for number, name in enumerate(keywords):
        if name:
            bits.setdefault(name.lower(), 1 << KEYWORD_BIT + number)
    return bits


def has_room(keywords: Iterable[str]) -> bool:
    """Tell whether a mailbox with these keywords takes another one, at least a short one."""
    lengths = [len(name) for name in keywords if name]
    return len(lengths) < MAX_KEYWORDS and sum(lengths) < MAX_KEYWORD_OCTETS


def check_room(keywords: Iterable[str]) -> None:
    """Raise LimitReached if these are more keywords than a mailbox takes."""
    lengths = [len(name) for name in keywords if name]
    if len(lengths) > MAX_KEYWORDS or sum(lengths) > MAX_KEYWORD_OCTETS:
        raise no_room()


def has_unused(keywords: Sequence[str], masks: Iterable[int]) -> bool:
    """Tell whether a keyword without a letter is in no mask of the mailbox: a new one may replace it."""
    used = 0
    for mask in set(masks):
        used |= mask
    return any(
        name and not used >> KEYWORD_BIT + number & 1 for number, name in enumerate(keywords) if number >= LETTERS
    )


def no_room() -> LimitReached:
    """Make the refusal of a new keyword."""
    return LimitReached(
        f"a mailbox takes {MAX_KEYWORDS} keywords, of {MAX_KEYWORD_OCTETS} octets in all; remove one from all messages first"
    )


_SYSTEM_BITS = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}
