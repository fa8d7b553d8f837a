"""The content fields of a header: media type, parameters and the rest (RFC 2045, RFC 2183).

Most parts have the same few fields, so what is parsed of short ones is cached.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from attrs import frozen

from mailserver.message.headers import parameter, parse_content_type, unfold

MAX_BOUNDARY: Final = 998
"""Octets of a boundary: RFC 2046 5.1.1 allows 70, and a line of a message has at most this many (RFC 5322 2.1.1). A
multipart with a longer boundary is text: with boundaries of many kilobytes every search would take long to start.
"""

_CONTENT_FIELD: Final = re.compile(
    rb"^(content-(?:type|transfer-encoding|id|description|md5|disposition|language|location))[ \t]*+:"
    rb"([^\n]*+(?:\n[ \t][^\n]*+)*+)",
    re.MULTILINE | re.IGNORECASE,
)  # fmt: skip

_CHARSET: Final = re.compile(rb"charset(?:\*|$)", re.IGNORECASE)

CONTENT_FIELDS: Final = frozenset(
    {
        b"content-type", b"content-transfer-encoding", b"content-id", b"content-description", b"content-md5",
        b"content-disposition", b"content-language", b"content-location",
    }
)  # fmt: skip
_COMMON: Final = 512
"""Octets of content fields up to which they are cached: the same few are in most messages."""

Parameters = tuple[tuple[bytes, bytes], ...]
ASCII: Final[Parameters] = ((b"charset", b"us-ascii"),)


@frozen(eq=False)
class Content:
    """The parsed content fields of a header (RFC 2045). Many parts share one."""

    type: bytes
    subtype: bytes
    """Both as in the message; compare them in lower case."""
    parameters: Parameters
    """As in the message; text without a charset has US-ASCII added (RFC 2045 5.2)."""
    fields: dict[bytes, bytes]
    """The first of each of CONTENT_FIELDS: lower-case name to unfolded value. Read-only."""
    family: bytes
    """The type in lower case."""

    @property
    def is_common(self) -> bool:
        """True if it is short enough to be cached, and so are results made from it."""
        return _is_common(self.fields)

    @property
    def delimiter(self) -> bytes:
        """The boundary between the parts of a multipart (RFC 2046 5.1.1); empty if it is unusable."""
        found = next((value for key, value in self.parameters if key.lower() == b"boundary"), None)
        if found is None:
            found = (parameter(self.parameters, b"boundary") or "").encode("utf-8")
        found = found.rstrip()
        return found if len(found) <= MAX_BOUNDARY else b""


PLAIN: Final = Content(b"text", b"plain", ASCII, {}, b"text")
_MESSAGE: Final = Content(b"message", b"rfc822", (), {}, b"message")


def read_content(header: bytes, *, digest: bool = False) -> Content:
    """Parse the content fields of a header. In a digest, a part without a type is a message (RFC 2046 5.1.5)."""
    return _common_content(header, digest) if len(header) <= _COMMON else _read_content(header, digest)


@lru_cache(maxsize=1024)
def _common_content(header: bytes, digest: bool) -> Content:
    return _read_content(header, digest)


def _read_content(header: bytes, digest: bool) -> Content:
    fields: dict[bytes, bytes] = {}
    lowered = header.lower()
    at = lowered.find(b"content-")
    while at >= 0:
        # The pattern alone would try each octet of the header.
        match = _CONTENT_FIELD.match(header, at)
        if match:
            fields.setdefault(match[1].lower(), unfold(match[2]))
        at = lowered.find(b"content-", at + 8)
    return content_of(fields, digest=digest)


def content_of(fields: dict[bytes, bytes], *, digest: bool = False) -> Content:
    """Parse unfolded content fields, by lower-case name."""
    if not fields:
        return _MESSAGE if digest else PLAIN
    items = tuple(fields.items())
    if _is_common(fields):
        return _common_content_of(items, digest)
    return _content_of(items, digest)


def _is_common(fields: dict[bytes, bytes]) -> bool:
    return sum(map(len, fields.values())) <= _COMMON


@lru_cache(maxsize=1024)
def _common_content_of(fields: tuple[tuple[bytes, bytes], ...], digest: bool) -> Content:
    return _content_of(fields, digest)


def _content_of(fields: tuple[tuple[bytes, bytes], ...], digest: bool) -> Content:
    by_name = dict(fields)
    value = by_name.get(b"content-type")
    parsed = parse_content_type(value) if value is not None else None
    if parsed is None:
        like = _MESSAGE if digest and value is None else PLAIN
        return Content(like.type, like.subtype, like.parameters, by_name, like.family)
    type_, subtype, parameters = parsed
    family = type_.lower()
    if family == b"text" and not any(_CHARSET.match(name) for name, _ in parameters):
        parameters += ASCII
    return Content(type_, subtype, parameters, by_name, family)
