"""FETCH modifiers (RFC 4466 2.4): CHANGEDSINCE, VANISHED (RFC 7162 3.1.4.1, 3.2.6), PARTIAL (RFC 9394 3.3).

A new one is a row of MODIFIERS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mailserver.errors import BadSyntax
from mailserver.imap import condstore
from mailserver.imap.partial import read_partial
from mailserver.imap.wire.reader import Reader


def _changed_since(reader: Reader) -> int:
    reader.read_sp()
    return condstore.read_modseq(reader)


MODIFIERS: Final[Mapping[str, Callable[[Reader], Any]]] = {
    "CHANGEDSINCE": _changed_since,
    "VANISHED": lambda _reader: True,
    "PARTIAL": read_partial,
}
"""By name: reads SP and the value, if there is one."""


def read_modifiers(reader: Reader) -> tuple[tuple[str, Any], ...]:
    """SP and the modifiers in parentheses, each once. Raises: BadSyntax."""
    reader.read_sp()
    reader.take(b"(")
    found: dict[str, Any] = {}
    while True:
        name = reader.read_word()
        if name in found or name not in MODIFIERS:
            raise BadSyntax("unknown FETCH modifier, or one given twice")
        found[name] = MODIFIERS[name](reader)
        if not reader.skip(b" "):
            break
    reader.take(b")")
    if "VANISHED" in found and "CHANGEDSINCE" not in found:
        raise BadSyntax("VANISHED needs CHANGEDSINCE")
    return tuple(found.items())
