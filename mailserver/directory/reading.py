"""The questions of the server and the command to a directory: each is one or two statements, constant in its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, cast

from mailserver.directory import statements
from mailserver.directory.database import Database, Row
from mailserver.directory.model import (
    SCRAM_HASHES,
    Account,
    AccountLimits,
    BadRow,
    Change,
    DirectoryUnavailable,
    LoginRow,
    Password,
    State,
    StoredKeys,
)

_BATCH: Final = 500
"""Accounts or changes in one statement."""
_LAST_PLACE: Final = 2**31 - 1
"""No row of a change has a higher place."""
_WITHOUT_KEYS: Final = 1000
"""Accounts without SCRAM keys that are looked at."""
_SAMPLE: Final = 500
"""Passwords that `typical` questions look at."""


def find_account(database: Database, name: str) -> Account | None:
    """The account of that name. Raises: DirectoryUnavailable."""
    rows = database.rows(statements.ACCOUNT, name=name)
    return account_of(rows) if rows else None


def find_login(database: Database, name: str) -> Account | None:
    """The account of that name, without the addresses that it may send as. Raises: DirectoryUnavailable."""
    rows = database.rows(statements.LOGIN, name=name)
    return account_of(rows) if rows else None


def find_login_row(database: Database, name: str) -> LoginRow | None:
    """What a login needs of the account of that name. Raises: DirectoryUnavailable."""
    for row in database.rows(statements.LOGIN_ROW, name=name):
        return LoginRow._make(row)
    return None


def accounts(database: Database) -> Iterator[Account]:
    """All accounts by name, read in batches. Raises: DirectoryUnavailable."""
    after = ""
    while batch := database.rows(statements.ACCOUNTS, after=after, count=_BATCH):
        for _name, rows in groupby(batch, itemgetter(1)):
            yield account_of(list(rows))
        after = cast("str", batch[-1][1])


def count(database: Database) -> int:
    """The number of accounts. Raises: DirectoryUnavailable."""
    return cast("int", database.rows(statements.COUNT)[0][0])


def identity(database: Database) -> tuple[str, int]:
    """The identifier of the directory, and the number of its last change. Raises: DirectoryUnavailable."""
    match database.rows(statements.META):
        case [(str(identifier), _version, _oldest, int(serial))]:
            return identifier, serial
    raise DirectoryUnavailable("the row of the table meta cannot be used: the directory is damaged")


def changes(database: Database, since: int) -> Iterator[Change]:
    """The recorded changes after `since`, oldest first, read in batches. Raises: DirectoryUnavailable."""
    place = _LAST_PLACE
    while batch := database.rows(statements.CHANGES, serial=since, place=place, count=_BATCH):
        for serial, _place, at, who, what, account, text in batch:
            facts = _facts(str(text))
            yield Change(
                cast("int", serial),
                cast("int", at),
                str(who),
                str(what),
                str(account),
                facts or {},
                is_readable=facts is not None,
            )
        # One change may have more rows than a batch.
        since, place = cast("int", batch[-1][0]), cast("int", batch[-1][1])


def _facts(text: str) -> dict[str, Any] | None:
    """The facts of a row; None if they are no JSON object."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def change_head(database: Database, serial: int) -> tuple[str, ...] | None:
    """The first row of a recorded change, which another history has not; None if it is not recorded.

    Raises: DirectoryUnavailable.
    """
    for row in database.rows(statements.CHANGE_HEAD, serial=serial):
        return tuple(map(str, row))
    return None


def oldest_change(database: Database) -> int | None:
    """The number of the oldest change that is still recorded. Raises: DirectoryUnavailable."""
    return cast("int | None", database.rows(statements.OLDEST_CHANGE)[0][0])


def sample_of_secrets(database: Database) -> list[str]:
    """Some stored passwords. Raises: DirectoryUnavailable."""
    return [str(secret) for (secret,) in database.rows(statements.SECRETS, count=_SAMPLE)]


def sample_of_scram(database: Database, hash_name: str) -> list[str]:
    """The "rounds,salt" of some accounts. Raises: DirectoryUnavailable."""
    statement = statements.SCRAM_SHA256 if hash_name == "SHA-256" else statements.SCRAM_SHA1
    return [str(text) for (text,) in database.rows(statement, count=_SAMPLE)]


def everybody_has_scram(database: Database, hash_name: str) -> bool:
    """Has every active account with a password keys for that hash?

    No, where too many others are without keys to look at them all. Raises: DirectoryUnavailable.
    """
    statement = statements.NO_SHA256 if hash_name == "SHA-256" else statements.NO_SHA1
    states = database.rows(statement, count=_WITHOUT_KEYS)
    return len(states) < _WITHOUT_KEYS and (State.ACTIVE.value,) not in states


def account_of(rows: list[Row]) -> Account:
    """The account of the rows that differ in the last column alone: an address that it may send as, or NULL.

    Raises: BadRow.
    """
    try:
        return _account_of(rows)
    except ValueError as error:
        raise BadRow(f"the account {rows[0][1]} cannot be used: {error}") from error


def _account_of(rows: list[Row]) -> Account:
    """Raises: ValueError."""
    row = rows[0]
    identifier, name, home, full_name, state, limits, serial, created, *scram, protocols, secret, keys256, keys1, _s = (
        row
    )
    stored = {
        hash_name: StoredKeys(str(shared), str(own))
        for hash_name, shared, own in zip(SCRAM_HASHES, scram, (keys256, keys1), strict=True)
        if shared and own
    }
    return Account(
        str(identifier),
        str(name),
        str(home),
        str(full_name),
        State(state),
        AccountLimits.parse(str(limits)),
        cast("int", serial),
        cast("int", created),
        Password(
            str(secret or ""), stored, None if protocols is None else frozenset(filter(None, str(protocols).split(",")))
        ),
        frozenset(str(row[-1]) for row in rows if row[-1] is not None),
    )
