"""Transfer encodings and charsets, decoded leniently: whatever comes, something readable goes out, in linear time.

Charsets come from an allow-list of text encodings by their MIME names. Python's own registry is never asked with a
name from a message: it holds compressors, escapes and file readers too.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

_FAMILIES: Final = {
    "ascii": "us-ascii ascii ansi_x3.4-1968 iso646-us us iso-ir-6 cp367 646",
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8 x-utf-8 utf-8n utf8mb4",
    "utf-7": "utf-7 utf7 unicode-1-1-utf-7",
    "utf-16": "utf-16 utf16",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "utf-32": "utf-32 utf32",
    # As browsers and mail programs do: what says Latin-1 is Windows-1252.
    "cp1252": "iso-8859-1 iso8859-1 iso_8859-1 latin1 latin-1 l1 iso-ir-100 ibm819 cp819 windows-1252 cp1252 x-cp1252 "
    "x-ansi ansi",
    "iso8859-2": "iso-8859-2 iso8859-2 iso_8859-2 latin2 latin-2 l2 iso-ir-101",
    "iso8859-3": "iso-8859-3 iso8859-3 latin3 latin-3",
    "iso8859-4": "iso-8859-4 iso8859-4 latin4 latin-4",
    "iso8859-5": "iso-8859-5 iso8859-5 cyrillic",
    "iso8859-6": "iso-8859-6 iso8859-6 iso-8859-6-i iso-8859-6-e arabic",
    "iso8859-7": "iso-8859-7 iso8859-7 greek",
    "iso8859-8": "iso-8859-8 iso8859-8 iso-8859-8-i iso-8859-8-e hebrew",
    "cp1254": "iso-8859-9 iso8859-9 latin5 latin-5 windows-1254 cp1254",
    "iso8859-10": "iso-8859-10 iso8859-10 latin6 latin-6",
    "iso8859-11": "iso-8859-11 iso8859-11",
    "iso8859-13": "iso-8859-13 iso8859-13 latin7 latin-7",
    "iso8859-14": "iso-8859-14 iso8859-14 latin8 latin-8",
    "iso8859-15": "iso-8859-15 iso8859-15 latin9 latin-9",
    "iso8859-16": "iso-8859-16 iso8859-16 latin10 latin-10",
    "cp1250": "windows-1250 cp1250 x-cp1250",
    "cp1251": "windows-1251 cp1251 x-cp1251",
    "cp1253": "windows-1253 cp1253",
    "cp1255": "windows-1255 cp1255",
    "cp1256": "windows-1256 cp1256",
    "cp1257": "windows-1257 cp1257",
    "cp1258": "windows-1258 cp1258",
    "cp874": "windows-874 cp874 tis-620 x-windows-874",
    "cp437": "cp437 ibm437",
    "cp850": "cp850 ibm850",
    "cp852": "cp852 ibm852",
    "cp855": "cp855 ibm855",
    "cp858": "cp858 ibm00858",
    "cp866": "cp866 ibm866",
    "koi8-r": "koi8-r koi8r",
    "koi8-u": "koi8-u koi8u",
    "mac-roman": "macintosh mac x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic",
    "cp932": "shift_jis shift-jis sjis x-sjis ms_kanji windows-31j cp932",
    "euc_jp": "euc-jp eucjp x-euc-jp",
    "iso2022_jp_2": "iso-2022-jp iso-2022-jp-1 iso-2022-jp-2",
    "iso2022_kr": "iso-2022-kr",
    "cp949": "euc-kr euckr ks_c_5601-1987 ks_c_5601-1989 ksc5601 windows-949 cp949 uhc",
    "gb18030": "gb2312 gb_2312-80 gbk gb18030 gb-2312 x-gbk cp936 windows-936 euc-cn",
    "hz": "hz-gb-2312 hz",
    "big5hkscs": "big5 big5-hkscs big-5 cn-big5 x-x-big5 cp950 windows-950",
}

CHARSETS: Final = {name: codec for codec, names in _FAMILIES.items() for name in names.split()}
"""MIME name, lower case, to the name of Python's codec."""

ENCODINGS: Final = frozenset({b"base64", b"quoted-printable", b"x-uuencode", b"uuencode", b"x-uue"})
"""Content-Transfer-Encodings that `decode_transfer` decodes."""

_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]+")


def codec_of(charset: str) -> str | None:
    """Return Python's codec for a charset's MIME name (any case), None if it is not on the list."""
    return CHARSETS.get(charset.strip().lower())


def decode_text(data: bytes, charset: str | None) -> str:
    """Text of that charset. What does not decode becomes U+FFFD.

    Unknown, missing and plainly wrong US-ASCII labels are read as UTF-8 if they are, else as Windows-1252.
    """
    codec = codec_of(charset) if charset else None
    if codec is None or codec == "ascii":
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            codec = "cp1252"
    text = data.decode(codec, "replace")
    if codec == "utf-7":
        # Python lets halves of surrogate pairs through here, and they cannot be written again.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def decode_transfer(data: bytes, encoding: bytes) -> bytes:
    """Decode a Content-Transfer-Encoding, by its lower-case name (RFC 2045 6). Unknown ones leave data as it is."""
    match encoding:
        case b"base64":
            return decode_base64(data)
        case b"quoted-printable":
            return binascii.a2b_qp(data)
        case b"x-uuencode" | b"uuencode" | b"x-uue":
            return _decode_uu(data)
    return data


def decode_base64(data: bytes) -> bytes:
    """Decode base64 without foreign characters and without an incomplete end (RFC 2045 6.8)."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        clean = _NOT_BASE64.sub(b"", data.partition(b"=")[0])
        whole = len(clean) // 4 * 4
        rest = clean[whole:]
        if len(rest) == 1:
            rest = b""
        return binascii.a2b_base64(clean[:whole] + rest + b"=" * (-len(rest) % 4))


def _decode_uu(data: bytes) -> bytes:
    lines = []
    started = False
    for line in data.splitlines():
        if not started:
            started = line.startswith(b"begin ")
        elif line == b"end":
            break
        else:
            try:
                lines.append(binascii.a2b_uu(line))
            except binascii.Error:
                continue
    return b"".join(lines) if started else data
