"""Log fields of a message. They come from strangers, so control characters are removed and lengths are bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mailserver.smtp.address import Address
from mailserver.smtp.wire import Reply

LONGEST_ID: Final = 250
"""Characters of a Message-ID."""
LONGEST_REPLY: Final = 250
"""Characters of a reply of the next hop."""
LONGEST_LIST: Final = 400
"""Characters of a list of recipients, before the number of those that do not fit."""

_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:((?:[^\r\n]|\r?\n[ \t]){0,1000})", re.IGNORECASE | re.MULTILINE)


def message_id_of(header: bytes) -> str:
    """The first Message-ID field of a header; empty without one."""
    found = _MESSAGE_ID.search(header)
    return bounded(found[1].decode("latin-1"), LONGEST_ID) if found else ""


def reply_text(reply: Reply) -> str:
    """A reply of the next hop; its last line has the hop's id of the message."""
    return bounded(f"{reply.code} {' '.join(filter(None, [reply.enhanced, *reply.lines]))}", LONGEST_REPLY)


def list_of(recipients: Iterable[Address | str]) -> str:
    """Recipients or users in their order, as many as fit."""
    names = [str(address) for address in recipients]
    shown: list[str] = []
    room = LONGEST_LIST
    for name in names:
        room -= len(name) + 1
        if room < 0:
            return f"{','.join(shown)} and {len(names) - len(shown)} more"
        shown.append(bounded(name, LONGEST_LIST))
    return ",".join(shown)


def bounded(words: str, longest: int) -> str:
    """Strip control characters and surrounding space, and truncate."""
    if not words.isprintable():
        words = "".join(filter(str.isprintable, words))
    return words.strip()[:longest]
