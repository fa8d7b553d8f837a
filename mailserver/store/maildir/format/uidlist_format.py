"""The text format of dovecot-uidlist, version 3 (and the header of version 1).

Nothing here opens a file; `uidlist` has the rules.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

HIGHEST_UID: Final = 2**32 - 2
"""Dovecot refuses higher ones."""

_HEADER = re.compile(rb"3(?: |$)")
LINE = re.compile(rb"([0-9]{1,10}) +(?:[^: \n][^ \n]* +)*:([^:\n/\0]+)(?::[^\n/\0]*)?")
_ALL_LINES = re.compile(r"^([0-9]{1,10}) +(?:[^: \n][^ \n]* +)*:([^:\n/\0]+)(?::[^\n/\0]*)?$", re.MULTILINE | re.ASCII)
_VERSION_1_LINE = re.compile(r"^([0-9]{1,10}) ([^:\n/\0]+)(?::[^\n/\0]*)?$", re.MULTILINE | re.ASCII)
_PART = 128 << 10
"""Octets of the list that one call parses."""


def header_line(uid_validity: int, uid_next: int, guid: bytes, others: Iterable[bytes] = ()) -> bytes:
    """Format the first line, with its LF. `others`: fields with unknown letters."""
    fields = [b"3", b"V%d" % uid_validity, b"N%d" % uid_next, b"G%b" % guid.hex().encode(), *others]
    return b" ".join(fields) + b"\n"


def parse_header(line: bytes) -> tuple[dict[str, str], bool]:
    """Return the valid fields by letter, and whether Dovecot would refuse the line."""
    words = line.split(b" ")
    fields: dict[str, str] = {}
    if words[0] == b"1" and len(words) == 3:
        # The old format: validity and next UID without letters. Ours replaces it.
        words = [b"3", b"V" + words[1], b"N" + words[2]]
        damaged = True
    else:
        damaged = _HEADER.match(line) is None
    for word in words[1:] if words[0] == b"3" else ():
        key, value = word[:1].decode("latin-1"), word[1:].decode("latin-1")
        if key == "G":
            if re.fullmatch("[0-9a-f]{32}", value, re.ASCII):
                fields["G"] = value
        elif key in {"V", "N"} and re.fullmatch("[0-9]{1,10}", value, re.ASCII) and 0 < int(value) < 2**32:
            fields[key] = value
    return fields, damaged


def other_header_fields(data: bytes) -> list[bytes]:
    """Return the header fields of a file with unknown letters."""
    words = data.partition(b"\n")[0].split(b" ")
    return [word for word in words[1:] if word and word[:1] not in b"VNG"] if words[0] == b"3" else []


def parse_lines(body: bytes, *, version_1: bool = False) -> list[tuple[int, str]]:
    """Return (UID, base) of each complete and valid line."""
    find = (_VERSION_1_LINE if version_1 else _ALL_LINES).findall
    pairs: list[tuple[int, str]] = []
    start, end = 0, body.rfind(b"\n") + 1
    while start < end:
        # In parts: other threads wait during each call.
        stop = body.find(b"\n", min(start + _PART, end - 1)) + 1
        pairs += [
            (number, base)
            for uid, base in find(os.fsdecode(body[start:stop]))
            if 0 < (number := int(uid)) <= HIGHEST_UID
        ]
        start = stop
    return pairs


def is_rising(uids: list[int], last: int) -> bool:
    """Tell whether each UID exceeds the one before, and the first one `last`."""
    return all(map(operator.lt, itertools.chain((last,), uids), uids))


def only_rising(pairs: list[tuple[int, str]], last: int) -> list[tuple[int, str]]:
    """Drop the pairs whose UID does not exceed all before, and `last`."""
    kept = []
    for uid, base in pairs:
        if uid > last:
            kept.append((uid, base))
            last = uid
    return kept


def line_of(found: Mapping[bytes, bytes], uid: int, base: str) -> bytes:
    """Return the line as it is in the file, with its fields, or a new one if that is another message's."""
    encoded = os.fsencode(base)
    line = found.get(b"%d" % uid)
    return line if line is not None and _has_base(line, encoded) else b"%d :%b" % (uid, encoded)


def _has_base(line: bytes, base: bytes) -> bool:
    return line.endswith(b" :" + base) or ((match := LINE.fullmatch(line)) is not None and match[2] == base)
