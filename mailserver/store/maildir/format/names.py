"""The levels of mailbox names in directory names: modified UTF-7 (RFC 3501 5.1.3) or UTF-8, and escapes.

`decode` takes canonical text only: `encode` gives back the same text. So two directory names never stand for one mailbox.

Escapes are those of Dovecot's mailbox_list_storage_escape_char: the character and two hexadecimal digits in lower case
stand for a "." or "/" inside a level, for a "~" that begins one, and for the character itself. They are applied after
modified UTF-7.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import field, frozen

from mailserver import modified_utf7
from mailserver.types import SLASH


@frozen
class LevelEncoding:
    """The encoding of levels of mailbox names on disk."""

    utf8: bool = False
    """UTF-8 instead of modified UTF-7."""
    escape: str = ""
    """The character that begins an escape; empty for none."""
    slashes: bool = False
    """With `escape`, a level may hold `SLASH`: clients see "." between levels."""
    _special: re.Pattern[str] = field(init=False, eq=False, repr=False)
    _escaped: re.Pattern[str] = field(init=False, eq=False, repr=False)

    @_special.default
    def _compile_special(self) -> re.Pattern[str]:
        return re.compile(rf"^~|[./{re.escape(self.escape)}]")

    @_escaped.default
    def _compile_escaped(self) -> re.Pattern[str]:
        return re.compile(rf"{re.escape(self.escape)}([0-9a-f]{{2}})")

    def encode(self, level: str) -> str:
        """Encode a level for the disk. Raises: ValueError."""
        text = level if self.utf8 else _encode_printable(level)
        if not self.escape:
            return text
        if self.slashes:
            text = text.replace(SLASH, "/")
        return self._special.sub(lambda match: f"{self.escape}{ord(match[0]):02x}", text)

    def decode(self, text: str) -> str:
        """Decode a level. Raises: ValueError for anything that `encode` does not make."""
        level = text
        if self.escape:
            level = self._escaped.sub(lambda match: chr(int(match[1], 16)), text)
            if "/" in level and not self.slashes:
                raise ValueError("a slash separates levels")
            level = level.replace("/", SLASH)
        if not self.utf8:
            level = _decode_printable(level)
        if self.encode(level) != text:
            raise ValueError("not in its only form")
        return level


def _encode_printable(level: str) -> str:
    """Encode each part between slashes, which are printable."""
    return SLASH.join(map(modified_utf7.encode, level.split(SLASH)))


def _decode_printable(text: str) -> str:
    return SLASH.join(map(modified_utf7.decode, text.split(SLASH)))


PLAIN: Final = LevelEncoding()
