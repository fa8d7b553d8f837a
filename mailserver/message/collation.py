"""The comparator i;unicode-casemap (RFC 5051), the collation of I18NLEVEL=1 (RFC 5255 4.3)."""

from __future__ import annotations

import unicodedata
from typing import Final

_KEPT: Final = 20_000
"""Characters whose form is kept."""


class _Forms(dict[int, str]):
    """The form of each character, made when it is first met."""

    def __missing__(self, code: int) -> str:
        form = _decomposed(_titlecase(chr(code)))
        if len(self) < _KEPT:
            self[code] = form
        return form


def casemap(text: str) -> str:
    """Return the form of a text that is compared by code points: each character in titlecase, then decomposed.

    Code points compare like the octets of their UTF-8 (RFC 5051 2.3, 2.4).
    """
    return text.upper() if text.isascii() else text.translate(_FORMS)


def _titlecase(character: str) -> str:
    """Map by the titlecase property of UnicodeData.txt, which is one character; longer forms are of SpecialCasing.txt."""
    title = character.title()
    return title if len(title) == 1 else character


def _decomposed(text: str) -> str:
    """Decompose by the property of UnicodeData.txt, which has none for Hangul, until nothing decomposes."""
    pieces = []
    todo = [text]
    while todo:
        piece = todo.pop()
        if len(piece) > 1:
            todo += reversed(piece)
            continue
        mapping = unicodedata.decomposition(piece).split()
        if mapping[:1] and mapping[0].startswith("<"):
            del mapping[0]
        if mapping:
            todo.append("".join([chr(int(code, 16)) for code in mapping]))
        else:
            pieces.append(piece)
    return "".join(pieces)


_FORMS: Final = _Forms()
