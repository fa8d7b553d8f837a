"""The syntax of annotations (RFC 5464 5): requests of GETMETADATA and LIST, and the METADATA response.

Entry names are compared in lower case. A response has the spelling of the request; entries that DEPTH adds have that of the store.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from mailserver.errors import BadSyntax, LimitReached
from mailserver.imap.wire import writer
from mailserver.imap.wire.reader import Reader
from mailserver.store.annotations import Annotations

MOST_ENTRIES: Final = 256
"""Entries of one request."""
LONGEST_ENTRY: Final = 255
"""Octets of an entry's name."""

_ENTRY: Final = re.compile(r"/(?:private|shared)(?:/[^/*%\x00-\x19\x7f-\xff]+)*", re.IGNORECASE)
_VENDOR: Final = re.compile(r"/(?:private|shared)/vendor(?:/[^/]+)?", re.IGNORECASE)
_DEPTHS: Final[Mapping[str, float]] = {"0": 0, "1": 1, "INFINITY": math.inf}


@frozen(cache_hash=True)
class MetadataRequest:
    """The entries that a command asks for. It can be a key: it depends on the command's text alone."""

    entries: tuple[str, ...]
    """As written, each once."""
    depth: float = 0
    max_size: int | None = None
    """Octets of the largest value that is returned; None: any."""

    def select(self, known: Annotations) -> tuple[Sequence[tuple[str, bytes | None]], int]:
        """Return the entries to be sent, and the size of the largest one that is too large, 0 if there is none.

        A named entry without a value is NIL, unless DEPTH looks below it.
        """
        found: dict[str, tuple[str, bytes | None]] = {}
        for name in self.entries:
            key = name.lower()
            if key in known or not self.depth:
                found[key] = name, known.get(key)
        if self.depth:
            wanted = {name.lower() for name in self.entries}
            for key in sorted(known):
                if key not in found and self._is_below(key, wanted):
                    found[key] = key, known[key]
        limit = math.inf if self.max_size is None else self.max_size
        sent = [(name, value) for name, value in found.values() if value is None or len(value) <= limit]
        return sent, max(
            (len(value) for _name, value in found.values() if value is not None and len(value) > limit), default=0
        )

    def _is_below(self, key: str, wanted: set[str]) -> bool:
        levels, at = 0, key.rfind("/")
        while at > 0 and levels < self.depth:
            if key[:at] in wanted:
                return True
            levels += 1
            at = key.rfind("/", 0, at)
        return False


def read_entry(reader: Reader) -> str:
    """`entry`, as written. Raises: BadSyntax."""
    name = reader.read_astring().decode("latin-1")
    if len(name) > LONGEST_ENTRY or not _ENTRY.fullmatch(name):
        raise BadSyntax(
            "an entry name begins with /private or /shared, and has no empty level, *, % or control character"
        )
    return name


def read_changed_entry(reader: Reader) -> str:
    """The name of an entry that may have a value, in lower case. Raises: BadSyntax."""
    name = read_entry(reader).lower()
    if name.count("/") < 2 or _VENDOR.fullmatch(name):
        raise BadSyntax("an entry name has at least two levels, below /vendor at least four")  # RFC 5464 3.2
    return name


def read_request(reader: Reader) -> MetadataRequest:
    """`[getmetadata-options SP] entries`. Raises: BadSyntax, LimitReached."""
    options: dict[str, float] = {}
    if _begins_options(reader):
        options = read_options(reader)
        reader.read_sp()
    return MetadataRequest(read_entries(reader), options.get("DEPTH", 0), _max_size(options))


def read_getmetadata(reader: Reader) -> tuple[str, MetadataRequest]:
    """What follows GETMETADATA, to its end: the mailbox, "" for the server, and the request.

    The options stand before the mailbox (5), or behind it, as in the examples of 4.2. There, entries may also stand without
    parentheses (4.4.1). Raises: BadSyntax, BadMailboxName, LimitReached.
    """
    reader.read_sp()
    options: dict[str, float] = {}
    if reader.peek(b"("):
        options = read_options(reader)
        reader.read_sp()
    mailbox = reader.read_mailbox()
    reader.read_sp()
    if not options and _begins_options(reader):
        options = read_options(reader)
        reader.read_sp()
    entries = list(read_entries(reader))
    while reader.skip(b" "):
        _add(entries, read_entry(reader))
    reader.read_end()
    return mailbox, MetadataRequest(tuple(dict.fromkeys(entries)), options.get("DEPTH", 0), _max_size(options))


def read_entries(reader: Reader) -> tuple[str, ...]:
    """`entries`, each once. Raises: BadSyntax, LimitReached."""
    if not reader.skip(b"("):
        return (read_entry(reader),)
    entries = [read_entry(reader)]
    while not reader.skip(b")"):
        reader.read_sp()
        _add(entries, read_entry(reader))
    return tuple(dict.fromkeys(entries))


def read_options(reader: Reader) -> dict[str, float]:
    """`getmetadata-options`: MAXSIZE and DEPTH, each once at most. Raises: BadSyntax."""
    reader.take(b"(")
    options: dict[str, float] = {}
    while True:
        name = reader.read_word()
        if name in options:
            raise BadSyntax(f"{name} is given twice")
        reader.read_sp()
        if name == "MAXSIZE":
            options[name] = reader.read_number()
        elif name == "DEPTH":
            depth = reader.read_word()
            if depth not in _DEPTHS:
                raise BadSyntax("DEPTH is 0, 1 or infinity")
            options[name] = _DEPTHS[depth]
        else:
            raise BadSyntax("unknown GETMETADATA option; known are MAXSIZE DEPTH")
        if reader.skip(b")"):
            return options
        reader.read_sp()


def read_changes(reader: Reader) -> dict[str, bytes | None]:
    """`entry-values`; of an entry that comes twice the last value counts. Raises: BadSyntax, LimitReached."""
    reader.take(b"(")
    changes: dict[str, bytes | None] = {}
    while True:
        name = read_changed_entry(reader)
        reader.read_sp()
        changes[name] = reader.read_value()
        if len(changes) > MOST_ENTRIES:
            raise LimitReached("too many entries in one command")
        if reader.skip(b")"):
            return changes
        reader.read_sp()


def response(mailbox: bytes, values: Iterable[tuple[str, bytes | None]]) -> bytes:
    """The METADATA response with values (4.4.1); empty without any. `mailbox`: its name as written to the client."""
    pairs = b" ".join([b"%b %b" % (_entry_octets(name), writer.value(octets)) for name, octets in values])
    return b"* METADATA %b (%b)\r\n" % (mailbox, pairs) if pairs else b""


def changed_response(mailbox: bytes, entries: Iterable[str]) -> bytes:
    """The METADATA response without values, of entries that have changed (4.4.2)."""
    return b"* METADATA %b %b\r\n" % (mailbox, b" ".join(map(_entry_octets, entries)))


def _entry_octets(name: str) -> bytes:
    return name.encode("ascii") if _IS_ATOM.fullmatch(name) else writer.quoted(name.encode("ascii"))


_IS_ATOM: Final = re.compile(r"[A-Za-z0-9/_.:;$&'+,=@#!?^|~<>`\[\]-]+")


def _begins_options(reader: Reader) -> bool:
    """An entry begins with a slash, a quote or a literal."""
    return reader.peek(b"(M") or reader.peek(b"(m") or reader.peek(b"(D") or reader.peek(b"(d")


def _max_size(options: Mapping[str, float]) -> int | None:
    return int(options["MAXSIZE"]) if "MAXSIZE" in options else None


def _add(entries: list[str], name: str) -> None:
    if len(entries) >= MOST_ENTRIES:
        raise LimitReached("too many entries in one command")
    entries.append(name)
