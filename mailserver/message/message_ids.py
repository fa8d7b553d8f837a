"""Message IDs in Message-ID, References and In-Reply-To (RFC 5322 3.6.4, 4.5.4), normalised as RFC 5256 3 requires."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mailserver.message.headers import strip_comments, unescape

LIMIT: Final = 64 * 1024
"""Octets of a field that are read, the last ones: a message's parent is named last."""

# No message ID of the simple form needs normalising. Any other form begins at a "<" as well.
_SIMPLE: Final = re.compile(rb"<([^\s<>@\"\\()\[\]]++@[^\s<>@\"\\()]++)>")
_ANY: Final = re.compile(rb"<((?:[^<>\"\\]|\"(?:[^\"\\]|\\.)*+\"|\\.)*+)>", re.DOTALL)
_QUOTED: Final = re.compile(rb"\"((?:[^\"\\]|\\.)*+)\"|\s++", re.DOTALL)


def message_ids(value: bytes) -> list[str]:
    """Return the valid message IDs of an unfolded value, in order, without "<" and ">".

    Two spellings of one ID become equal: quoting is removed where it is not needed or not. Octets are characters.
    """
    if len(value) > LIMIT:
        value = value[-LIMIT:]
    found = _SIMPLE.findall(value)
    if len(found) != value.count(b"<"):
        found = list(_read(value))
    return [each.decode("latin-1") for each in found]


def _read(value: bytes) -> Iterator[bytes]:
    for match in _ANY.finditer(value):
        text = match[1]
        if b"(" in text:
            text = strip_comments(text).strip()
        left, at, right = text.rpartition(b"@")
        left = _QUOTED.sub(_unquoted, left)
        right = b"".join(right.split())
        if at and left and right and b"\n" not in left:
            yield b"%b@%b" % (left, right)


def _unquoted(match: re.Match[bytes]) -> bytes:
    return b"" if match[1] is None else unescape(match[1])
