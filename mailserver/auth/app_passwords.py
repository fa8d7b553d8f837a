"""App passwords: 120 random bits as 24 letters, in groups of four. Case, spaces and hyphens do not count.

Nobody can guess one, so it needs no slow hash, no turn and no delay: its SHA-256, the probe, is the key of a look-up.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import Final

SIZE: Final = 24
"""Letters: base32 of 15 octets."""
_LETTERS: Final = re.compile(rb"[a-z2-7]{24}")
_LONGEST: Final = 100
"""Octets of a password that may be one, with what does not count."""
_IGNORED: Final = b" -"


def generate() -> str:
    """A new one as it is printed: "abcd-efgh-..."."""
    letters = base64.b32encode(secrets.token_bytes(SIZE * 5 // 8)).decode("ascii").lower()
    return "-".join(letters[at : at + 4] for at in range(0, SIZE, 4))


def printed(password: bytes) -> bytes | None:
    """The form in which it was printed; None if it cannot be an app password."""
    if not SIZE <= len(password) <= _LONGEST:
        return None
    letters = password.translate(None, _IGNORED).lower()
    if not _LETTERS.fullmatch(letters):
        return None
    return b"-".join(letters[at : at + 4] for at in range(0, SIZE, 4))


def probe_of(password: bytes) -> str | None:
    """The SHA-256 of its letters, in hexadecimal; None if it cannot be an app password."""
    form = printed(password)
    return None if form is None else hashlib.sha256(form.replace(b"-", b"")).hexdigest()
