"""The syntax of IMAP values (RFC 3501 4 and 9), as pure functions; nothing is kept but caches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache

from mailserver.imap.wire.mailbox_names import encode_utf7

FLAG_NAMES = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
"""System flags by bit of the store's masks; keywords follow."""

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_NOT_QUOTABLE = frozenset([0, 10, 13, *range(0x80, 0x100)])
_LONGEST_QUOTED = 1000


def quoted(value: bytes) -> bytes:
    """A quoted string. The value has no CR, LF, NUL or eight-bit octets."""
    if b"\\" in value or b'"' in value:
        value = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%b"' % value


def literal(value: bytes) -> bytes:
    """A literal, announcement included."""
    return b"{%d}\r\n%b" % (len(value), value)


def string(value: bytes) -> bytes:
    """A quoted string where possible, else a literal. NUL, which neither can hold, becomes a question mark."""
    if len(value) <= _LONGEST_QUOTED and _NOT_QUOTABLE.isdisjoint(value):
        return quoted(value)
    return literal(value.replace(b"\0", b"?"))


def nstring(value: bytes | None) -> bytes:
    """A string or NIL."""
    return b"NIL" if value is None else string(value)


astring = string
"""`astring`, written like a string."""


@lru_cache(maxsize=1024)
def mailbox(name: str) -> bytes:
    """A mailbox name (as clients see it) in modified UTF-7; INBOX as an atom."""
    return b"INBOX" if name == "INBOX" else string(encode_utf7(name))


@lru_cache(maxsize=4096)
def flags(mask: int, keywords: tuple[str, ...], recent: bool = False) -> bytes:
    """A parenthesised flag list for a store mask; `keywords` is the mailbox's tuple of names."""
    names = [name for bit, name in enumerate(FLAG_NAMES) if mask >> bit & 1]
    extra = mask >> len(FLAG_NAMES)
    names += [name for bit, name in enumerate(keywords) if extra >> bit & 1]
    if recent:
        names.append("\\Recent")
    return flag_list(names)


def flag_list(names: Iterable[str]) -> bytes:
    """A parenthesised list of flag names."""
    return b"(%b)" % " ".join(names).encode("ascii")


@lru_cache(maxsize=4096)
def date_time(seconds: int) -> bytes:
    """`date-time` in UTC for seconds since 1970, with its quotes; years outside 1 to 9999 become the nearest one."""
    low, high = -62135596800, 253402300799
    t = time.gmtime(min(max(seconds, low), high))
    return b'"%2d-%b-%04d %02d:%02d:%02d +0000"' % (
        t.tm_mday, MONTHS[t.tm_mon - 1].encode("ascii"), t.tm_year, t.tm_hour, t.tm_min, t.tm_sec,
    )  # fmt: skip
