"""Levels of mailbox names as directory names on disk have them: modified UTF-7 (RFC 3501 5.1.3), and escapes.

Only canonical text is decoded: what `decode` takes, `encode` gives back letter for letter. So two names on disk never
stand for one mailbox.

Escapes are those of Dovecot's mailbox_list_storage_escape_char: the character and two hexadecimal digits in lower case
stand for a "." or "/" inside a level, for a "~" that begins one, and for the character itself. They are applied to what
modified UTF-7 gives.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from attrs import field, frozen

from mailserver.types import SLASH

_DIRECT = re.compile(r"[^\x20-\x7e]+")
_SHIFTED = re.compile(r"&([^-]*)-")


def encode(name: str) -> str:
    """Modified UTF-7 of any text without lone surrogates. Raises: ValueError."""
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise ValueError("lone surrogate")
    return _DIRECT.sub(_shift, name.replace("&", "&-"))


def decode(text: str) -> str:
    """The name that this stands for. Raises: ValueError for anything that `encode` does not make."""
    name = _SHIFTED.sub(_unshift, text)
    if encode(name) != text:
        raise ValueError("not canonical modified UTF-7")
    return name


def _shift(match: re.Match[str]) -> str:
    encoded = base64.b64encode(match[0].encode("utf-16-be")).rstrip(b"=").replace(b"/", b",")
    return f"&{encoded.decode('ascii')}-"


def _unshift(match: re.Match[str]) -> str:
    shifted = match[1]
    if not shifted:
        return "&"
    try:
        data = shifted.encode("ascii").replace(b",", b"/")
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True).decode("utf-16-be")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not modified UTF-7") from error


@frozen
class LevelEncoding:
    """How the levels of mailbox names are written on disk."""

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
        """A level as it stands on disk. Raises: ValueError."""
        text = level if self.utf8 else _encode_printable(level)
        if not self.escape:
            return text
        if self.slashes:
            text = text.replace(SLASH, "/")
        return self._special.sub(lambda match: f"{self.escape}{ord(match[0]):02x}", text)

    def decode(self, text: str) -> str:
        """The level that this stands for. Raises: ValueError for anything that `encode` does not make."""
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
    """Modified UTF-7 of each part between slashes, which are printable."""
    return SLASH.join(map(encode, level.split(SLASH)))


def _decode_printable(text: str) -> str:
    return SLASH.join(map(decode, text.split(SLASH)))


PLAIN: Final = LevelEncoding()
