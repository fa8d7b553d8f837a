"""A strict parser of a submitted message's header: it accepts only fields that every program reads alike (RFC 5322 2.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from attrs import frozen

from mailserver.errors import BadMessage, TooBig
from mailserver.message.limits import MAX_HEADER

_NAME = re.compile(rb"[!-9;-~]{1,200}[ \t]*:")
_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:((?:[^\r]++|\r\n[ \t])*+)\r\n")
_OTHERS = rb"(?i:(?!(?:%b)[ \t]*:)[!-9;-~]{1,200}[ \t]*:(?:[^\r]++|\r\n[ \t])*+\r\n)*+"


@frozen
class Field:
    """One header field."""

    name: str
    """Lower case."""
    body: str
    """Unfolded, octets as Latin-1."""


def parse_header(start: bytes, names: frozenset[str]) -> Sequence[Field]:
    """The fields of those names; `start` is a message's first MAX_HEADER + 2 octets, line ends are CRLF.

    Raises: BadMessage for a line that is no field (what follows it would be header to some and body to others), TooBig.
    """
    others = _fields_without(names)
    fields = []
    at = _end_of(others, start, 0)
    while at < len(start) and not start.startswith(b"\r\n", at):
        field = _FIELD.match(start, at)
        if field is None:
            if len(start) > MAX_HEADER and (_NAME.match(start, at) or at > MAX_HEADER - 300):
                raise TooBig(f"the message's header is larger than {MAX_HEADER} octets")
            raise BadMessage("the message's header has a line that is no header field")
        body = field[2].replace(b"\r\n", b"").decode("latin-1")
        fields.append(Field(field[1].decode("ascii").lower(), body.strip(" \t")))
        at = _end_of(others, start, field.end())
    if at > MAX_HEADER:
        raise TooBig(f"the message's header is larger than {MAX_HEADER} octets")
    return fields


@lru_cache(maxsize=4)
def _fields_without(names: frozenset[str]) -> re.Pattern[bytes]:
    """A run of fields of other names: most are, and one match passes over them."""
    return re.compile(_OTHERS % b"|".join(re.escape(name.encode("ascii")) for name in sorted(names)))


def _end_of(others: re.Pattern[bytes], start: bytes, at: int) -> int:
    found = others.match(start, at)
    return at if found is None else found.end()
