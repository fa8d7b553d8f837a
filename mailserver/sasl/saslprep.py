"""SASLprep (RFC 4013): one spelling for each password, by the tables of RFC 3454 (Unicode 3.2)."""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class Unpreparable(ValueError):
    """The text cannot be prepared. The argument is the reason and has nothing of the text."""


def saslprep(text: str) -> str:
    """The text as a stored string (RFC 4013 2). Raises: Unpreparable."""
    if text.isascii():
        prepared = text
    else:
        mapped = (" " if stringprep.in_table_c12(each) else each for each in text if not stringprep.in_table_b1(each))
        prepared = unicodedata.ucd_3_2_0.normalize("NFKC", "".join(mapped))
    if not prepared:
        raise Unpreparable("it is empty after normalisation")
    for each in prepared:
        if any(prohibits(each) for prohibits in _PROHIBITED):
            raise Unpreparable("it has a control character, or another that is prohibited (RFC 4013 2.3)")
        if stringprep.in_table_a1(each):
            raise Unpreparable("it has a character that is unassigned in Unicode 3.2 (RFC 4013 2.5)")
    if any(stringprep.in_table_d1(each) for each in prepared):
        # RFC 3454 6: right-to-left text begins and ends with such a character, and has none of the other direction.
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(stringprep.in_table_d2(each) for each in prepared):
            raise Unpreparable("it mixes left-to-right and right-to-left text (RFC 4013 2.4)")
    return prepared
