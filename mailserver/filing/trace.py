"""The trace of a message: how many servers it has passed, where it was delivered here, and the fields of final delivery.

Each copy has a field `Delivered-To` with its recipient. A message that comes back to the same recipient with that field is in
a loop. Only fields that this server has written count: above them is the Received field of another server, as the message
has travelled since, and the first Received field below them has this server's name. So neither the field of a transfer agent
before this one (Postfix's `flags=D`) nor of a provider whose mail is fetched (by fetchmail) refuses a message.
"""

from __future__ import annotations

import re
from typing import Final

from mailserver.errors import MailLoop

MAX_RECEIVED: Final = 100
"""The lowest limit that RFC 5321 6.3 suggests."""

_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_TRACE = re.compile(rb"^(received|delivered-to)[ \t]*:(.*\n(?:[ \t].*\n)*)", re.IGNORECASE | re.MULTILINE)
_BY = re.compile(rb"(?:^|[ \t\r\n])by[ \t\r\n]+([^ \t\r\n;()]+)", re.IGNORECASE)


def check_hops(header: bytes) -> None:
    """Count the servers that a message has passed (RFC 5321 6.3). `header` ends with a line end. Raises: MailLoop."""
    if header.lower().count(b"received") > MAX_RECEIVED and len(_RECEIVED.findall(header)) > MAX_RECEIVED:
        raise MailLoop


def earlier_recipients(header: bytes, hostname: str) -> frozenset[str]:
    """Return the recipients here that a message was delivered to before, in lower case. `hostname`: of Received fields."""
    if b"delivered-to" not in header.lower():
        return frozenset()
    name = hostname.lower().encode("utf-8", "replace")
    found: set[str] = set()
    waiting: list[bytes] = []
    has_travelled = False
    for field in _TRACE.finditer(header):
        if field[1].lower() == b"delivered-to":
            if has_travelled:
                waiting.append(field[2])
            continue
        has_travelled = True
        by = _BY.search(field[2])
        if by is not None and by[1].lower() == name:
            found.update(body.decode("utf-8", "replace").strip().lower() for body in waiting)
        waiting.clear()
    return frozenset(found)


def trace_fields(sender: str, recipient: str) -> bytes:
    """The fields of final delivery: Return-Path (RFC 5321 4.4), and Delivered-To, as Dovecot's LMTP writes them."""
    return f"Return-Path: <{sender}>\r\nDelivered-To: {recipient}\r\n".encode("utf-8", "replace")
