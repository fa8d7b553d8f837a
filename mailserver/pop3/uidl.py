"""The format of unique-ids (RFC 1939 7, UIDL), in the notation of Dovecot's pop3_uidl_format.

`%u` is the UID, `%v` the UIDVALIDITY; between the percent sign and the letter may stand a width with a leading 0
(padding with zeros) and an X (hexadecimal, in lower case as Dovecot writes it). Numbers are never cut to the width:
two messages must never get the same unique-id.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mailserver.config.model import Config, Problem

MAX_UIDL = 70
"""Characters of a unique-id (RFC 1939 7)."""

_MAX_NUMBER = 2**32 - 1
_ITEM = re.compile(r"%(?:%|(?:(0?)(\d{0,3}))(X?)([uv]))")

UidlFormat = Callable[[int, int], str]
"""(UIDVALIDITY, UID) -> unique-id."""


def parse_uidl_format(text: str) -> UidlFormat:
    """The function that makes unique-ids. Raises: ValueError, saying what is wrong with the format."""
    pieces: list[str] = []
    at = 0
    has_uid = False
    for item in _ITEM.finditer(text):
        pieces.append(_literal(text[at : item.start()]))
        at = item.end()
        zero, width, hexadecimal, letter = item.groups()
        if letter is None:
            pieces.append("%%")
            continue
        has_uid |= letter == "u"
        pad = f"0{int(width)}" if zero and width else ""
        pieces.append(f"%({letter}){pad}{'x' if hexadecimal else 'd'}")
    pieces.append(_literal(text[at:]))
    if not has_uid:
        raise ValueError("it must contain %u, the UID: unique-ids would not be unique")
    template = "".join(pieces)
    if len(template % {"u": _MAX_NUMBER, "v": _MAX_NUMBER}) > MAX_UIDL:
        raise ValueError(f"it makes unique-ids of more than {MAX_UIDL} characters (RFC 1939)")
    return lambda uid_validity, uid: template % {"u": uid, "v": uid_validity}


def check(config: Config) -> list[Problem]:
    """What is wrong with the configured format, as the administrator reads it."""
    words = config.pop3.uidl_format
    try:
        parse_uidl_format(words)
    except ValueError as error:
        return [config.problem("[pop3] uidl_format", f'"{words}"', str(error))]
    return []


def _literal(text: str) -> str:
    if "%" in text:
        raise ValueError(f"after % only u, v or % may stand, with a width and X before: {text[text.index('%') :]!r}")
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("unique-ids hold visible ASCII characters only (RFC 1939)")
    return text
