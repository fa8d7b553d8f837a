"""Surrogates of messages with UTF-8 in header fields (RFC 6532), for clients of IMAP and POP3 without UTF-8.

The rule is that of RFC 6858, field by field: a field is replaced where it is valid UTF-8 beyond ASCII, and nothing else of the
message changes. So the surrogate of a part of a header (`Summary.fields`) is that part of the header's surrogate. RFC 6857
keeps more, in fields that no program reads, and RFC 6858 lets RFC822.SIZE stay that of the message itself: the size of a
surrogate is known only once all headers of the message have been read.

*   Fields of addresses: names are encoded words, a domain is its A-labels, and an address whose local part is beyond ASCII
    becomes one that nobody has, with the address in its name.
*   Parameters of Content-Type and Content-Disposition are in the form of RFC 2231 (RFC 6858 would drop them). A field whose
    type or boundary is beyond ASCII stays, so that the structure does not change.
*   Subject and other fields of text are encoded words.
*   Further fields are left out.

Fields with 8-bit octets that are not UTF-8 stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from mailserver.idn import ascii_name
from mailserver.message.envelope import NO_DOMAIN, NO_MAILBOX, Address, parse_addresses
from mailserver.message.headers import decode_line, iterate_fields, parse_content_type, parse_disposition, unfold
from mailserver.message.limits import SEEN
from mailserver.message.structure import Part, parse_structure

Edit = tuple[int, int, bytes]
"""Start and end of a field in the message, and the octets in its place."""

NOBODY: Final = b"invalid@internationalized-address.invalid"
"""In place of an address that a client without UTF-8 cannot use (RFC 6858 2.1; RFC 2606 reserves the domain)."""
LONGEST: Final = 32 * 1024
"""Octets of a field that is replaced; a longer one is left out."""

FEW_PARTS: Final = 64
"""Delimiters of a message whose structure is parsed where others wait."""

_ADDRESSES: Final = frozenset(
    b"bcc cc disposition-notification-to from mail-followup-to mail-reply-to reply-to resent-bcc resent-cc resent-from"
    b" resent-reply-to resent-sender resent-to return-path sender to".split()
)
_TEXTS: Final = frozenset(b"comments content-description organization subject".split())
_WORDS: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~ -]*", re.ASCII)
"""A name that needs no quotes; a dot stands in many (RFC 5322 4.1, obs-phrase)."""
_DOT_ATOM: Final = re.compile(rb"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*")
_TOKEN: Final = re.compile(rb"[\w!#$&'*+.^`{|}~%-]+")
_SPECIAL: Final = re.compile(rb"[\"\\]")
_Q_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
"""Octets that stand for themselves in an encoded word of a phrase (RFC 2047 5)."""
_EXTENDED_PLAIN: Final = _Q_PLAIN - frozenset(b"*") | frozenset(b".")
_LONGEST_DOMAIN: Final = 1000
"""Octets of a domain that is converted; a domain of DNS has at most 255."""
_WORD: Final = 60
"""Octets of the text of one encoded word, or of one piece of a parameter: no line gets longer than 78."""
_FOLD: Final = b"\r\n "


def message_edits(source: bytes) -> list[Edit]:
    """The edits that make the surrogate of a message with CRLF line ends, rising; none if it needs none. Linear in its size."""
    if source.isascii():
        return []
    return [edit for part in _parts(parse_structure(source)) for edit in header_edits(source, part.start, part.body)]


def needs_surrogate(source: bytes) -> bool:
    """Has `message_edits` any?"""
    if source.isascii():
        return False
    return any(
        _is_utf8(value)
        for part in _parts(parse_structure(source))
        if not source[part.start : part.body].isascii()
        for _, value, _, _ in iterate_fields(source, part.start, part.body)
    )


def is_plain(source: bytes) -> bool:
    """Is it sure, after little work, that a message of moderate size, or a header, needs no surrogate?"""
    return source.count(b"\n--") <= FEW_PARTS and not needs_surrogate(source)


def header_edits(source: bytes, start: int, end: int) -> list[Edit]:
    """The edits of one header, which is source[start:end], up to `limits.SEEN`."""
    last = min(end, start + SEEN)
    if source[start:last].isascii():
        return []
    return [
        (low, high, _surrogate(source[low:high], name))
        for name, value, low, high in iterate_fields(source, start, last)
        if (high < last or last == end) and _is_utf8(value)
    ]


def surrogate_lines(lines: bytes) -> bytes:
    """The surrogate of some lines of a header, or of a whole header."""
    return apply_edits(lines, header_edits(lines, 0, len(lines)))


def apply_edits(source: bytes, edits: Sequence[Edit]) -> bytes:
    """The surrogate of a source with those edits."""
    if not edits:
        return source
    pieces: list[bytes] = []
    at = 0
    for start, end, text in edits:
        pieces += source[at:start], text
        at = end
    pieces.append(source[at:])
    return b"".join(pieces)


def _parts(root: Part) -> Iterator[Part]:
    """All parts, in the order of their headers."""
    todo = [root]
    while todo:
        part = todo.pop()
        yield part
        todo += reversed(part.children)


def _is_utf8(value: bytes) -> bool:
    if value.isascii():
        return False
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _surrogate(field: bytes, name: bytes) -> bytes:
    """The octets in place of a field; none if it is left out."""
    label, _, value = field.partition(b":")
    line = unfold(value)
    # The line end before a delimiter is no part of the field in front of it.
    end = b"\r\n" if field.endswith(b"\n") else b""
    text: bytes | None = None
    if name == b"content-type":
        text = _content_type(line)
        return field if text is None else b"%b: %b%b" % (label, text, end)
    if len(field) > LONGEST:
        return b""
    if name in _ADDRESSES:
        text = _addresses(line)
    elif name == b"content-disposition":
        disposition = parse_disposition(line)
        if disposition is not None and disposition[0].isascii():
            text = disposition[0] + _parameters(disposition[1])
    elif name in _TEXTS:
        text = encoded_words(decode_line(line))
    return b"%b: %b%b" % (label, text, end) if text is not None else b""


def _content_type(line: bytes) -> bytes | None:
    """The value in place of a Content-Type, which is never left out: that could make a part a message (RFC 2046 5.1.5).

    None: the field stays.
    """
    parsed = parse_content_type(line)
    if parsed is None:
        return b"text/plain"
    type_, subtype, parameters = parsed
    odd = (key for key, value in parameters if key.lower().startswith(b"boundary") and not value.isascii())
    if not type_.isascii() or not subtype.isascii() or any(odd):
        return None
    return b"%b/%b%b" % (type_, subtype, _parameters(parameters))


def _parameters(parameters: tuple[tuple[bytes, bytes], ...]) -> bytes:
    out = []
    for key, value in parameters:
        if not key.isascii():
            continue
        if value.isascii():
            out.append(b"%b=%b" % (key, value if _TOKEN.fullmatch(value) else _quoted(value)))
        elif not key.endswith(b"*"):
            out += _extended(key, value)
    return b"".join([b";%b%b" % (_FOLD, each) for each in out])


def _extended(key: bytes, value: bytes) -> list[bytes]:
    """A parameter in the form of RFC 2231 4, in pieces where it is long (4.1)."""
    pieces = _pieces(value, _EXTENDED_PLAIN, b"%%%02X", None)
    if len(pieces) == 1:
        return [b"%b*=utf-8''%b" % (key, pieces[0])]
    return [b"%b*%d*=%b%b" % (key, number, b"" if number else b"utf-8''", each) for number, each in enumerate(pieces)]


def encoded_words(text: str) -> bytes:
    """A text as encoded words of RFC 2047, which may stand in a phrase; folded."""
    data = text.encode("utf-8", "replace")
    return _FOLD.join([b"=?utf-8?q?%b?=" % piece for piece in _pieces(data, _Q_PLAIN, b"=%02X", b"_")])


def _pieces(data: bytes, plain: frozenset[int], escape: bytes, space: bytes | None) -> list[bytes]:
    """The octets with escapes, in pieces of about _WORD octets that end between characters."""
    pieces: list[bytes] = []
    piece = bytearray()
    for octet in data:
        # A character of UTF-8 begins with an octet that is no continuation (RFC 3629 3).
        if len(piece) >= _WORD - 12 and octet & 0xC0 != 0x80:
            pieces.append(bytes(piece))
            piece.clear()
        if octet in plain:
            piece.append(octet)
        elif octet == 0x20 and space is not None:
            piece += space
        else:
            piece += escape % octet
    pieces.append(bytes(piece))
    return pieces


def _quoted(value: bytes) -> bytes:
    return b'"%b"' % _SPECIAL.sub(rb"\\\g<0>", value)


def _addresses(line: bytes) -> bytes:
    out: list[bytes] = []
    between = b""
    for address in parse_addresses(line):
        if address.host is None:
            # The name of a group, or its end.
            begins = address.mailbox is not None
            out.append(between + _phrase(address.mailbox or b"") + b":" if begins else b";")
            between = b" " if begins else b"," + _FOLD
            continue
        out.append(between + _address(address))
        between = b"," + _FOLD
    return b"".join(out)


def _address(address: Address) -> bytes:
    name, mailbox, host = address.name, address.mailbox or NO_MAILBOX, address.host or NO_DOMAIN
    if host == NO_DOMAIN and mailbox.isascii():
        shown = b"" if mailbox == NO_MAILBOX else mailbox
        return (
            b"%b <%b>" % (_phrase(name or b""), _local(shown) if shown else b"") if name or not shown else _local(shown)
        )
    if not host.isascii():
        # The same domain (RFC 5890 2.3.2.1).
        host = _a_labels(host)
    if mailbox.isascii() and host.isascii():
        plain = b"%b@%b" % (_local(mailbox), host)
        return b"%b <%b>" % (_phrase(name), plain) if name else plain
    real = mailbox if host == NO_DOMAIN else b"%b@%b" % (mailbox, address.host or b"")
    return b"%b <%b>" % (_phrase(b"%b <%b>" % (name, real) if name else real), NOBODY)


@lru_cache(maxsize=1024)
def _a_labels(host: bytes) -> bytes:
    """The A-labels of a domain, or the domain where it has none; most messages of a user are from the same few."""
    labels = ascii_name(host.decode("utf-8", "replace")) if len(host) <= _LONGEST_DOMAIN else None
    return labels.encode("ascii") if labels else host


def _local(mailbox: bytes) -> bytes:
    return mailbox if _DOT_ATOM.fullmatch(mailbox) else _quoted(mailbox)


def _phrase(name: bytes) -> bytes:
    if not name.isascii():
        return encoded_words(decode_line(name))
    text = name.decode("ascii")
    return name if text and _WORDS.fullmatch(text) else _quoted(name)
