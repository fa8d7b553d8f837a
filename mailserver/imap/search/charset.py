"""The charset of search strings (RFC 3501 6.4.4)."""

from __future__ import annotations

from typing import Final

from mailserver.errors import BadCharset
from mailserver.imap.wire.reader import Reader
from mailserver.message.encodings import CHARSETS

_BADCHARSETS: Final = (
    "US-ASCII",
    "UTF-8",
    "ISO-8859-1",
    "ISO-8859-15",
    "WINDOWS-1252",
    "KOI8-R",
    "ISO-2022-JP",
    "GB18030",
)


def read_codec(reader: Reader) -> str:
    """CHARSET's argument, as Python's codec. Raises: BadCharset."""
    name = reader.read_astring()
    codec = CHARSETS.get(name.decode("ascii", "replace").lower())
    if codec is None:
        raise UnknownCharset
    return codec


class UnknownCharset(BadCharset):
    """NO [BADCHARSET (...)] with charsets that are known (RFC 3501 7.1)."""

    imap_code = f"BADCHARSET ({' '.join(_BADCHARSETS)})"


class FilterCharset(BadCharset):
    """FILTER with a charset other than UTF-8 and US-ASCII (RFC 5466 3.1)."""

    imap_status = "BAD"
    imap_code = "BADCHARSET (UTF-8 US-ASCII)"
    text = "filters are in UTF-8"
