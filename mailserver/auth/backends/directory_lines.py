"""Accounts of a directory as lines of a users file, and back: for import, export and `mailserver user` (no I/O)."""

from __future__ import annotations

from collections.abc import Iterator

from mailserver.auth.schemes.passwd import BadLine, PasswdEntry, parse_line
from mailserver.auth.schemes.quota_fields import MAILBOXES, MESSAGES, STORAGE, quota_of
from mailserver.auth.schemes.scram_fields import FIELDS as SCRAM_FIELDS
from mailserver.auth.schemes.scram_fields import field_of, keys_of
from mailserver.directory import field_rules
from mailserver.directory.model import (
    SCRAM_HASHES,
    Account,
    AccountLimits,
    NewAccount,
    Password,
    State,
    StoredKeys,
)
from mailserver.sasl.scram_keys import BadKeys, ScramKeys
from mailserver.types import UNLIMITED

TAKEN: frozenset[str] = (
    frozenset({"nologin", "allow_nets", "userdb_addresses", STORAGE, MESSAGES, MAILBOXES}) | SCRAM_FIELDS
)
"""The extra fields that `new_account` takes."""


def new_account(line: str) -> tuple[NewAccount, frozenset[str]]:
    """The account of a line, and the names of extra fields that an account has no place for. Raises: BadLine, BadName."""
    entry = parse_line(line)
    gecos = (line.split(":", 5) + [""] * 5)[4]
    quota = quota_of(entry)
    try:
        home, full_name = field_rules.home(entry.home), field_rules.full_name(gecos)
    except ValueError as error:
        raise BadLine(str(error)) from error
    account = NewAccount(
        entry.name,
        password_of(entry),
        home,
        full_name,
        State.DISABLED if entry.disabled else State.ACTIVE,
        AccountLimits(entry.networks, quota.storage, quota.messages, quota.mailboxes),
        entry.addresses - {entry.name},
    )
    return account, frozenset(entry.extra.keys() - TAKEN)


def password_of(entry: PasswdEntry) -> Password:
    """The password of a line, with the SCRAM keys that belong to it."""
    scram = {}
    for hash_name in SCRAM_HASHES:
        try:
            keys = keys_of(entry, hash_name)
        except BadKeys:
            # Keys of an earlier password let nobody in here either.
            continue
        if keys is not None:
            scram[hash_name] = StoredKeys.parse(keys.text())
    return Password(entry.stored, scram)


def entry_of(account: Account) -> PasswdEntry:
    """The line of an account, parsed."""
    return PasswdEntry(
        account.name,
        account.password.secret,
        account.state is State.DISABLED,
        account.home,
        dict(_extra(account)),
    )


def line_of(account: Account) -> str:
    """The line of an account, without its end."""
    mark = "!" if account.state is State.DISABLED else ""
    extra = " ".join(f"{name}={value}" for name, value in _extra(account))
    name, home = account.full_name.replace(":", " "), account.home
    return f"{account.name}:{mark}{account.password.secret}:::{name}:{home}::{extra}"


def _extra(account: Account) -> Iterator[tuple[str, str]]:
    limits = account.limits
    if limits.networks is not None:
        yield "allow_nets", ",".join(limits.networks)
    if account.senders:
        yield "userdb_addresses", ",".join(sorted(account.senders))
    for name, number in ((STORAGE, limits.storage), (MESSAGES, limits.messages), (MAILBOXES, limits.mailboxes)):
        if number is not None:
            yield name, "unlimited" if number == UNLIMITED else str(number)
    for hash_name, keys in account.password.scram.items():
        field = field_of(account.password.secret, hash_name, ScramKeys.parse(keys.text(), hash_name))
        if field is not None:
            yield field
