"""The text of a document, read with all its faults (no I/O)."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import define, field, frozen

from mailserver.directory.document import Delegate, Document, User, may_have_senders, scram_key
from mailserver.directory.model import (
    NO_LIMITS,
    SCRAM_HASHES,
    AccountLimits,
    AddressKind,
    Password,
    State,
    StoredAddress,
    StoredDomain,
    StoredKeys,
    Target,
)

_ADDRESSES: Final = ("alias", "group", "forward")
_HEADER: Final = re.compile(r"^[ \t]*\[\[[ \t]*([a-z]+)[ \t]*\]\][ \t]*(?:#.*)?$", re.MULTILINE)
_KEYS: Final[Mapping[str, Mapping[str, type]]] = {
    "domain": {"name": str, "alias_of": str, "detail": str, "limits": dict, "enabled": bool},
    "user": {
        "name": str,
        "password": str,
        **{scram_key(name): str for name in SCRAM_HASHES},
        "password_protocols": list,
        "home": str,
        "full_name": str,
        "limits": dict,
        "enabled": bool,
    },
    **{kind: {"address": str, "targets": list, "no_send": list, "note": str, "enabled": bool} for kind in _ADDRESSES},
    "delegate": {"user": str, "over": str, "expires": int, "why": str},
}
"""The tables, and the types of their keys. The first key is required."""
_WORDS: Final = {str: "a text", bool: "true or false", int: "a whole number", list: "a list of texts", dict: "a table"}
_DETAILS: Final = "+-=_#!$%&*~|^"
"""Separators that a domain may have."""


@frozen
class Checks:
    """Functions of the caller, each of which raises ValueError for a text that cannot be used."""

    name: Callable[[str], str]
    """Normalises the name of an account or address."""
    domain: Callable[[str], str]
    """Normalises the name of a domain."""
    secret: Callable[[str], object]
    """Checks a password's "{SCHEME}hash"."""
    scram: Callable[[str, str], object]
    """Checks SCRAM keys; the second argument is the name of the hash."""
    network: Callable[[str], object]
    """Checks a network to log in from."""
    protocol: Callable[[str], object]
    """Checks the name of a protocol to log in by."""


@frozen
class Fault:
    """A fault of a document."""

    text: str
    line: int | None = None
    """Of the table's head, counted from 1; None: unknown."""

    def __str__(self) -> str:
        return self.text if self.line is None else f"line {self.line}: {self.text}"


@define
class _Parser:
    checks: Checks
    faults: list[Fault] = field(factory=list)
    lines: dict[str, int] = field(factory=dict)
    """Lines of accounts and addresses by name, and of domains by `domain_key`."""

    def tables(
        self, data: Mapping[str, Any], kind: str, lines: list[int]
    ) -> Iterator[tuple[Mapping[str, Any], int | None]]:
        """The tables of a kind that have the right keys, and their lines."""
        found = data.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self.faults.append(Fault(f"{kind} must be written as [[{kind}]] tables"))
            return
        # A head within a text of several lines would count as one: then no line is better than a wrong one.
        known = len(lines) == len(found)
        for number, table in enumerate(found):
            line = lines[number] if known else None
            if self.has_right_keys(kind, table, line):
                yield table, line

    def has_right_keys(self, kind: str, table: Mapping[str, Any], line: int | None) -> bool:
        before, keys = len(self.faults), _KEYS[kind]
        for key, value in table.items():
            expected = keys.get(key)
            if expected is None:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(keys)}"
                self.faults.append(Fault(f"[[{kind}]] has no key {key!r}{hint}", line))
            elif not _is_of(value, expected):
                self.faults.append(Fault(f"{key} must be {_WORDS[expected]}", line))
        first = next(iter(keys))
        if first not in table:
            self.faults.append(Fault(f"[[{kind}]] needs {first}", line))
        return len(self.faults) == before

    def add(self, name: str, line: int | None, kind: str) -> bool:
        """Note the line of a name. One that is there twice is a fault."""
        key = domain_key(name) if kind == "domain" else name
        if key in self.lines:
            first = f"line {self.lines[key]}" if self.lines[key] else "another table"
            self.faults.append(Fault(f"the {kind} {name} has a name that {first} has already", line))
            return False
        self.lines[key] = line or 0
        return True

    def limits(self, table: Mapping[str, Any], what: str, line: int | None) -> AccountLimits:
        given = table.get("limits", {})
        try:
            limits = AccountLimits.parse(json.dumps(given, default=str))
            for key in given.keys() - json.loads(limits.text()).keys():
                self.faults.append(Fault(f"{what}: there is no limit {key!r}", line))
            for each in limits.networks or ():
                self.checks.network(each)
            for each in limits.protocols or ():
                self.checks.protocol(each)
        except ValueError as error:
            self.faults.append(Fault(f"{what}: {error}", line))
            return NO_LIMITS
        return limits

    def password(self, table: Mapping[str, Any], name: str, line: int | None) -> Password | None:
        if "password" not in table:
            if any(scram_key(each) in table for each in SCRAM_HASHES):
                self.faults.append(Fault(f"{name}: SCRAM keys without the password that they belong to", line))
            return None
        scram = {}
        try:
            if table["password"]:
                self.checks.secret(table["password"])
            for hash_name in SCRAM_HASHES:
                if text := table.get(scram_key(hash_name)):
                    self.checks.scram(text, hash_name)
                    scram[hash_name] = StoredKeys.parse(text)
        except ValueError as error:
            self.faults.append(Fault(f"{name}: {error}", line))
        return Password(table["password"], scram)

    def protocols(self, table: Mapping[str, Any], name: str, line: int | None) -> frozenset[str] | None:
        if "password_protocols" not in table:
            return None
        try:
            for each in table["password_protocols"]:
                self.checks.protocol(each)
        except ValueError as error:
            self.faults.append(Fault(f"{name}: password_protocols: {error}", line))
        return frozenset(table["password_protocols"])

    def name(self, written: str, line: int | None) -> str | None:
        """Normalise the name of an account or address; "@domain" is a catch-all."""
        try:
            return f"@{self.checks.domain(written[1:])}" if written.startswith("@") else self.checks.name(written)
        except ValueError as error:
            self.faults.append(Fault(f"{written!r}: {error}", line))
            return None

    def domain(self, table: Mapping[str, Any], line: int | None) -> StoredDomain | None:
        names = {}
        for key in ("name", "alias_of"):
            if key in table:
                try:
                    names[key] = self.checks.domain(table[key])
                except ValueError as error:
                    self.faults.append(Fault(f"{table[key]!r}: {error}", line))
                    return None
        detail = table.get("detail", "+")
        if len(detail) > 1 or detail not in _DETAILS:
            self.faults.append(Fault(f"{names['name']}: detail must be empty or one of {' '.join(_DETAILS)}", line))
        limits = self.limits(table, names["name"], line)
        return StoredDomain(names["name"], names.get("alias_of"), detail, limits.text(), table.get("enabled", True))

    def user(self, table: Mapping[str, Any], line: int | None) -> User | None:
        name = self.name(table["name"], line)
        if name is None or name.startswith("@"):
            if name is not None:
                self.faults.append(Fault(f"{name} is the name of a catch-all, and no user's", line))
            return None
        for key in ("home", "full_name"):
            if not str(table.get(key, "")).isprintable():
                self.faults.append(Fault(f"{name}: {key} has control characters", line))
        return User(
            name,
            self.password(table, name, line),
            self.protocols(table, name, line),
            table.get("home", ""),
            table.get("full_name", ""),
            State.ACTIVE if table.get("enabled", True) else State.DISABLED,
            self.limits(table, name, line),
        )

    def address(self, kind: AddressKind, table: Mapping[str, Any], line: int | None) -> StoredAddress | None:
        name = self.name(table["address"], line)
        targets = [self.name(each, line) for each in table.get("targets", [])]
        silent = {self.name(each, line) for each in table.get("no_send", [])}
        if name is None:
            return None
        if extra := {each for each in silent if each is not None} - set(targets):
            self.faults.append(Fault(f"{name}: {', '.join(sorted(extra))} of no_send is no target", line))
        sends = may_have_senders(kind, name)
        found = dict.fromkeys(each for each in targets if each is not None)
        return StoredAddress(
            name,
            kind,
            tuple(Target(each, may_send=sends and each not in silent) for each in found),
            table.get("enabled", True),
            table.get("note", ""),
        )


def _is_of(value: Any, expected: type) -> bool:
    """Is it of the type, which for lists is that of texts?"""
    if isinstance(value, list):
        return expected is list and all(isinstance(each, str) for each in value)
    # True is a number, too.
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


@frozen
class Parsed:
    """A document that was read."""

    document: Document
    """All its targets are marked as accounts; `plan` corrects that."""
    faults: tuple[Fault, ...]
    lines: Mapping[str, int]
    """The lines of accounts and addresses by name, and of domains by `domain_key`; 0: unknown."""


def domain_key(name: str) -> str:
    """The key of a domain in `lines`: an account may have the same name."""
    return f"[{name}]"


def parse(text: str, checks: Checks) -> Parsed:
    """Read a document. If it has faults, what is right is in it all the same."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Parsed(Document(), (Fault(f"this is no TOML: {error}"),), {})
    parser = _Parser(checks)
    for key in data.keys() - _KEYS.keys() - {"directory"}:
        near = difflib.get_close_matches(key, _KEYS, 1)
        parser.faults.append(Fault(f"there is no [[{key}]]" + (f"; did you mean [[{near[0]}]]?" if near else "")))
    lines: dict[str, list[int]] = {kind: [] for kind in _KEYS}
    number, place = 1, 0
    for head in _HEADER.finditer(text):
        number, place = number + text.count("\n", place, head.start()), head.start()
        lines.get(head[1], []).append(number)
    document = _document(parser, data, lines)
    faults = sorted(parser.faults, key=lambda fault: fault.line or 0)
    return Parsed(document, tuple(faults), parser.lines)


def _document(parser: _Parser, data: Mapping[str, Any], lines: Mapping[str, list[int]]) -> Document:
    domains: dict[str, StoredDomain] = {}
    users: dict[str, User] = {}
    addresses: dict[str, StoredAddress] = {}
    delegates: dict[tuple[str, str], Delegate] = {}
    for table, line in parser.tables(data, "domain", lines["domain"]):
        domain = parser.domain(table, line)
        if domain is not None and parser.add(domain.name, line, "domain"):
            domains[domain.name] = domain
    for table, line in parser.tables(data, "user", lines["user"]):
        user = parser.user(table, line)
        if user is not None and parser.add(user.name, line, "user"):
            users[user.name] = user
    for kind in _ADDRESSES:
        for table, line in parser.tables(data, kind, lines[kind]):
            address = parser.address(AddressKind(kind), table, line)
            if address is not None and parser.add(address.name, line, kind):
                addresses[address.name] = address
    for table, line in parser.tables(data, "delegate", lines["delegate"]):
        account, over = parser.name(table["user"], line), parser.name(table.get("over", ""), line)
        if account is not None and over is not None:
            delegates[account, over] = Delegate(account, over, table.get("expires"), table.get("why", ""))
    head = data.get("directory", {})
    identifier, serial = (head.get("id", ""), head.get("serial")) if isinstance(head, dict) else (None, None)
    if not isinstance(identifier, str) or not (serial is None or type(serial) is int):
        parser.faults.append(Fault("[directory] has id, a text, and serial, a whole number"))
        identifier, serial = "", None
    return Document(domains, users, addresses, delegates, identifier, serial)
