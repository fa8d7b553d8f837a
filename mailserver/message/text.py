"""The text of a message as SEARCH sees it: decoded (RFC 2047, transfer encodings, charsets) and folded."""

from __future__ import annotations

import unicodedata


def fold(text: str) -> str:
    """The form in which texts are compared: any case, and compatible characters alike (in the way of RFC 5051)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def header_text(source: bytes) -> str:
    """All header fields of the message, decoded and folded: for each "\\n" + name + ": " + value."""
    header, _, _ = source.partition(b"\r\n\r\n")
    return fold("\n" + header.decode("utf-8", "replace").replace("\r\n", "\n"))


def body_text(source: bytes) -> str:
    """The text parts of the message, decoded and folded."""
    _, _, body = source.partition(b"\r\n\r\n")
    return fold(body.decode("utf-8", "replace"))
