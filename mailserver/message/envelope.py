"""Address lists, and IMAP's ENVELOPE made from header fields (RFC 3501 7.4.2, RFC 5322 3.4 and 4.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from attrs import frozen

from mailserver.message.headers import unescape, unfold

NO_MAILBOX: Final = b"MISSING_MAILBOX"
NO_DOMAIN: Final = b"MISSING_DOMAIN"
"""In place of a missing domain or mailbox: NIL there would mean group syntax. Dovecot uses the same words."""

ENVELOPE_FIELDS: Final = frozenset(
    {b"date", b"subject", b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"in-reply-to", b"message-id"}
)

FIELD_LIMIT: Final = 256 * 1024
"""Octets of a field, repeated ones together, that an ENVELOPE uses. The header itself is always sent whole."""

ADDRESS_FIELDS: Final = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"})

_SHORT: Final = 128
_LONG: Final = 32 * 1024

_SIMPLE: Final = re.compile(
    rb"\s*+(?:\"([^\"\\\r\n\0]*+)\"\s*+<|((?:[\w.!#$%&'*+/=?^`{|}~-]++[ \t]*+)*+)<)?+"
    rb"([\w.!#$%&'*+/=?^`{|}~-]++)@([\w.!#$%&'*+/=?^`{|}~-]++|\[[\w.:]*+\])(>?)\s*+(,|$)"
)  # fmt: skip
# What is no simple address is one match to the end: so no position is tried twice.
_ALL_SIMPLE: Final = re.compile(
    rb"\s*+(?:(?:\"([^\"\\\r\n\0]*+)\"\s*+|([\w.!#$%&'*+/=?^`{|}~-]++(?:[ \t]++[\w.!#$%&'*+/=?^`{|}~-]++)*+|)[ \t]*+)(<))?+"
    rb"([\w.!#$%&'*+/=?^`{|}~-]++)@([\w.!#$%&'*+/=?^`{|}~-]++|\[[\w.:]*+\])(?(3)>)\s*+(?:,|$)|(.++)",
    re.DOTALL,
)
_TOKEN: Final = re.compile(
    rb"\s++|\"(?:[^\"\\]|\\.)*+\"?|\[[^\]\\]*+\]?|[<>@,:;()]|\\.?|[^\s\"()<>@,:;\[\\]++", re.DOTALL
)  # fmt: skip
_SPECIAL: Final = b'"\\\r\n\0'
_QUOTE: Final = re.compile(rb"[\"\\]")
_NOT_QUOTED: Final = re.compile(rb"[\r\n\0\x80-\xff]")


@frozen
class Address:
    """One address. A group begins with only `mailbox` set (its name) and ends with nothing set (RFC 3501 7.4.2)."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


GROUP_END: Final = Address(None, None, None, None)


def nstring(value: bytes | None) -> bytes:
    """Return NIL, a quoted string, or a literal for CR, LF and 8-bit (RFC 3501 4.3). NUL is left out."""
    if value is None:
        return b"NIL"
    if value.isascii() and len(value.translate(None, _SPECIAL)) == len(value):
        return b'"%b"' % value
    if _NOT_QUOTED.search(value):
        value = value.replace(b"\0", b"")
        if _NOT_QUOTED.search(value):
            return b"{%d}\r\n%b" % (len(value), value)
    if b'"' in value or b"\\" in value:
        value = _QUOTE.sub(rb"\\\g<0>", value)
    return b'"%b"' % value


def parse_addresses(value: bytes) -> list[Address]:
    """Parse the addresses of a field, with groups and obsolete routes. A broken one becomes the nearest address."""
    line = unfold(value)
    addresses = []
    at = 0
    while at < len(line):
        match = _SIMPLE.match(line, at)
        if not match or (match[1] is None and match[2] is None) != (not match[5]):
            return _AddressReader(line).read()
        name = match[1]
        if match[2]:
            # RFC 5322 3.2.2: white space between words counts as one space.
            name = b" ".join(match[2].split())
        addresses.append(Address(name or None, None, match[3], match[4]))
        at = match.end()
    return addresses


def first_address(line: bytes) -> Address | None:
    """Return the first address of an unfolded value, as `parse_addresses` does; None if there is none."""
    match = _SIMPLE.match(line)
    if match and (match[1] is None and match[2] is None) == (not match[5]):
        name = match[1] or (b" ".join(match[2].split()) if match[2] else None)
        return Address(name or None, None, match[3], match[4])
    addresses = parse_addresses(line)
    return addresses[0] if addresses else None


class _AddressReader:
    """A token reader for any address list."""

    def __init__(self, line: bytes) -> None:
        self._tokens = [match[0] for match in _TOKEN.finditer(line)]
        self._at = 0
        self._addresses: list[Address] = []
        self._in_group = False
        self._clear()

    def _clear(self) -> None:
        self._words: list[bytes] = []
        """Tokens outside <>, with b" " for white space."""
        self._has_at = False
        """True if an "@" is among them: they are not searched for it at each colon."""
        self._comment: bytes | None = None
        self._angle: list[bytes] | None = None
        self._name: bytes | None = None

    def read(self) -> list[Address]:
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token == b"(":
                self._read_comment()
            elif token == b"<":
                self._read_angle()
            elif token == b",":
                self._finish()
            elif token == b":" and not self._in_group and not self._has_at:
                self._addresses.append(Address(None, None, _phrase(self._words) or b"", None))
                self._in_group = True
                self._clear()
            elif token == b";":
                self._finish()
                self._end_group()
            elif token != b">":
                self._words.append(b" " if token.isspace() else token)
                self._has_at = self._has_at or token == b"@"
        self._finish()
        self._end_group()
        return self._addresses

    def _end_group(self) -> None:
        if self._in_group:
            self._addresses.append(GROUP_END)
            self._in_group = False

    def _read_comment(self) -> None:
        """Read the comment after its parenthesis, with nested ones."""
        start = self._at
        depth = 1
        while self._at < len(self._tokens) and depth:
            token = self._tokens[self._at]
            depth += (token == b"(") - (token == b")")
            self._at += 1
        text = b"".join(self._tokens[start : self._at - (depth == 0)])
        self._comment = unescape(b" ".join(text.split())) or None

    def _read_angle(self) -> None:
        angle: list[bytes] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token == b">":
                break
            if token == b"(":
                self._read_comment()
            elif token == b"," and angle[:1] != [b"@"]:
                # The ">" is missing: the next address begins.
                self._at -= 1
                break
            elif not token.isspace():
                angle.append(token)
        if self._angle is None:
            # What follows it is no part of the name.
            self._angle, self._name = angle, _phrase(self._words)

    def _finish(self) -> None:
        """Finish the address of the tokens, if there are any."""
        if self._angle is not None:
            self._addresses.append(_angle_address(self._name or self._comment, self._angle))
        elif any(word != b" " for word in self._words):
            self._addresses.append(_bare_address(self._comment, self._words))
        self._clear()


def _phrase(words: list[bytes]) -> bytes | None:
    text = b"".join(_unquote(word) for word in words).strip()
    return text or None


def _unquote(word: bytes) -> bytes:
    if not word.startswith(b'"'):
        return word
    return unescape(word[1:-1] if len(word) > 1 and word.endswith(b'"') else word[1:])


def _angle_address(name: bytes | None, angle: list[bytes]) -> Address:
    route = None
    if angle and angle[0] == b"@" and b":" in angle:
        # RFC 5322 4.4: <@a.example,@b.example:local@c.example>
        colon = angle.index(b":")
        route = b"".join(angle[:colon])
        angle = angle[colon + 1 :]
    if not angle:
        return Address(name, route, NO_MAILBOX, NO_DOMAIN)
    mailbox, host = _local_and_domain(angle)
    return Address(name, route, mailbox, host)


def _bare_address(comment: bytes | None, words: list[bytes]) -> Address:
    if b"@" not in words:
        # Only words: most likely a name without its address.
        text = _phrase(words)
        if text is not None and b" " not in text:
            return Address(comment, None, text, NO_DOMAIN)
        return Address(text, None, NO_MAILBOX, NO_DOMAIN)
    # The words around the first "@" without white space between; white space beside "@" and "." does not count (4.4).
    at = words.index(b"@")
    first = _reach(words, at, -1)
    last = _reach(words, at, 1)
    mailbox, host = _local_and_domain([word for word in words[first : last + 1] if word != b" "])
    return Address(_phrase(words[:first]) or comment, None, mailbox, host)


def _reach(words: list[bytes], at: int, step: int) -> int:
    """Return the last index, in that direction, of the address whose "@" is at `at`."""
    place = at
    joined = True
    while 0 <= place + step < len(words):
        word = words[place + step]
        if word != b" ":
            inner, outer = (word[:1], word[-1:]) if step > 0 else (word[-1:], word[:1])
            if not joined and inner not in b".@":
                break
            joined = outer in b".@"
        elif not joined:
            following = words[place + 2 * step] if 0 <= place + 2 * step < len(words) else b" "
            if following != b"@" and (following[:1] if step > 0 else following[-1:]) != b".":
                break
        place += step
    return place


def _local_and_domain(tokens: list[bytes]) -> tuple[bytes, bytes]:
    if b"@" not in tokens:
        return b"".join(map(_unquote, tokens)) or NO_MAILBOX, NO_DOMAIN
    last = len(tokens) - 1 - tokens[::-1].index(b"@")
    return b"".join(map(_unquote, tokens[:last])) or NO_MAILBOX, b"".join(tokens[last + 1 :]) or NO_DOMAIN


def render_addresses(addresses: list[Address]) -> bytes:
    """Render the parenthesised list, NIL if there are no addresses."""
    if not addresses:
        return b"NIL"
    out = []
    for address in addresses:
        name, route = nstring(address.name), nstring(address.route)
        out.append(b"(%b %b %b %b)" % (name, route, nstring(address.mailbox), nstring(address.host)))
    return b"(%b)" % b"".join(out)


def add_field(fields: dict[bytes, bytes], name: bytes, line: bytes) -> None:
    """Add an unfolded field for `render_envelope`.

    Addresses of repeated fields are joined; of other fields the first counts.
    """
    known = fields.get(name)
    if known is None:
        fields[name] = line[:FIELD_LIMIT]
    elif name in ADDRESS_FIELDS and len(known) < FIELD_LIMIT:
        fields[name] = b"%b,%b" % (known, line[: FIELD_LIMIT - len(known)])


def render_envelope(fields: Mapping[bytes, bytes]) -> bytes:
    """Render the ENVELOPE from unfolded fields by lower-case name."""
    get = fields.get
    author = _render_list(fields[b"from"]) if b"from" in fields else b"NIL"
    sender = _render_list(fields[b"sender"]) if b"sender" in fields else b"NIL"
    reply_to = _render_list(fields[b"reply-to"]) if b"reply-to" in fields else b"NIL"
    # RFC 3501 7.4.2: an absent or empty Sender or Reply-To becomes From.
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(get(b"date")),
        nstring(get(b"subject")),
        author,
        author if sender == b"NIL" else sender,
        author if reply_to == b"NIL" else reply_to,
        _render_list(fields[b"to"]) if b"to" in fields else b"NIL",
        _render_list(fields[b"cc"]) if b"cc" in fields else b"NIL",
        _render_list(fields[b"bcc"]) if b"bcc" in fields else b"NIL",
        nstring(fields[b"in-reply-to"]) if b"in-reply-to" in fields else b"NIL",
        nstring(get(b"message-id")),
    )


def _render_list(line: bytes) -> bytes:
    """Do `render_addresses` for a field."""
    return _common_list(line) if len(line) < _SHORT else _any_list(line)


@lru_cache(maxsize=2048)
def _common_list(line: bytes) -> bytes:
    """Cache the user's own address, and those of frequent correspondents."""
    return _any_list(line)


def _any_list(line: bytes) -> bytes:
    """Render simple addresses without the steps between: all are found in one call."""
    out: list[bytes] = []
    found: Iterable[tuple[bytes, ...]]
    if len(line) <= _LONG:
        found = _ALL_SIMPLE.findall(line)
    else:
        # One call for all of them would keep all other threads waiting.
        found = (match.groups(b"") for match in _ALL_SIMPLE.finditer(line))
    for quoted, words, _opening, mailbox, host, other in found:
        if other:
            return render_addresses(parse_addresses(line))
        # None of these characters needs quoting, but for 8-bit ones.
        if words:
            name = b" ".join(words.split()) if b"  " in words or b"\t" in words else words
            out.append(b'("%b" NIL "%b" "%b")' % (name, mailbox, host))
        elif quoted:
            out.append(b'(%b NIL "%b" "%b")' % (nstring(quoted), mailbox, host))
        else:
            out.append(b'(NIL NIL "%b" "%b")' % (mailbox, host))
    return b"(%b)" % b"".join(out) if out else b"NIL"
