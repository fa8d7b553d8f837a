"""The questions of the server and the command to a directory: each is one or two statements, constant in its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final, cast

from mailserver.directory import statements
from mailserver.directory.database import Database, Row
from mailserver.directory.model import (
    SCRAM_HASHES,
    Account,
    AccountLimits,
    Change,
    Password,
    State,
    StoredKeys,
)

_BATCH: Final = 500
"""Accounts or changes in one statement."""
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
    [(identifier, _version, _oldest, serial)] = database.rows(statements.META)
    return str(identifier), cast("int", serial)


def changes(database: Database, since: int) -> Iterator[Change]:
    """The recorded changes after `since`, oldest first. Raises: DirectoryUnavailable."""
    while batch := database.rows(statements.CHANGES, since=since, count=_BATCH):
        # The rows of one change may go on in the next batch.
        last = cast("int", batch[-1][0])
        if len(batch) == _BATCH and batch[0][0] != last:
            batch = [row for row in batch if row[0] != last]
        for serial, at, who, what, account, facts in batch:
            yield Change(
                cast("int", serial), cast("int", at), str(who), str(what), str(account), json.loads(str(facts))
            )
        since = cast("int", batch[-1][0])


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
    """The account of the rows that differ in the last column alone: an address that it may send as, or NULL."""
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
