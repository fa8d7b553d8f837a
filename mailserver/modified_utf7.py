"""Modified UTF-7, the encoding of mailbox names in IMAP (RFC 3501 5.1.3) and in the directory names of Maildir++.

A text has one canonical form. `decode` takes no other, so two encoded names never stand for one mailbox.
"""

from __future__ import annotations

import binascii
import re

_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]+")
_SHIFTED = re.compile(r"&([^-]*)-")


def encode(text: str) -> str:
    """Encode any text without lone surrogates. Raises: ValueError."""
    if text.isascii() and text.isprintable():
        return text.replace("&", "&-")
    return _NOT_PRINTABLE.sub(_shift, text.replace("&", "&-"))


def decode(encoded: str) -> str:
    """Decode canonical modified UTF-7. Raises: ValueError for anything that `encode` does not make."""
    text = _SHIFTED.sub(_unshift, encoded)
    if encode(text) != encoded:
        raise ValueError("not canonical modified UTF-7")
    return text


def _shift(match: re.Match[str]) -> str:
    encoded = binascii.b2a_base64(match[0].encode("utf-16-be"), newline=False).rstrip(b"=").replace(b"/", b",")
    return f"&{encoded.decode('ascii')}-"


def _unshift(match: re.Match[str]) -> str:
    shifted = match[1]
    if not shifted:
        return "&"
    try:
        data = shifted.encode("ascii").replace(b",", b"/")
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True).decode("utf-16-be")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not modified UTF-7") from error
