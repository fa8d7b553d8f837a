"""The comparator i;unicode-casemap (RFC 5051), the collation of I18NLEVEL=1 (RFC 5255 4.3)."""

from __future__ import annotations

import unicodedata
from typing import Final

_KEPT: Final = 20_000
"""Characters whose form is kept."""
_PIECE: Final = 16 * 1024
"""Characters that are folded at once, as other threads wait meanwhile."""
_FEW: Final = 16
"""Different characters of a piece that are replaced one after another. Few texts have more; looking up each takes longer."""


class _Forms(dict[int, str]):
    """The form of each character, made when it is first met."""

    def __missing__(self, code: int) -> str:
        form = _decomposed(_titlecase(chr(code)))
        if len(self) < _KEPT:
            self[code] = form
        return form


class _FoldedForms(dict[str, str]):
    """The folded form of each character; that of an ASCII capital is itself, as `_fold` has made these small."""

    def __missing__(self, character: str) -> str:
        form = character
        if not character.isascii():
            form = "".join([each.swapcase() if each.isascii() else each for each in _FORMS[ord(character)]])
        if len(self) < _KEPT:
            self[character] = form
        return form


def casemap(text: str) -> str:
    """Return the form of a text that is compared by code points: each character in titlecase, then decomposed.

    Code points compare like the octets of their UTF-8 (RFC 5051 2.3, 2.4).
    """
    return text.upper() if text.isascii() else text.translate(_FORMS)


def fold(text: str) -> str:
    """Return the form in which SEARCH looks for a text in another: that of `casemap`, with the case of ASCII letters swapped.

    So ASCII is in lower case, as header field names are, and equal and contained texts are the same. Each character has its
    form by itself: fold(a + b) is fold(a) + fold(b).
    """
    if text.isascii():
        return text.lower()
    if len(text) <= _PIECE:
        return _fold(text)
    return "".join([_fold(text[at : at + _PIECE]) for at in range(0, len(text), _PIECE)])


def _fold(text: str) -> str:
    # `bytes.lower` concerns ASCII alone.
    text = text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
    forms = _FOLDED
    changed = [each for each in set(text) if each > "\x7f" and forms[each] != each]
    if len(changed) > _FEW:
        return "".join(map(forms.__getitem__, text))
    # A form that has a character with another form comes last: such a character is not put into form twice.
    for each in sorted(changed, key=_is_unstable):
        text = text.replace(each, forms[each])
    return text


def _is_unstable(character: str) -> bool:
    """Tell whether the form has a character beyond ASCII with another form: that of U+1D5D is a small beta, that of which is a capital one."""
    return any(each > "\x7f" and _FOLDED[each] != each for each in _FOLDED[character])


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
_FOLDED: Final = _FoldedForms()
