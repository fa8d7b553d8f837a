"""Requests and replies of the socketmap protocol without I/O (socketmap_table(5)).

Both are netstrings: the number of octets in decimal digits, a colon, the octets, a comma. A request is the name of a map, a
space and a key; there are no escapes, so that a key may contain anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from attrs import frozen

MAX_REQUEST: Final = 100_000
"""Octets of the longest request, as Postfix limits a reply."""
MAX_REPLY: Final = 100_000
"""Octets of the longest reply that Postfix takes (socketmap_max_reply_size)."""
MAX_KEPT: Final = 1024
"""Octets of the longest request that can be of an address or domain. Those of a longer one are counted, and not kept."""
_MOST_DIGITS: Final = len(str(MAX_REQUEST))
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class ProtocolError(Exception):
    """The client breaks the protocol, and the connection cannot go on. The text is a sentence in ASCII, for client and log."""


@frozen
class Request:
    """A key that is looked up in a map."""

    map: str
    """Empty for a request that is too long."""
    key: str | None
    """None: it is no address and no domain, as it is too long, not UTF-8, or has control characters."""


class RequestReader:
    """Cuts a client's octets into requests. It holds MAX_KEPT octets and the last piece that has arrived."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length: int | None = None
        """Octets of the request that has begun; None before its colon."""
        self._left = 0
        """Those of them that are still to come, of a request that is not kept."""

    @property
    def pending(self) -> bool:
        """Has a request begun that has not ended?"""
        return bool(self._buffer) or self._length is not None

    def receive_data(self, data: bytes) -> None:
        """Add octets of the client."""
        self._buffer += data

    def requests(self) -> Iterator[Request]:
        """Yield the requests that are complete. Raises: ProtocolError."""
        while True:
            if self._length is None:
                self._length = self._take_length()
                if self._length is None:
                    return
                self._left = self._length
            if self._length > MAX_KEPT:
                dropped = min(self._left, len(self._buffer))
                del self._buffer[:dropped]
                self._left -= dropped
                if self._left or not self._buffer:
                    return
                end = 0
            else:
                end = self._length
                if len(self._buffer) <= end:
                    return
            if self._buffer[end] != ord(","):
                raise ProtocolError("a request does not end in a comma where its length says")
            request = parse(bytes(self._buffer[:end])) if self._length <= MAX_KEPT else Request("", None)
            del self._buffer[: end + 1]
            self._length = None
            yield request

    def _take_length(self) -> int | None:
        """Take a length with its colon; None if it is not all here. Raises: ProtocolError."""
        end = self._buffer.find(b":", 0, _MOST_DIGITS + 1)
        digits = bytes(self._buffer[: end if end >= 0 else _MOST_DIGITS + 1])
        if end == 0 or (digits and not digits.isdigit()):
            raise ProtocolError("a request does not begin with its length and a colon")
        if len(digits) > 1 and digits.startswith(b"0"):
            raise ProtocolError("the length of a request begins with a zero")
        if len(digits) > _MOST_DIGITS or (digits and int(digits) > MAX_REQUEST):
            raise ProtocolError(f"a request is longer than {MAX_REQUEST} octets")
        if end < 0:
            return None
        del self._buffer[: end + 1]
        return int(digits)


def parse(request: bytes) -> Request:
    """Parse the content of a netstring. Raises: ProtocolError if it has no key."""
    name, space, key = request.partition(b" ")
    if not space:
        raise ProtocolError("a request is the name of a map, a space and a key")
    try:
        text = key.decode("utf-8")
    except UnicodeDecodeError:
        return Request(name.decode("ascii", "replace"), None)
    return Request(name.decode("ascii", "replace"), None if _UNPRINTABLE.search(text) else text)


def netstring(content: bytes) -> bytes:
    """The octets with their length."""
    return b"%d:%b," % (len(content), content)


def found(data: str) -> bytes:
    """OK: the key is there, with this data."""
    return netstring(b"OK " + data.encode("utf-8", "replace"))


NOT_FOUND: Final = netstring(b"NOTFOUND ")
"""The key is not there."""


def unavailable(reason: str) -> bytes:
    """TEMP: the client should ask again later."""
    return netstring(b"TEMP " + reason.encode("ascii", "replace"))


def refused(reason: str) -> bytes:
    """PERM: the request can have no answer."""
    return netstring(b"PERM " + reason.encode("ascii", "replace"))
