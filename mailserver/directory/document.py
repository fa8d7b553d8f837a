"""A directory as one TOML document (no I/O): its values, and their text.

`document_parse` reads the text, `plan` compares two documents, `applying` loads one from a database and makes one true.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

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
)

_IN_A_LINE: Final = 3
"""Targets in one line; more are written one on each."""


@frozen
class User:
    """An account in a document."""

    name: str
    password: Password | None = field(default=None, repr=False)
    """None: the document says nothing, so an existing account keeps its own. Its `protocols` are those below."""
    password_protocols: frozenset[str] | None = None
    """Where the password may be used; None: everywhere."""
    home: str = ""
    full_name: str = ""
    state: State = State.ACTIVE
    limits: AccountLimits = NO_LIMITS


@frozen
class AppPassword:
    """An app password of a user in a document."""

    user: str
    label: str
    digest: str | None = field(default=None, repr=False)
    """The SHA-256 of the password, in hexadecimal; None: the document says nothing, so an existing one keeps its own."""
    scram: Mapping[str, StoredKeys] = field(factory=dict, repr=False)
    """By hash."""
    protocols: frozenset[str] | None = None
    """Where it may be used; None: everywhere."""
    expires: int | None = None
    """Seconds since 1970; None: never."""
    created: int | None = None
    """Seconds since 1970; None: when the document is applied."""
    made_by: str = ""
    """Empty: who applies the document."""
    id: str = field(default="", eq=False)
    """Of its row in the directory; empty: a new one."""


@frozen
class Delegate:
    """The right of an account to log in to others."""

    account: str
    over: str
    """The name of an account or a domain."""
    expires: int | None = None
    """Seconds since 1970."""
    why: str = ""


@frozen
class Document:
    """All that an administrator can say of a directory, by name."""

    domains: Mapping[str, StoredDomain] = field(factory=dict)
    users: Mapping[str, User] = field(factory=dict)
    addresses: Mapping[str, StoredAddress] = field(factory=dict)
    """Aliases, groups and forwards. The targets that are accounts of the directory are marked as such."""
    delegates: Mapping[tuple[str, str], Delegate] = field(factory=dict)
    """By the account, and what it is over."""
    app_passwords: Mapping[tuple[str, str], AppPassword] = field(factory=dict)
    """By the user, and the label."""
    id: str = ""
    """Identifies the directory that it was exported from; empty: none."""
    serial: int | None = None
    """The number of that directory's last change at that time."""


def write(document: Document, *, secrets: bool = True) -> Iterator[str]:
    """The lines of a document, without their ends. `secrets`: with passwords' hashes and digests, and SCRAM keys."""
    yield "# A directory of mailserver. `mailserver directory plan FILE` prints what `apply FILE` would change."
    if document.serial is not None:
        yield "# After other changes of the same directory, `apply` refuses this file; without these lines it does not."
        yield "[directory]"
        yield f"id = {_text(document.id)}"
        yield f"serial = {document.serial}"
    for domain in document.domains.values():
        yield from _table("domain", _domain(domain))
    for user in document.users.values():
        yield from _table("user", _user(user, secrets=secrets))
    for app_password in document.app_passwords.values():
        yield from _table("app_password", _app_password(app_password, secrets=secrets))
    for address in document.addresses.values():
        yield from _table(address.kind.value, _address(address))
    for delegate in document.delegates.values():
        yield from _table("delegate", _delegate(delegate))


def _domain(domain: StoredDomain) -> Iterator[tuple[str, object]]:
    yield "name", domain.name
    if domain.alias_of is not None:
        yield "alias_of", domain.alias_of
    yield "detail", domain.detail
    if domain.limits != "{}":
        yield "limits", json.loads(domain.limits)
    if not domain.enabled:
        yield "enabled", False


def _user(user: User, *, secrets: bool) -> Iterator[tuple[str, object]]:
    yield "name", user.name
    if secrets and user.password is not None:
        yield "password", user.password.secret
        for hash_name in SCRAM_HASHES:
            if hash_name in user.password.scram:
                yield scram_key(hash_name), user.password.scram[hash_name].text()
    if user.password_protocols is not None:
        yield "password_protocols", sorted(user.password_protocols)
    for key, value in (("home", user.home), ("full_name", user.full_name)):
        if value:
            yield key, value
    if user.limits != NO_LIMITS:
        yield "limits", json.loads(user.limits.text())
    if user.state is State.DISABLED:
        yield "enabled", False


def _app_password(each: AppPassword, *, secrets: bool) -> Iterator[tuple[str, object]]:
    yield "user", each.user
    yield "label", each.label
    if secrets and each.digest is not None:
        yield "digest", each.digest
        for hash_name in SCRAM_HASHES:
            if hash_name in each.scram:
                yield scram_key(hash_name), each.scram[hash_name].text()
    if each.protocols is not None:
        yield "protocols", sorted(each.protocols)
    if each.expires is not None:
        yield "expires", each.expires
    if each.created is not None:
        yield "created", each.created
    if each.made_by:
        yield "made_by", each.made_by


def _address(address: StoredAddress) -> Iterator[tuple[str, object]]:
    yield "address", address.name
    yield "targets", [target.name for target in address.targets]
    silent = [target.name for target in address.targets if target.is_account and not target.may_send]
    if silent and may_have_senders(address.kind, address.name):
        yield "no_send", silent
    if address.note:
        yield "note", address.note
    if not address.enabled:
        yield "enabled", False


def _delegate(delegate: Delegate) -> Iterator[tuple[str, object]]:
    yield "user", delegate.account
    yield "over", delegate.over
    if delegate.expires is not None:
        yield "expires", delegate.expires
    if delegate.why:
        yield "why", delegate.why


def scram_key(hash_name: str) -> str:
    """The key of SCRAM keys in a document."""
    return f"scram_{hash_name.lower().replace('-', '')}"


def may_have_senders(kind: AddressKind, name: str) -> bool:
    """May the targets of such an address send as it? Those of a group or a catch-all may not."""
    return kind is AddressKind.ALIAS and not name.startswith("@")


def _table(kind: str, values: Iterator[tuple[str, object]]) -> Iterator[str]:
    yield ""
    yield f"[[{kind}]]"
    for key, value in values:
        if isinstance(value, list) and len(value) > _IN_A_LINE:
            yield f"{key} = ["
            for each in value:
                yield f"  {_value(each)},"
            yield "]"
        else:
            yield f"{key} = {_value(value)}"


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _text(value)
        case Mapping():
            return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
        case Sequence():
            return "[" + ", ".join(map(_value, value)) + "]"
        case _:
            raise TypeError(f"{type(value)} has no place in a document")


def _text(text: str) -> str:
    """A basic string: JSON's, but that DEL is escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
