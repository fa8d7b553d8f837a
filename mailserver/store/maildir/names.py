"""Modified UTF-7 (RFC 3501 5.1.3), as directory names on disk have it.

Only canonical text is decoded: what `decode` takes, `encode` gives back letter for letter. So two names on disk never
stand for one mailbox.
"""

from __future__ import annotations

import base64
import binascii
import re

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
