"""The tables of a document, read one by one with their faults and places (no I/O)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, TypeVar

from attrs import define, field, frozen

from mailserver.directory import field_rules
from mailserver.directory.document import AppPassword, Delegate, User, may_have_senders, scram_key
from mailserver.directory.model import (
    LIMITS,
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

T = TypeVar("T")

ADDRESSES: Final = ("alias", "group", "forward")
KEYS: Final[Mapping[str, Mapping[str, type]]] = {
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
    "app_password": {
        "user": str,
        "label": str,
        "digest": str,
        **{scram_key(name): str for name in SCRAM_HASHES},
        "protocols": list,
        "expires": int,
        "created": int,
        "made_by": str,
    },
    **{kind: {"address": str, "targets": list, "no_send": list, "note": str, "enabled": bool} for kind in ADDRESSES},
    "delegate": {"user": str, "over": str, "expires": int, "why": str},
}
"""The tables, and the types of their keys. The first key is required."""
_WORDS: Final = {
    str: "a text",
    bool: "true or false",
    int: "a whole number, of seconds since 1970",
    list: "a list of texts",
    dict: "a table",
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "delegate": ("user", "over", "why"),
    "app_password": ("user", "label"),
}
"""The keys that must be there; of others, the first one."""
MOST_FAULTS: Final = 1000
"""Faults that are kept."""
_SHOWN: Final = 60
_MOST_SHOWN: Final = 300
"""Characters of the document in a sentence."""
LONGEST_KEY: Final = 40
"""Characters of a key that may be a mistyped one."""


@frozen
class Checks:
    """Functions of the caller, each of which raises ValueError for a text that cannot be used."""

    name: Callable[[str], str]
    """Normalises the name of an account."""
    address: Callable[[str], str]
    """Normalises an address."""
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
class TableParser:
    """Reads tables, and keeps their faults."""

    checks: Checks
    faults: list[Fault] = field(factory=list)
    lines: dict[str, int] = field(factory=dict)
    """Lines of accounts and addresses by name, and of domains by `domain_key`."""
    found: int = 0
    """All faults, also those that are left out."""
    line: int | None = None
    """Of the present table; None: unknown."""
    place: str = ""
    """Names the present table where its line is unknown."""

    def fault(self, text: str) -> None:
        """Note a fault of the present table."""
        self.found += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(text if self.line is not None else self.place + text, self.line))

    def check(self, rule: Callable[[T], T], value: T, before: str) -> T:
        """The value as a rule returns it; the value itself if it is a fault. `before`: begins the sentence."""
        try:
            return rule(value)
        except ValueError as error:
            self.fault(f"{before}: {shortened(str(error))}")
            return value

    def tables(self, data: Mapping[str, Any], kind: str, lines: list[int]) -> Iterator[Mapping[str, Any]]:
        """The tables of a kind that have the right keys; each is the present one while it is looked at."""
        found = data.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self.line, self.place = None, ""
            self.fault(f"{kind} must be written as [[{kind}]] tables")
            return
        # A head within a text of several lines would count as one: then no line is better than a wrong one.
        known = len(lines) == len(found)
        for number, table in enumerate(found):
            self.line = lines[number] if known else None
            self.place = f"[[{kind}]] number {number + 1}: "
            if self.has_right_keys(kind, table):
                yield table
        self.line, self.place = None, ""

    def has_right_keys(self, kind: str, table: Mapping[str, Any]) -> bool:
        """Note the keys that a table may not have or lacks, and values of other types."""
        before, keys = self.found, KEYS[kind]
        for key, value in table.items():
            expected = keys.get(key)
            if expected is None:
                near = difflib.get_close_matches(key, keys, 1) if len(key) <= LONGEST_KEY else []
                hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(keys)}"
                self.fault(f"[[{kind}]] has no key {shortened(repr(key[:_SHOWN]))}{hint}")
            elif not _is_of(value, expected):
                self.fault(f"{key} must be {_WORDS[expected]}")
        for first in _REQUIRED.get(kind, tuple(keys)[:1]):
            if first not in table:
                self.fault(f"[[{kind}]] needs {first}")
        return self.found == before

    def add(self, name: str, kind: str) -> bool:
        """Note the line of a name. One that is there twice is a fault."""
        key = domain_key(name) if kind == "domain" else name
        if key in self.lines:
            first = f"line {self.lines[key]}" if self.lines[key] else "another table"
            self.fault(f"the {kind.replace('_', ' ')} {name} has a name that {first} has already")
            return False
        self.lines[key] = self.line or 0
        return True

    def limits(self, table: Mapping[str, Any], what: str, known: Collection[str]) -> AccountLimits:
        """The limits of an account or domain, of which `known` are the names."""
        given = table.get("limits", {})
        for key in given:
            if key not in known:
                self.fault(f"{what}: there is no limit {shortened(repr(key[:_SHOWN]))}")
        try:
            # Texts and numbers alone: what else TOML has is of no limit.
            limits = AccountLimits.parse(json.dumps({key: _plain(given[key]) for key in known if key in given}))
            for each in limits.networks or ():
                self.checks.network(each)
            for each in limits.protocols or ():
                self.checks.protocol(each)
        except ValueError as error:
            self.fault(f"{what}: {shortened(str(error))}")
            return NO_LIMITS
        return limits

    def password(self, table: Mapping[str, Any], name: str) -> Password | None:
        """The main password of a user; None: the document says nothing."""
        if "password" not in table:
            if any(scram_key(each) in table for each in SCRAM_HASHES):
                self.fault(f"{name}: SCRAM keys without the password that they belong to")
            return None
        try:
            if table["password"]:
                self.checks.secret(field_rules.secret(table["password"]))
        except ValueError as error:
            self.fault(f"{name}: {shortened(str(error))}")
        return Password(table["password"], self.scram(table, name))

    def scram(self, table: Mapping[str, Any], name: str) -> dict[str, StoredKeys]:
        """The SCRAM keys of a table, by hash."""
        found = {}
        for hash_name in SCRAM_HASHES:
            text = table.get(scram_key(hash_name))
            if not text:
                continue
            try:
                self.checks.scram(field_rules.secret(text), hash_name)
                found[hash_name] = StoredKeys.parse(text)
            except ValueError as error:
                self.fault(f"{name}: {shortened(str(error))}")
        return found

    def protocols(self, table: Mapping[str, Any], key: str, name: str) -> frozenset[str] | None:
        """The protocols of that key; None: all."""
        if key not in table:
            return None
        try:
            for each in table[key]:
                self.checks.protocol(each)
        except ValueError as error:
            self.fault(f"{name}: {key}: {shortened(str(error))}")
        return frozenset(table[key])

    def name(self, written: str, rule: Callable[[str], str] | None = None) -> str | None:
        """Normalise an address, or as the rule does; "@domain" is a catch-all."""
        rest = rule or self.checks.address
        return self.normal(
            written, lambda text: f"@{self.checks.domain(text[1:])}" if text.startswith("@") else rest(text)
        )

    def normal(self, written: str, rule: Callable[[str], str]) -> str | None:
        """A name as the rule normalises it; None for a faulty one."""
        try:
            return rule(field_rules.name(written))
        except ValueError as error:
            self.fault(f"{shortened(repr(written[:_SHOWN]))}: {shortened(str(error))}")
            return None

    def user_name(self, written: str) -> str | None:
        """Normalise the name of a user."""
        name = self.name(written, self.checks.name)
        if name is not None and name.startswith("@"):
            self.fault(f"{name} is the name of a catch-all, and no user's")
            return None
        return name

    def domain(self, table: Mapping[str, Any]) -> StoredDomain | None:
        """The domain of a table; None for one without a usable name."""
        name = self.normal(table["name"], self.checks.domain)
        alias_of = self.normal(table["alias_of"], self.checks.domain) if "alias_of" in table else None
        if name is None or (alias_of is None and "alias_of" in table):
            return None
        detail = self.check(field_rules.detail, table.get("detail", "+"), name)
        limits = self.limits(table, name, ("networks", "protocols"))
        return StoredDomain(name, alias_of, detail, limits.text(), table.get("enabled", True))

    def user(self, table: Mapping[str, Any]) -> User | None:
        """The user of a table; None for one without a usable name."""
        name = self.user_name(table["name"])
        if name is None:
            return None
        return User(
            name,
            self.password(table, name),
            self.protocols(table, "password_protocols", name),
            self.check(field_rules.home, table.get("home", ""), name),
            self.check(field_rules.full_name, table.get("full_name", ""), name),
            State.ACTIVE if table.get("enabled", True) else State.DISABLED,
            self.limits(table, name, LIMITS),
        )

    def address(self, kind: AddressKind, table: Mapping[str, Any]) -> StoredAddress | None:
        """The alias, group or forward of a table; None for one without a usable name."""
        name = self.name(table["address"])
        targets = [self.name(each) for each in table.get("targets", [])]
        silent = {self.name(each) for each in table.get("no_send", [])}
        if name is None:
            return None
        if extra := {each for each in silent if each is not None} - set(targets):
            self.fault(f"{name}: {shortened(', '.join(sorted(extra)))} of no_send is no target")
        sends = may_have_senders(kind, name)
        found = dict.fromkeys(each for each in targets if each is not None)
        return StoredAddress(
            name,
            kind,
            tuple(Target(each, may_send=sends and each not in silent) for each in found),
            table.get("enabled", True),
            self.check(field_rules.note, table.get("note", ""), name),
        )

    def app_password(self, table: Mapping[str, Any]) -> AppPassword | None:
        """The app password of a table; None for one without a usable name."""
        user, label = self.user_name(table["user"]), table["label"]
        if user is None:
            return None
        label = self.check(field_rules.label, label, user)
        what = f"{user}: the app password {shortened(label)}"
        if "digest" not in table and any(scram_key(each) in table for each in SCRAM_HASHES):
            self.fault(f"{what}: SCRAM keys without the digest of the password that they belong to")
        return AppPassword(
            user,
            label,
            self.check(field_rules.digest, table["digest"], what) if "digest" in table else None,
            self.scram(table, what),
            self.protocols(table, "protocols", what),
            self.check(field_rules.time, table["expires"], what) if "expires" in table else None,
            self.check(field_rules.time, table["created"], what) if "created" in table else None,
            self.check(field_rules.made_by, table.get("made_by", ""), what),
        )

    def delegate(self, table: Mapping[str, Any]) -> Delegate | None:
        """The delegate of a table; None for one without usable names."""
        account, over = self.user_name(table["user"]), self.name(table["over"], self.checks.name)
        if account is None or over is None:
            return None
        what = f"{account} over {over}"
        expires = self.check(field_rules.time, table["expires"], what) if "expires" in table else None
        return Delegate(account, over, expires, self.check(field_rules.why, table["why"], what))


def shortened(text: str) -> str:
    """The text as a part of a sentence."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _plain(value: Any) -> Any:
    """A value of limits: a number, or a list of texts; else a text, which is no limit."""
    return value if _is_of(value, int) or _is_of(value, list) else "?"


def _is_of(value: Any, expected: type) -> bool:
    """Is it of the type, which for lists is that of texts?"""
    if isinstance(value, list):
        return expected is list and all(isinstance(each, str) for each in value)
    # True is a number, too.
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def domain_key(name: str) -> str:
    """The key of a domain in `lines`: an account may have the same name."""
    return f"[{name}]"


def delegate_key(account: str, over: str) -> str:
    """The key of a delegate in `lines`."""
    return f"[{account} over {over}]"


def app_password_key(user: str, label: str) -> str:
    """The key of an app password in `lines`."""
    return f"[{label} of {user}]"
