"""Ids of refused logins, short enough to be read out on the telephone: `7KQF-2M9X`."""

from __future__ import annotations

import secrets
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, without I, L, O and U."""
LETTERS: Final = 8

_READ: Final = str.maketrans("OIL", "011", "- \t")


def new_ref() -> str:
    """Make an id of 40 random bits."""
    number = secrets.randbits(5 * LETTERS)
    letters = "".join(ALPHABET[number >> 5 * at & 31] for at in range(LETTERS))
    return f"{letters[:4]}-{letters[4:]}"


def read_ref(text: str) -> str | None:
    """The id that somebody typed, in its usual form; None if it is none.

    Case, hyphens and spaces do not count, O is 0, I and L are 1; the words around it in a refusal may be there.
    """
    plain = text.strip().removeprefix("(").removesuffix(")").strip().upper().removeprefix("REF ").translate(_READ)
    if len(plain) != LETTERS or not set(plain) <= set(ALPHABET):
        return None
    return f"{plain[:4]}-{plain[4:]}"
