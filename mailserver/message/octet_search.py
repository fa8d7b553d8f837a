"""Search for an ASCII needle in the octets of a text, before its charset is decoded and its letters are folded.

Most texts do not have the needle, and most show that here: their charset keeps ASCII as it is, and no other character in them
becomes ASCII when it is folded, as a ligature or a narrow space does. So the needle is in the folded text exactly if it is in
the octets in lower case.
"""

from __future__ import annotations

import re
from typing import Final

TAG_OCTETS: Final = re.compile(rb"<[^<>]*+>")
"""`text.TAG` for octets."""

_LIKE_ASCII: Final = frozenset({None, "ascii", "utf-8", "cp1252"})
_ASCII: Final = bytes(range(128))

# Letters of Latin, Greek and Cyrillic, quotes, dashes and signs; without those whose folded form has ASCII in it.
ORDINARY: Final = re.compile(
    rb"(?:\xc2[\x80-\x9f\xa1-\xa7\xa9\xab-\xae\xb0\xb1\xb5-\xb7\xbb\xbf]|\xc3[\x80-\xbf]"
    rb"|\xc4[\x80-\xaf\xb1\xb4-\xbe]|\xc5[\x81-\x88\x8a-\xbe]|\xce[\x86-\xbf]|\xcf[\x80-\xbf]|[\xd0\xd1][\x80-\xbf]"
    rb"|\xe2\x80[\x8b-\x96\x98-\xa3\xa7-\xae]|\xe2\x82\xac)*+"
)
"""Characters of UTF-8 that no ASCII comes of, and the sharp s."""
FOLDED_1252: Final = b"\x85\x98\x99\xa0\xa8\xaa\xaf\xb2\xb3\xb4\xb8\xb9\xba\xbc\xbd\xbe"
"""Octets of Windows-1252 that ASCII comes of, without the sharp s."""
_ORDINARY_1252: Final = bytes(octet for octet in range(128, 256) if octet not in FOLDED_1252)


def lacks(data: bytes, needle: bytes, codec: str | None, *, is_html: bool) -> bool:
    """Tell whether plainly a text does not contain the needle (folded, not empty). False proves nothing.

    `data` has no transfer encoding; `codec` is `encodings.codec_of` its charset, None without one. HTML is searched as it
    stands and without its tags, as in `text.part_text`. Linear.
    """
    lowered = data.lower()
    if not data.isascii():
        others = data.translate(None, _ASCII)
        if codec == "utf-8":
            if ORDINARY.fullmatch(others) is None:
                return False
            lowered = lowered.replace(b"\xc3\x9f", b"ss")
        elif codec == "cp1252":
            if others.translate(None, _ORDINARY_1252):
                return False
            lowered = lowered.replace(b"\xdf", b"ss")
        else:
            return False
    elif codec not in _LIKE_ASCII:
        return False
    if needle in lowered:
        return False
    if not is_html:
        return True
    visible = TAG_OCTETS.sub(b"", lowered) if b"<" in lowered else lowered
    return b"&" not in visible and needle not in visible
