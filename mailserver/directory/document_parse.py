"""The text of a document, read with all its faults (no I/O)."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from mailserver.directory.document import AppPassword, Delegate, Document, User
from mailserver.directory.document_tables import (
    ADDRESSES,
    KEYS,
    LONGEST_KEY,
    Checks,
    Fault,
    TableParser,
    app_password_key,
    delegate_key,
    shortened,
)
from mailserver.directory.model import AddressKind, StoredAddress, StoredDomain

_HEADER: Final = re.compile(r"^[ \t]*\[\[[ \t]*([a-z_]+)[ \t]*\]\][ \t]*(?:#.*)?$", re.MULTILINE)
_LONG_NUMBER: Final = re.compile(r"[0-9a-fA-F_]{1000}")
_DEEP: Final = re.compile(r"(?:[\[{][\s\w.\"'=-]{0,100}){50}")
_MANY_PARTS: Final = re.compile(r"(?:^|[{,\[])[ \t]*(?:[\w\"'-]{1,100}[ \t]*\.[ \t]*){20}", re.MULTILINE)
"""A key of more parts than any here: reading it takes time that grows with their square."""


@frozen
class Parsed:
    """A document that was read."""

    document: Document
    """All its targets are marked as accounts; `plan` corrects that."""
    faults: tuple[Fault, ...]
    lines: Mapping[str, int]
    """The lines of accounts and addresses by name, and of domains by `domain_key`; 0: unknown."""


def parse(text: str, checks: Checks) -> Parsed:
    """Read a document. If it has faults, what is right is in it all the same."""
    if found := _MANY_PARTS.search(text):
        return _unreadable("a key has too many parts", _line(text, found.start()))
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return _unreadable(shortened(str(error)))
    except RecursionError:
        return _unreadable("its lists or tables are in each other too deeply", _line_of(_DEEP, text))
    except ValueError as error:
        # Of a number with more digits than Python reads.
        return _unreadable(shortened(str(error).partition(";")[0]), _line_of(_LONG_NUMBER, text))
    parser = TableParser(checks)
    for key in data:
        if key in KEYS or key == "directory":
            continue
        near = difflib.get_close_matches(key, KEYS, 1) if len(key) <= LONGEST_KEY else []
        parser.fault(f"there is no [[{key[:LONGEST_KEY]}]]" + (f"; did you mean [[{near[0]}]]?" if near else ""))
    lines: dict[str, list[int]] = {kind: [] for kind in KEYS}
    number, place = 1, 0
    for head in _HEADER.finditer(text):
        number, place = number + text.count("\n", place, head.start()), head.start()
        lines.get(head[1], []).append(number)
    document = _document(parser, data, lines)
    faults = sorted(parser.faults, key=lambda fault: fault.line or 0)
    if parser.found > len(faults):
        faults.insert(0, Fault(f"it has {parser.found} faults, of which the first {len(faults)} are kept"))
    return Parsed(document, tuple(faults), parser.lines)


def _unreadable(reason: str, line: int | None = None) -> Parsed:
    return Parsed(Document(), (Fault(f"this is no TOML: {reason}", line),), {})


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _line_of(pattern: re.Pattern[str], text: str) -> int | None:
    """The line of the first match."""
    found = pattern.search(text)
    return None if found is None else _line(text, found.start())


def _document(parser: TableParser, data: Mapping[str, Any], lines: Mapping[str, list[int]]) -> Document:
    domains: dict[str, StoredDomain] = {}
    users: dict[str, User] = {}
    addresses: dict[str, StoredAddress] = {}
    delegates: dict[tuple[str, str], Delegate] = {}
    for table in parser.tables(data, "domain", lines["domain"]):
        domain = parser.domain(table)
        if domain is not None and parser.add(domain.name, "domain"):
            domains[domain.name] = domain
    for table in parser.tables(data, "user", lines["user"]):
        user = parser.user(table)
        if user is not None and parser.add(user.name, "user"):
            users[user.name] = user
    app_passwords: dict[tuple[str, str], AppPassword] = {}
    for table in parser.tables(data, "app_password", lines["app_password"]):
        app = parser.app_password(table)
        if app is not None and parser.add(app_password_key(app.user, app.label), "app_password"):
            app_passwords[app.user, app.label] = app
    for kind in ADDRESSES:
        for table in parser.tables(data, kind, lines[kind]):
            address = parser.address(AddressKind(kind), table)
            if address is not None and parser.add(address.name, kind):
                addresses[address.name] = address
    for table in parser.tables(data, "delegate", lines["delegate"]):
        delegate = parser.delegate(table)
        if delegate is not None and parser.add(delegate_key(delegate.account, delegate.over), "delegate"):
            delegates[delegate.account, delegate.over] = delegate
    head = data.get("directory", {})
    identifier, serial = (head.get("id", ""), head.get("serial")) if isinstance(head, dict) else (None, None)
    if not isinstance(identifier, str) or not (serial is None or type(serial) is int):
        parser.fault("[directory] has id, a text, and serial, a whole number")
        identifier, serial = "", None
    return Document(domains, users, addresses, delegates, app_passwords, identifier, serial)
