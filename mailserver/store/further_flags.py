"""Masks with keywords that have no letter, in file names and in the index.

In a file name they are a part of their own behind the flag letters, which Dovecot and older versions keep when they rename
the file: `:2,FSab,K=gA`. Behind `K=` are the bits of the keywords from the 27th on, six to a character, the lowest first,
without zeros at the end.

The index has 32 bits for flags. Its highest bit says that the file name has further keywords, so every mask is `narrowed` when
it is written and `widened` when it is read. These functions raise nothing.
"""

from __future__ import annotations

import functools
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from mailserver.store.flags import KEYWORD_BIT, LETTERS, MAX_KEYWORDS, NARROW

MARK: Final = NARROW + 1
"""The bit of flags in the index that stands for all further keywords."""
IN_NAME: Final = ",K="
"""The text with which the further keywords of a file name begin."""
_SHIFT: Final = KEYWORD_BIT + LETTERS
_COUNT: Final = MAX_KEYWORDS - LETTERS
_WIDTH: Final = 6
_SET: Final = re.compile(rf"K=[A-Za-z0-9_-]{{1,{-(-_COUNT // _WIDTH)}}}", re.ASCII)


@functools.lru_cache(maxsize=1024)
def further_mask(rest: str) -> int:
    """Return the mask of the further keywords in what is behind the letters and a comma."""
    bits = 0
    for part in rest.split(","):
        if _SET.fullmatch(part):
            # Base64 has the highest digit first, and digits by four.
            digits = part[:1:-1]
            bits |= int.from_bytes(urlsafe_b64decode("A" * (-len(digits) % 4) + digits), "big")
    return (bits & (1 << _COUNT) - 1) << _SHIFT


def further_part(mask: int) -> str:
    """Return the part of a file name for a mask: `,K=gA`; "" for one without further keywords."""
    bits = mask >> _SHIFT
    if not bits:
        return ""
    octets = bits.to_bytes(-(-bits.bit_length() // 24) * 3, "big")
    return IN_NAME + urlsafe_b64encode(octets).decode("ascii").lstrip("A")[::-1]


def without_further(rest: str) -> str:
    """Return the parts behind the letters that other programs have made, each with its comma before it."""
    return "".join(f",{part}" for part in rest.split(",") if not _SET.fullmatch(part))


def narrowed(mask: int) -> int:
    """Return a mask as the index has it."""
    return mask if mask <= NARROW else mask & NARROW | MARK


def widened(flags: int, suffix: bytes) -> int:
    """Return the mask for flags of the index and the file name from its first colon on."""
    if flags <= NARROW:
        return flags
    return flags & NARROW | further_mask(
        suffix.partition(b",")[2].partition(b",")[2].decode("utf-8", "surrogateescape")
    )
