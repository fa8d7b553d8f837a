"""The syntax of IMAP values (RFC 3501 4 and 9), as pure functions; nothing is kept but caches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from itertools import compress

from mailserver.imap.wire.mailbox_names import encode_utf7, encode_utf8

FLAG_NAMES = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
"""System flags by bit of the store's masks; keywords follow."""

CACHED_MASKS = (1 << 31) - 1
"""The highest mask of system flags and 26 keywords."""

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_BITS = bytes(digit == ord("1") for digit in range(256))

_NOT_QUOTABLE = frozenset([0, 10, 13, *range(0x80, 0x100)])
_NOT_EVEN_IN_UTF8 = frozenset([0, 10, 13])
_LONGEST_QUOTED = 1000


def quoted(value: bytes) -> bytes:
    """A quoted string. The value has no CR, LF or NUL, and no eight-bit octets unless the client takes UTF-8."""
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


def value(octets: bytes | None) -> bytes:
    """`value` (RFC 5464 5): as `nstring`, but octets with NUL are a `literal8`."""
    return b"~" + literal(octets) if octets is not None and b"\0" in octets else nstring(octets)


astring = string
"""`astring`, written like a string."""


@lru_cache(maxsize=1024)
def mailbox(name: str, utf8: bool = False) -> bytes:
    """A mailbox name (as clients see it) in modified UTF-7, or in UTF-8 (RFC 9051 5.1); INBOX as an atom."""
    if name == "INBOX":
        return b"INBOX"
    if not utf8:
        return string(encode_utf7(name))
    data = encode_utf8(name)
    # RFC 9051 9: a quoted string may have UTF-8.
    return literal(data) if len(data) > _LONGEST_QUOTED or not _NOT_EVEN_IN_UTF8.isdisjoint(data) else quoted(data)


def flags(mask: int, keywords: tuple[str, ...], recent: bool = False) -> bytes:
    """A parenthesised flag list for a store mask; `keywords` is the mailbox's tuple of names."""
    if mask <= CACHED_MASKS:
        return few_flags(mask, keywords, recent)
    # Lists with hundreds of keywords would fill the cache with many megabytes.
    names = [name for bit, name in enumerate(FLAG_NAMES) if mask >> bit & 1]
    extra = mask >> len(FLAG_NAMES)
    names += filter(None, compress(keywords, f"{extra:b}"[::-1].encode().translate(_BITS)))
    return flag_list([*names, "\\Recent"] if recent else names)


@lru_cache(maxsize=4096)
def few_flags(mask: int, keywords: tuple[str, ...], recent: bool) -> bytes:
    """`flags` for a mask up to CACHED_MASKS, without a call of Python where the list is known."""
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
