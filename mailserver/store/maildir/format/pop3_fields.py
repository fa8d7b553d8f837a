"""POP3 fields of dovecot-uidlist: unique-ids and an order that another server's POP3 clients know.

    25017 W1394 P1723 O12 :1276533073.M242911P3632.host

`P` is the message's unique-id (RFC 1939 7); without a value it is the base of the file name. `O` is the message's place
in the maildrop. Dovecot writes them with pop3_save_uidl, and so do programs that migrate mail to it from other servers.
"""

from __future__ import annotations

import os
import re
from typing import Final

from mailserver.store.interfaces import Pop3Record
from mailserver.store.maildir.disk import safeio
from mailserver.types import UID

MAX_OCTETS: Final = 400
"""Longest unique-id: an answer line holds at most 512 octets (RFC 1939 3, RFC 2449 4)."""

_PIECE: Final = 1 << 20
_MARK: Final = re.compile(rb" [PO]")
_LINE: Final = re.compile(rb"^([0-9]{1,10})((?: +[A-Z][^ \n]*)*) +:([^:\n/\0]+)(?::[^\n/\0]*)?$", re.MULTILINE)
_VISIBLE: Final = re.compile(rb"[!-~]+")


def read(path: str, *, names: bool = False) -> dict[UID, Pop3Record]:
    """Read the records of a uidlist, mostly none; with `names` those of all messages. {} without a list.

    Raises: StoreUnavailable.

    A unique-id that is not visible ASCII, or is too long for a line, is left out.
    """
    found: dict[UID, Pop3Record] = {}
    try:
        fd = safeio.open_existing(path)
    except FileNotFoundError:
        return found
    try:
        rest, offset = b"", 0
        while True:
            with safeio.boundary():
                piece = os.pread(fd, _PIECE, offset)
            if not piece:
                return found
            offset += len(piece)
            lines, newline, rest = (rest + piece).rpartition(b"\n")
            if newline and (names or _MARK.search(lines)):
                found.update(_records(lines, names=names))
    finally:
        os.close(fd)


def _records(lines: bytes, *, names: bool) -> dict[UID, Pop3Record]:
    found = {}
    for number, fields, base in _LINE.findall(lines):
        by_letter = {field[:1]: field[1:] for field in fields.split(b" ")}
        unique_id = by_letter.get(b"P")
        order = by_letter.get(b"O", b"")
        record = Pop3Record(
            None if unique_id is None else _visible(unique_id or base) or None,
            int(order) if re.fullmatch(rb"[0-9]{1,10}", order) else None,
            _visible(base) if names else "",
            _visible(by_letter.get(b"G", b"")) if names else "",
        )
        if record != Pop3Record():
            found[UID(int(number))] = record
    return found


def _visible(octets: bytes) -> str:
    """Return the text, "" if no answer line could hold it."""
    return octets.decode("ascii") if len(octets) <= MAX_OCTETS and _VISIBLE.fullmatch(octets) else ""
