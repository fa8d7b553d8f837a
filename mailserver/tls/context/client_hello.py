"""A parser for the server name of a ClientHello (RFC 8446 4.1.2, RFC 5246 7.4.1.2, RFC 6066 3).

OpenSSL decides whether to resume a session before it reads the name, so code that ties sessions to names must know it
earlier. The result is used for nothing else: OpenSSL does the handshake and reports all its errors.
"""

from __future__ import annotations

import struct
from typing import Final

LONGEST: Final = 1 << 15
"""Maximum length of a ClientHello with its records, in octets. Today's have 2,000."""
MOST_RECORDS: Final = 16
"""Maximum records of one: all of them are parsed again whenever more octets arrive."""

_RECORD: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_BEHIND_RANDOM: Final = 38
"""Octets before the length of the session id: type, length, version, random."""
_two = struct.Struct(">H").unpack_from
_extension = struct.Struct(">HH").unpack_from


class Incomplete(Exception):
    """More octets are needed."""


class Unreadable(Exception):
    """The octets are not a ClientHello."""


def server_name(octets: bytes) -> bytes | None:
    """Return the requested name as sent; None without one. Raises: Incomplete, Unreadable."""
    hello = _message(octets)
    try:
        at = _BEHIND_RANDOM
        at += 1 + hello[at]  # session id
        at += 2 + _two(hello, at)[0]  # cipher suites
        at += 1 + hello[at]  # compression methods
        if at == len(hello):
            return None
        end = at + 2 + _two(hello, at)[0]
        at += 2
        while at < end:
            kind, length = _extension(hello, at)
            if kind == _SERVER_NAME:
                # The list's length, the entry's kind, the name's length. OpenSSL uses the first entry alone.
                size = _two(hello, at + 7)[0]
                name = hello[at + 9 : at + 9 + size]
                if hello[at + 6] != 0 or len(name) != size or size + 5 > length:
                    raise Unreadable
                return name
            at += 4 + length
    except (IndexError, struct.error) as error:
        raise Unreadable from error
    return None


def _message(octets: bytes) -> bytes:
    """Extract the ClientHello from its records. Raises: Incomplete, Unreadable."""
    if len(octets) >= 9 and octets[0] == _RECORD and octets[5] == _CLIENT_HELLO:
        length = 4 + int.from_bytes(octets[6:9], "big")
        if length <= _two(octets, 3)[0]:
            if len(octets) < 5 + length:
                raise Incomplete
            return octets[5 : 5 + length]
    return _of_records(octets)


def _of_records(octets: bytes) -> bytes:
    message = bytearray()
    at = 0
    for _record in range(MOST_RECORDS):
        if at < len(octets) and octets[at] != _RECORD:
            raise Unreadable
        if len(octets) < at + 5:
            raise Incomplete
        size = _two(octets, at + 3)[0]
        message += octets[at + 5 : at + 5 + size]
        if message and message[0] != _CLIENT_HELLO:
            raise Unreadable
        if len(message) >= 4 and len(message) >= (length := 4 + int.from_bytes(message[1:4], "big")):
            return bytes(message[:length])
        at += 5 + size
    raise Unreadable
