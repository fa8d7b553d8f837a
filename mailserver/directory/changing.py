"""Changes of a directory. Each is one transaction with its rows in the record of changes, or nothing.

The record is the audit trail, and the feed by which servers end the sessions of the accounts that are concerned. It is
bounded: the last `KEPT` changes remain.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import attrs
from attrs import define, frozen

from mailserver.directory import reading, statements
from mailserver.directory.database import Database
from mailserver.directory.model import (
    SCRAM_HASHES,
    Account,
    AccountLimits,
    Missing,
    NewAccount,
    Password,
    Refused,
    State,
    Taken,
)

KEPT: Final = 10_000
"""Changes that are remembered."""

ADDED: Final = "account added"
RENAMED: Final = "account renamed"
DELETED: Final = "account deleted"
DISABLED: Final = "account disabled"
ENABLED: Final = "account enabled"
PASSWORD: Final = "password changed"  # noqa: S105 - a name
LIMITS: Final = "limits changed"
MAIN_PROTOCOLS: Final = "protocols of the password changed"
RESTORED: Final = "directory restored"
IMPORTED: Final = "accounts imported"
HOME: Final = "home changed"
APPLIED: Final = "document applied"
FULL_NAME: Final = "full name changed"


@frozen
class Author:
    """The maker of a change, and its time."""

    who: str
    at: int
    """Seconds since 1970."""


@define
class Record:
    """The rows of one change."""

    database: Database
    author: Author
    serial: int
    _place: int = 0

    def add(self, what: str, account: str, **facts: Any) -> None:
        """Add a row. `account`: its name; empty if no single account is concerned. Raises: DirectoryUnavailable."""
        self.database.change(
            statements.ADD_CHANGE,
            serial=self.serial,
            place=self._place,
            at=self.author.at,
            who=self.author.who,
            what=what,
            account=account,
            facts=json.dumps(facts, separators=(",", ":")),
        )
        self._place += 1


@contextlib.contextmanager
def recording(database: Database, author: Author) -> Iterator[Record]:
    """A transaction that records its changes. Raises: DirectoryUnavailable."""
    with database.writing():
        [(serial,)] = database.rows(statements.NEXT_SERIAL)
        record = Record(database, author, cast("int", serial))
        yield record
        database.change(statements.FORGET_CHANGES, serial=record.serial - KEPT)


def add_account(database: Database, author: Author, new: NewAccount) -> str:
    """Add an account. Return its identifier. Raises: Taken, Refused, DirectoryUnavailable."""
    with recording(database, author) as record:
        identifier = add_rows(record, new)
        record.add(ADDED, new.name)
        return identifier


def import_accounts(database: Database, author: Author, new: Iterable[NewAccount]) -> int:
    """Add accounts, all or none. Return their number. Raises: Taken, Refused, DirectoryUnavailable."""
    number = 0
    with recording(database, author) as record:
        for each in new:
            add_rows(record, each)
            number += 1
        # One row: a server need not look at each of 50,000 new accounts, which have no sessions.
        record.add(IMPORTED, "", number=number)
    return number


def set_password(
    database: Database, author: Author, name: str, password: Password, *, keeps_apps: bool = False
) -> None:
    """Give an account another main password.

    `keeps_apps`: its SCRAM keys were made beside those of the app passwords, and must not take these away. Raises: Refused if they
    would, Missing, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        if set_password_rows(record, account_id(database, name), password) and keeps_apps:
            raise Refused("the SCRAM parameters of the account were changed meanwhile: try again")
        record.add(PASSWORD, name)


def set_state(database: Database, author: Author, name: str, state: State) -> None:
    """Disable or enable an account, unless it is so already; the password stays. Raises: Missing, DirectoryUnavailable."""
    if _existing(database, name).state is state:
        return
    with recording(database, author) as record:
        account = _existing(database, name)
        database.change(statements.SET_STATE, id=account.id, state=state.value, serial=record.serial)
        record.add(DISABLED if state is State.DISABLED else ENABLED, name)


def set_main_protocols(database: Database, author: Author, name: str, protocols: frozenset[str] | None) -> None:
    """Say where the main password of an account may be used; None: everywhere. Raises: Missing, DirectoryUnavailable."""
    with recording(database, author) as record:
        identifier = account_id(database, name)
        set_main_protocols_row(database, identifier, protocols)
        database.change(statements.SET_SERIAL, id=identifier, serial=record.serial)
        record.add(MAIN_PROTOCOLS, name, protocols=main_protocols_text(protocols))


def change_limits(database: Database, author: Author, name: str, **values: Any) -> Account:
    """Change some limits of an account: fields of AccountLimits, and `password_protocols` of its main password. Return it.

    Another administrator's changes of others stand. Raises: Missing, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        account = _existing(database, name)
        if "password_protocols" in values:
            protocols = values.pop("password_protocols")
            set_main_protocols_row(database, account.id, protocols)
            database.change(statements.SET_SERIAL, id=account.id, serial=record.serial)
            record.add(MAIN_PROTOCOLS, name, protocols=main_protocols_text(protocols))
        if values:
            _set_limits(record, account, attrs.evolve(account.limits, **values))
        return _existing(database, name)


def set_limits(database: Database, author: Author, name: str, limits: AccountLimits) -> None:
    """Replace the limits of an account. Raises: Missing, DirectoryUnavailable."""
    with recording(database, author) as record:
        _set_limits(record, _existing(database, name), limits)


def rename(database: Database, author: Author, old: str, new: str) -> None:
    """Give an account another name. Raises: Missing, Taken, DirectoryUnavailable."""
    with recording(database, author) as record:
        account = _existing(database, old)
        expect_free(database, new)
        # The rows of `target` follow.
        database.change(statements.RENAME_ADDRESS, old=old, new=new)
        database.change(statements.RENAME_OVER, old=old, new=new)
        database.change(statements.SET_SERIAL, id=account.id, serial=record.serial)
        record.add(RENAMED, old, new=new)


def delete(database: Database, author: Author, name: str) -> None:
    """Delete an account, its credentials, and its places in aliases. Raises: Missing, DirectoryUnavailable."""
    with recording(database, author) as record:
        delete_rows(record, name)
        record.add(DELETED, name)


def mark_restored(database: Database, author: Author, above: int = 0) -> None:
    """Give a copy that is about to replace a directory an identifier of its own, so that servers notice it.

    Its next changes have numbers over `above`, the last one of the replaced directory: no number is used twice.
    Raises: DirectoryUnavailable.
    """
    database.change(statements.RAISE_SERIAL, above=above)
    with recording(database, author) as record:
        database.change(statements.SET_ID, id=secrets.token_hex(16))
        record.add(RESTORED, "")


def set_password_rows(record: Record, account: str, password: Password) -> int:
    """Give the account of that identifier another main password, within a change.

    Return the number of SCRAM keys that app passwords have lost by it. Raises: DirectoryUnavailable.
    """
    database, author = record.database, record.author
    [before] = database.rows(statements.SCRAM_PARAMETERS, id=account)
    new = _parameters(password)
    parameters = {column: text or str(old) for (column, text), old in zip(new.items(), before, strict=True)}
    # The keys of app passwords belong to the salt and rounds that the account had.
    moved = [column for old, (column, text) in zip(before, parameters.items(), strict=True) if old and old != text]
    lost = sum(database.change(statements.DROP_APP_SCRAM[column], account=account) for column in moved)
    database.change(statements.SET_SCRAM, id=account, serial=record.serial, **parameters)
    changed = database.change(
        statements.SET_MAIN_CREDENTIAL,
        account=account,
        secret=password.secret,
        at=author.at,
        who=author.who,
        **_keys(password),
    )
    assert changed == 1
    return lost


def set_main_protocols_row(database: Database, account: str, protocols: frozenset[str] | None) -> None:
    """Say where the main password may be used, within a change. Raises: DirectoryUnavailable."""
    database.change(statements.SET_MAIN_PROTOCOLS, account=account, protocols=main_protocols_text(protocols))


def main_protocols_text(protocols: frozenset[str] | None) -> str | None:
    """The column's value."""
    return None if protocols is None else ",".join(sorted(protocols))


def delete_rows(record: Record, name: str) -> None:
    """Delete an account, within a change. Raises: Missing, DirectoryUnavailable."""
    account = account_id(record.database, name)
    record.database.change(statements.DELETE_ADDRESS, name=name)
    record.database.change(statements.DELETE_ACCOUNT, id=account)
    # A later account of that name is somebody else's.
    record.database.change(statements.DELETE_OVER, name=name)


def account_id(database: Database, name: str) -> str:
    """The identifier of an account. Raises: Missing, DirectoryUnavailable."""
    for (identifier,) in database.rows(statements.ACCOUNT_ID, name=name):
        return str(identifier)
    raise Missing(name)


def add_rows(record: Record, new: NewAccount) -> str:
    """Add an account, within a change. Return its identifier. Raises: Taken, DirectoryUnavailable."""
    expect_free(record.database, new.name)
    identifier, change = secrets.token_hex(8), record.database.change
    change(
        statements.ADD_ACCOUNT,
        id=identifier,
        home=new.home,
        full_name=new.full_name,
        state=new.state.value,
        limits=new.limits.text(),
        serial=record.serial,
        at=record.author.at,
        **_parameters(new.password),
    )
    change(
        statements.ADD_MAIN_CREDENTIAL,
        id=secrets.token_hex(8),
        account=identifier,
        secret=new.password.secret,
        at=record.author.at,
        who=record.author.who,
        **_keys(new.password),
    )
    _add_address(record.database, new.name, "user", identifier)
    for sender in sorted(new.senders - {new.name}):
        expect_free(record.database, sender)
        _add_address(record.database, sender, "alias", identifier)
    return identifier


def _add_address(database: Database, name: str, kind: str, account: str) -> None:
    database.change(statements.ADD_ADDRESS, name=name, kind=kind)
    database.change(statements.ADD_TARGET, address=name, place=0, account=account)


def expect_free(database: Database, name: str) -> None:
    """Raise Taken if an account or address has that name, DirectoryUnavailable."""
    for (kind,) in database.rows(statements.ADDRESS, name=name):
        raise Taken(name, str(kind))


def _set_limits(record: Record, account: Account, limits: AccountLimits) -> None:
    record.database.change(statements.SET_LIMITS, id=account.id, limits=limits.text(), serial=record.serial)
    record.add(LIMITS, account.name, before=json.loads(account.limits.text()), after=json.loads(limits.text()))


def _existing(database: Database, name: str) -> Account:
    account = reading.find_login(database, name)
    if account is None:
        raise Missing(name)
    return account


def _parameters(password: Password) -> dict[str, str]:
    """What all SCRAM keys of the account share, by column."""
    return {_column(name): password.scram[name].parameters if name in password.scram else "" for name in SCRAM_HASHES}


def _keys(password: Password) -> dict[str, str | None]:
    """The SCRAM keys of the password, by column."""
    return {_column(name): password.scram[name].keys if name in password.scram else None for name in SCRAM_HASHES}


def _column(hash_name: str) -> str:
    return f"scram_{hash_name.lower().replace('-', '')}"
