"""Texts of other servers and of envelopes, made harmless for headers, logs and terminals."""

from __future__ import annotations

import textwrap
from typing import Final

MAX_WORDS: Final = 400
"""Characters that are kept of one line of a reply."""
MAX_ADDRESS: Final = 900
"""Octets that are kept of an address: a line of a message has 998 at most (RFC 5322 2.1.1)."""
_WIDTH: Final = 78


def printable(text: str | bytes, limit: int = MAX_WORDS) -> str:
    """Printable ASCII, on one line: TAB, CR and LF are spaces, any other character is a question mark."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("ascii", "replace")
    kept = "".join(
        each if " " <= each <= "~" else " " if each in "\t\r\n" else "?" for each in text[: limit + 1].strip("\r\n")
    )
    return kept if len(kept) <= limit else kept[: limit - 3] + "..."


def address_text(address: str, *, utf8: bool) -> str:
    """An address for a report: with `utf8` it keeps its characters beyond ASCII, but for controls."""
    if not utf8:
        return printable(address, MAX_ADDRESS)
    kept = "".join(each if each.isprintable() else "?" for each in address[:MAX_ADDRESS])
    return kept.encode("utf-8")[:MAX_ADDRESS].decode("utf-8", "ignore")


def field(name: str, value: str) -> str:
    """A header field or report field, folded at spaces, without CR or LF in the value."""
    lines = textwrap.wrap(
        " ".join(f"{name}: {value}".splitlines()),
        _WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join(f"{line}\r\n" for line in lines)


def paragraph(text: str) -> str:
    """Lines of a text, folded at spaces; those after the first are indented by four."""
    lines = textwrap.wrap(text, _WIDTH - 6, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "".join(f"{line}\r\n" for line in lines)
