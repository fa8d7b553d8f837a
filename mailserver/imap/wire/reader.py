"""A cursor over one whole command (RFC 3501 9). Every `read_*` takes the text of its grammar rule, or raises BadSyntax.

A command is a list of parts: text, literal, text, literal, ..., text. Text parts have no CRLF and no announcement.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from functools import lru_cache

from mailserver.errors import BadMailboxName, BadSyntax, LimitReached
from mailserver.imap.wire.mailbox_names import MAX_NAME, decode_utf7, decode_utf8
from mailserver.imap.wire.sequence_set import SequenceSet
from mailserver.imap.wire.writer import FLAG_NAMES, MONTHS

_ATOM = re.compile(rb"[!#$&'+-\[^-z|}~]+")  # ATOM-CHAR: no ( ) { SP CTL % * " \ ]
_ASTRING = re.compile(rb"[!#$&'+-\[\]^-z|}~]+")
_LIST = re.compile(rb"[!#$%&'*+-\[\]^-z|}~]+")
_QUOTED = re.compile(rb'"([^"\\\r\n]*(?:\\["\\][^"\\\r\n]*)*)"')
_ESCAPE = re.compile(rb"\\(.)")
_NUMBER = re.compile(rb"[0-9]+")
_SEQUENCE_SET = re.compile(rb"\$|[0-9:,*]+")
_FLAG = re.compile(rb"\\?[!#$&'+-\[^-z|}~]+")
_DATE = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1')
_DATE_TIME = re.compile(
    # date-day-fixed is " 1" (RFC 3501 9); clients write "1" as well (Perl's Mail::IMAPTalk).
    rb'"( ?[0-9]|[0-9]{2})-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)
_MAX_KEYWORD = 255
MAX_FLAGS = 1000
"""Flags in one list: no message has as many."""
_EPOCH = dt.date(1970, 1, 1).toordinal()
_SYSTEM_FLAGS = {name.lower(): name for name in FLAG_NAMES}
_MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(MONTHS, 1)}


class Reader:
    """Reads a command's parts from left to right."""

    __slots__ = ("_at", "_index", "_parts", "_text", "utf8")

    def __init__(self, parts: Sequence[bytes], start: int = 0, utf8: bool = False) -> None:
        """`utf8`: mailbox names are UTF-8, not modified UTF-7, and so are quoted strings."""
        self.utf8 = utf8
        self._parts = parts
        self._index = 0
        self._text = parts[0]
        self._at = start

    def peek(self, token: bytes) -> bool:
        """Do these octets come next?"""
        return self._text.startswith(token, self._at)

    def matches(self, pattern: re.Pattern[bytes]) -> bool:
        """Does this text come next?"""
        return pattern.match(self._text, self._at) is not None

    def mentions(self, token: bytes) -> bool:
        """Do these octets, in capitals, stand in the text that is left, in any case and outside literals?"""
        if token in self._text[self._at :].upper():
            return True
        more = self._index + 2
        return more < len(self._parts) and any(token in text.upper() for text in self._parts[more::2])

    def skip(self, token: bytes) -> bool:
        """Take these octets if they come next."""
        if self._text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False

    def take(self, token: bytes) -> None:
        """Take these octets, which must come next."""
        if not self.skip(token):
            raise BadSyntax(f"expected {token.decode('ascii')}")

    @property
    def at_end(self) -> bool:
        """Is nothing left?"""
        return self._at == len(self._text) and self._index + 1 >= len(self._parts)

    @property
    def text(self) -> bytes | None:
        """The rest, which is not taken; None if a literal is in it."""
        return None if self._index + 1 < len(self._parts) else self._text[self._at :]

    def rest(self) -> bytes | None:
        """Take the whole rest; None (and nothing is taken) if a literal is in it."""
        if self._index + 1 < len(self._parts):
            return None
        data = self._text[self._at :]
        self._at = len(self._text)
        return data

    def read_end(self) -> None:
        """Raises: BadSyntax unless the command is over."""
        if not self.at_end:
            raise BadSyntax("expected the end of the command")

    def read_sp(self) -> None:
        """One space."""
        if not self.skip(b" "):
            raise BadSyntax("expected a space")

    def _match(self, pattern: re.Pattern[bytes], expected: str) -> re.Match[bytes]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise BadSyntax(f"expected {expected}")
        self._at = match.end()
        return match

    def read_match(self, pattern: re.Pattern[bytes], expected: str) -> re.Match[bytes]:
        """The text of a rule of an extension. `expected` names it in the error."""
        return self._match(pattern, expected)

    def read_atom(self) -> str:
        """`atom`, as written."""
        return self._match(_ATOM, "an atom")[0].decode("ascii")

    def read_word(self) -> str:
        """`atom` in capitals: names of items, keys and mechanisms."""
        return self._match(_ATOM, "a word")[0].decode("ascii").upper()

    def read_number(self, largest: int = 2**32 - 1) -> int:
        """`number`: 0 to `largest`."""
        digits = self._match(_NUMBER, "a number")[0]
        if len(digits) > 20 or int(digits) > largest:
            raise BadSyntax("the number is too large")
        return int(digits)

    def _literal(self, *, nul: bool = False) -> bytes | None:
        """The literal that comes next, if one does; with `nul` it may be binary."""
        if self._at != len(self._text) or self._index + 2 >= len(self._parts):
            return None
        data = self._parts[self._index + 1]
        if not nul and b"\0" in data:
            raise BadSyntax("a literal may not contain NUL")
        self._index += 2
        self._text = self._parts[self._index]
        self._at = 0
        return data

    def read_string(self) -> bytes:
        """`string`: quoted or literal. Eight-bit octets are accepted in both; with `utf8`, quoted ones are UTF-8 (RFC 9755 3)."""
        literal = self._literal()
        if literal is not None:
            return literal
        return self._quoted("a string")

    def _quoted(self, expected: str) -> bytes:
        value = self._match(_QUOTED, expected)[1]
        if self.utf8 and not value.isascii():
            try:
                value.decode("utf-8")
            except UnicodeDecodeError:
                raise BadSyntax(f"expected {expected} in UTF-8") from None
        return _ESCAPE.sub(rb"\1", value) if b"\\" in value else value

    def read_astring(self) -> bytes:
        """`astring`."""
        if self.peek(b'"'):
            return self._quoted("a string")
        literal = self._literal()
        return self._match(_ASTRING, "an atom or string")[0] if literal is None else literal

    def read_nstring(self) -> bytes | None:
        """`nstring`: None is NIL."""
        if self._text[self._at : self._at + 3].upper() == b"NIL":
            self._at += 3
            return None
        return self.read_string()

    def read_value(self) -> bytes | None:
        """`value` (RFC 5464 5): `nstring` or `literal8`; None is NIL."""
        literal = self._literal(nul=True)
        return self.read_nstring() if literal is None else literal

    def read_mailbox(self) -> str:
        """`mailbox`, decoded from modified UTF-7 or UTF-8. Raises: BadSyntax, BadMailboxName (not so encoded, controls, too long)."""
        return _mailbox_name(self.read_astring(), self.utf8)

    def read_list_mailbox(self) -> str:
        """`list-mailbox`: a pattern with % and *. Raises as `read_mailbox`."""
        if self.peek(b'"'):
            return _mailbox_name(self._quoted("a pattern"), self.utf8)
        literal = self._literal()
        return _mailbox_name(self._match(_LIST, "a pattern")[0] if literal is None else literal, self.utf8)

    def read_sequence_set(self) -> SequenceSet:
        """`sequence-set`. Raises: BadSyntax, LimitReached."""
        return SequenceSet.parse(self._match(_SEQUENCE_SET, "a sequence set")[0])

    def read_flag(self) -> str:
        """`flag` that a client may set: a system flag (spelt as in RFC 3501 2.3.2) or a keyword, as written."""
        flag = self._match(_FLAG, "a flag")[0].decode("ascii")
        if flag[0] == "\\":
            name = _SYSTEM_FLAGS.get(flag.lower())
            if name is None:
                raise BadSyntax("no such system flag, or not one that clients set")
            return name
        if len(flag) > _MAX_KEYWORD:
            raise BadSyntax("the keyword is too long")
        return flag

    def read_flags(self, *, bare: bool = False) -> list[str]:
        """`flag-list`; with `bare` also without parentheses (`store-att-flags`). Raises: LimitReached for very many."""
        if not self.skip(b"("):
            if not bare:
                raise BadSyntax("expected (")
            return self._read_flags()
        if self.skip(b")"):
            return []
        flags = self._read_flags()
        self.take(b")")
        return flags

    def _read_flags(self) -> list[str]:
        flags = [self.read_flag()]
        while self.skip(b" "):
            if len(flags) >= MAX_FLAGS:
                raise LimitReached("too many flags")
            flags.append(self.read_flag())
        return flags

    def read_date(self) -> int:
        """`date`, in days since 1970-01-01."""
        match = self._match(_DATE, "a date such as 1-Feb-1994")
        return _days(match[2], match[3], match[4])

    def read_date_time(self) -> int:
        """`date-time`, in seconds since 1970-01-01 00:00 UTC."""
        match = self._match(_DATE_TIME, 'a date such as "17-Jul-1996 02:44:25 -0700"')
        hour, minute, second = int(match[4]), int(match[5]), int(match[6])
        zone = int(match[8]) * 60 + int(match[9])
        if hour > 23 or minute > 59 or second > 60 or int(match[9]) > 59:
            raise BadSyntax("no such time of day")
        seconds = _days(match[1].lstrip(), match[2], match[3]) * 86400 + hour * 3600 + minute * 60 + second
        return seconds - (zone if match[7] == b"+" else -zone) * 60


def _days(day: bytes, month: bytes, year: bytes) -> int:
    number = _MONTH_NUMBERS.get(month.decode("ascii").lower())
    if number is None:
        raise BadSyntax("no such month")
    try:
        return dt.date(int(year), number, int(day)).toordinal() - _EPOCH
    except ValueError:
        raise BadSyntax("no such day") from None


@lru_cache(maxsize=1024)
def _mailbox_name(data: bytes, utf8: bool) -> str:
    if len(data) > MAX_NAME:
        raise BadMailboxName("the mailbox name is too long")
    if utf8:
        name = decode_utf8(data)
    elif data.isascii():
        name = decode_utf7(data)
    else:
        raise BadMailboxName("mailbox names are modified UTF-7, without eight-bit octets")
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in name):
        raise BadMailboxName("control characters in a mailbox name")
    return name
