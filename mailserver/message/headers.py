"""Header fields: splitting, unfolding, parameters, encoded words (RFC 5322 2.2, RFC 2045 5.1, RFC 2047, RFC 2231).

Nothing here raises for any input, and everything is linear in the input: the patterns are possessive, so none tries a
position twice.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes

from mailserver.message.encodings import codec_of, decode_base64, decode_text

MAX_PARAMETERS: Final = 1000
"""Most parameters of one field that are returned."""

MAX_WORDS: Final = 10_000
"""Encoded words of one field that are decoded; further ones stay as they are."""

FIELD: Final = re.compile(rb"^([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?", re.MULTILINE)
_TYPE: Final = re.compile(rb"\s*+([^\s/;=\"(),<>@]++)\s*+/\s*+([^\s/;=\"(),<>@]++)")
_TOKEN: Final = re.compile(rb"\s*+([^\s;\"(),<>@]++)")
_PARAMETER: Final = re.compile(
    rb";\s*+([^\s=;\"]++)\s*+=\s*+(?:\"((?:[^\"\\]|\\.)*+)\"?+|([^;]*+))?+", re.DOTALL
)  # fmt: skip
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_COMMENT_MARK: Final = re.compile(rb"[()\"]|\\.", re.DOTALL)
_CONTINUED: Final = re.compile(r"^([^*]+)\*(\d{1,3})?(\*)?$")
_WORD: Final = re.compile(r"=\?([^?\s*]{1,60})(?:\*[^?\s]{0,60})?\?([bBqQ])\?([^?]*+)\?=")
_BREAKS: Final = dict.fromkeys(map(ord, "\r\n\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), " ")
_QUOTED_HEX: Final = re.compile(rb"=([0-9A-Fa-f]{2})")


def header_end(source: bytes, start: int = 0) -> int:
    """Return the start of the body, after the empty line; the end of the source without one."""
    if source.startswith(b"\r\n", start):
        return start + 2
    blank = source.find(b"\r\n\r\n", start)
    return len(source) if blank < 0 else blank + 4


def iterate_fields(source: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes, int, int]]:
    """Yield (name in lower case, raw value, start, end) of each field. Lines that are no field are skipped."""
    for match in FIELD.finditer(source, start, end):
        yield match[1].lower(), match[2], match.start(), match.end()


def unfold(value: bytes) -> bytes:
    """Unfold a value into one line, without NUL and surrounding white space (RFC 5322 2.2.3)."""
    if b"\n" in value or b"\0" in value:
        # A pattern would make an object of each line.
        value = value.replace(b"\r\n", b"").replace(b"\n", b"").replace(b"\0", b"")
    value = value.strip(b" \t\r")
    return value.replace(b"\r", b" ") if b"\r" in value else value


def strip_comments(value: bytes) -> bytes:
    """Replace each (comment), however nested, by a space (RFC 5322 3.2.2)."""
    if b"(" not in value:
        return value
    kept = []
    depth = 0
    quoted = False
    at = 0
    for mark in _COMMENT_MARK.finditer(value):
        character = mark[0]
        if character == b'"' and depth == 0:
            quoted = not quoted
        elif character == b"(" and not quoted:
            if depth == 0:
                kept += [value[at : mark.start()], b" "]
            depth += 1
        elif character == b")" and depth:
            depth -= 1
            at = mark.end()
    if depth == 0:
        kept.append(value[at:])
    return b"".join(kept)


def parse_content_type(value: bytes) -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]] | None:
    """Parse a Content-Type (RFC 2045 5.1) into (type, subtype, parameters); None if there is no type/subtype."""
    value = strip_comments(unfold(value))
    match = _TYPE.match(value)
    return (match[1], match[2], _parse_parameters(value, match.end())) if match else None


def parse_disposition(value: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]] | None:
    """Parse a Content-Disposition (RFC 2183) into (token, parameters); None if there is no token."""
    value = strip_comments(unfold(value))
    match = _TOKEN.match(value)
    return (match[1], _parse_parameters(value, match.end())) if match else None


def _parse_parameters(value: bytes, at: int) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        (match[1], match[3].strip() if match[2] is None and match[3] is not None else unescape(match[2] or b""))
        for match in islice(_PARAMETER.finditer(value, at), MAX_PARAMETERS)
    )


def unescape(quoted: bytes) -> bytes:
    """Remove the backslashes inside a quoted string."""
    return _ESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted


def parameter(parameters: tuple[tuple[bytes, bytes], ...], name: bytes) -> str | None:
    """Return one parameter's decoded value: plain, or in the extended and continued forms of RFC 2231."""
    for key, value in parameters:
        if key.lower() == name:
            return decode_text(value, None)
    pieces: dict[int, tuple[bytes, bool]] = {}
    for key, value in parameters:
        match = _CONTINUED.match(key.decode("latin-1").lower())
        if match and match[1].encode("latin-1") == name:
            pieces.setdefault(int(match[2] or 0), (value, bool(match[3]) or match[2] is None))
    if 0 not in pieces:
        return None
    charset = None
    whole = []
    for number in range(len(pieces)):
        if number not in pieces:
            break
        value, extended = pieces[number]
        if extended:
            if number == 0 and value.count(b"'") >= 2:
                label, _, value = value.split(b"'", 2)
                charset = label.decode("latin-1")
            value = unquote_to_bytes(value)
        whole.append(value)
    return decode_text(b"".join(whole), charset)


def decode_line(line: bytes) -> str:
    """Decode an unfolded value: encoded words where they stand (RFC 2047), raw 8-bit text by guessing."""
    text = line.decode("ascii") if line.isascii() else decode_text(line, None)
    return decode_words(text) if "=?" in text else text


def decode_words(text: str) -> str:
    """Decode the encoded words of a text (RFC 2047). White space between two of them goes (6.2).

    Neighbours of one charset and encoding are joined before decoding: many programs cut characters in two.
    """
    out: list[str] = []
    pending = b""
    pending_charset = ""
    at = 0
    for match in islice(_WORD.finditer(text), MAX_WORDS):
        charset = match[1].lower()
        if codec_of(charset) is None:
            continue
        between = text[at : match.start()]
        if (between and not (at and between.isspace())) or charset != pending_charset:
            if pending:
                out.append(decode_text(pending, pending_charset))
                pending = b""
            if not (at and between.isspace()):
                out.append(between)
        pending += _decode_word(match[2], match[3])
        pending_charset = charset
        at = match.end()
    out += (decode_text(pending, pending_charset), text[at:])
    joined = "".join(out)
    # Folded lists have tabs; translating costs more than all before.
    return joined if joined.replace("\t", "").isprintable() else joined.translate(_BREAKS)


def _decode_word(encoding: str, text: str) -> bytes:
    data = text.encode("utf-8")
    if encoding in "bB":
        return decode_base64(data)
    if b"==" not in data and not data.endswith(b"=") and b"\n" not in data and b"\r" not in data:
        return binascii.a2b_qp(data, header=True)
    # Of these texts `a2b_qp` drops octets.
    return _QUOTED_HEX.sub(lambda match: bytes((int(match[1], 16),)), data.replace(b"_", b" "))
