"""The format of unique-ids (RFC 1939 7, UIDL), in the notations of Dovecot's pop3_uidl_format.

Notation of 2.3: `%u` is the UID, `%v` the UIDVALIDITY, `%f` the base of the file's name, `%g` the message's GUID, which is that
base unless dovecot-uidlist has another. Between the percent sign and `u` or `v` may stand a width with a leading 0
(padding with zeros) and an X (hexadecimal, in lower case as Dovecot writes it).

Notation of 2.4: `%{uid}`, `%{uidvalidity}`, `%{filename}`, `%{guid}`, and `%{uid | hex(8)}` for a padded hexadecimal number.

Numbers are never cut to the width: two messages must never get the same unique-id.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from mailserver.config.model import Config, Problem
from mailserver.store.interfaces import Pop3Record

MAX_UIDL = 70
"""Characters of a unique-id (RFC 1939 7). Those of names may be longer, as Dovecot's are."""

_MAX_NUMBER = 2**32 - 1
_OLD = re.compile(r"%(?:%|(?:(0?)(\d{0,3})(X?)([uv]))|[fg])")
_NEW = re.compile(r"%\{\s*(uid|uidvalidity|filename|guid)\s*(?:\|\s*(hex)\s*(?:\(\s*(\d{1,3})\s*\))?\s*)?\}")
_LETTERS: Final = {"uid": "u", "uidvalidity": "v", "filename": "f", "guid": "g"}
_NOTHING = Pop3Record()


@frozen
class UidlFormat:
    """A parsed format."""

    template: str
    needs_names: bool
    """The records of messages must have names and GUIDs."""

    def __call__(self, uid_validity: int, uid: int, record: Pop3Record = _NOTHING) -> str:
        """The unique-id of a message."""
        if not self.needs_names:
            return self.template % {"u": uid, "v": uid_validity}
        # A message whose name is not known, or cannot be written, still has an id of its own.
        name = record.name or f"{uid}.{uid_validity}"
        return self.template % {"u": uid, "v": uid_validity, "f": name, "g": record.guid or name}


def parse_uidl_format(text: str) -> UidlFormat:
    """Parse a format. Raises: ValueError, with a sentence for the administrator."""
    pieces: list[str] = []
    letters: set[str] = set()
    at = 0
    notation = _NEW if "%{" in text else _OLD
    for item in notation.finditer(text):
        pieces.append(_literal(text[at : item.start()]))
        at = item.end()
        letter, piece = _item_of_24(item) if notation is _NEW else _item_of_23(item)
        letters.add(letter)
        pieces.append(piece)
    pieces.append(_literal(text[at:]))
    if not letters & {"u", "f", "g"}:
        raise ValueError("must contain %u, %f or %g: messages would share one UIDL")
    template = "".join(pieces)
    numbers = {"u": _MAX_NUMBER, "v": _MAX_NUMBER, "f": "", "g": ""}
    if len(template % numbers) > MAX_UIDL:
        raise ValueError(f"must give at most {MAX_UIDL} visible ASCII characters (RFC 1939 7)")
    return UidlFormat(template, bool(letters & {"f", "g"}))


def _item_of_23(item: re.Match[str]) -> tuple[str, str]:
    zero, width, hexadecimal, letter = item.groups()
    if letter is None:
        words = item[0][1:]
        return words, "%%" if words == "%" else f"%({words})s"
    pad = f"0{int(width)}" if zero and width else ""
    return letter, f"%({letter}){pad}{'x' if hexadecimal else 'd'}"


def _item_of_24(item: re.Match[str]) -> tuple[str, str]:
    name, hexadecimal, width = item.groups()
    letter = _LETTERS[name]
    if letter in "fg":
        if hexadecimal:
            raise ValueError(f"{name} is not a number: hex cannot follow it")
        return letter, f"%({letter})s"
    pad = f"0{int(width)}" if width and int(width) else ""
    return letter, f"%({letter}){pad}{'x' if hexadecimal else 'd'}"


def check(config: Config) -> list[Problem]:
    """Find the problems of the configured format."""
    words = config.pop3.uidl_format
    try:
        parse_uidl_format(words)
    except ValueError as error:
        return [config.problem("[pop3] uidl_format", f'"{words}"', str(error))]
    return []


def _literal(text: str) -> str:
    if "%" in text:
        raise ValueError(
            f"has an unknown field {text[text.index('%') :]!r}; the fields are %u and %v (with width and X), %f, %g and %%, or "
            "%{uid}, %{uidvalidity}, %{filename} and %{guid}, with | hex(8) for numbers"
        )
    if not all("!" <= character <= "~" for character in text):
        raise ValueError(f"must give at most {MAX_UIDL} visible ASCII characters (RFC 1939 7)")
    return text
