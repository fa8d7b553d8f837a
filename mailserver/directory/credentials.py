"""App passwords of accounts: found by their probe, added, listed and revoked."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Final, cast

from attrs import field, frozen

from mailserver.directory import statements
from mailserver.directory.changing import Author, account_id, recording
from mailserver.directory.database import Database, Row
from mailserver.directory.field_rules import MOST_APP_PASSWORDS
from mailserver.directory.model import SCRAM_HASHES, LoginRow, Refused, State, StoredKeys

MOST: Final = MOST_APP_PASSWORDS
"""App passwords of one account."""
_OF_APP: Final = 6
"""Columns of the app password itself in APP_PASSWORD."""
ADDED: Final = "app password added"
REVOKED: Final = "app password revoked"
_TAKEN: Final = "{} has an app password with the label {} already: choose another label, or revoke that one"


@frozen
class AppPassword:
    """One app password, without what would let anybody log in."""

    id: str
    account: str
    """The name of the account."""
    label: str
    protocols: frozenset[str] | None = None
    """Where it may be used; None: everywhere."""
    expires: int | None = None
    """Seconds since 1970; None: never."""
    created: int = 0
    made_by: str = ""
    is_active: bool = True
    """Is the account not disabled?"""
    scram: Mapping[str, StoredKeys] = field(factory=dict, repr=False)
    """By hash."""


def find_app_password(database: Database, probe: str) -> tuple[AppPassword, LoginRow] | None:
    """The app password of that SHA-256, expired or not, without keys, and its account. Raises: DirectoryUnavailable."""
    return _with_account(database.rows(statements.APP_PASSWORD, probe=probe))


def app_password_of_id(database: Database, identifier: str) -> tuple[AppPassword, LoginRow] | None:
    """The app password with that id, as `find_app_password` returns it. Raises: DirectoryUnavailable."""
    return _with_account(database.rows(statements.APP_PASSWORD_OF_ID, id=identifier))


def _with_account(rows: list[Row]) -> tuple[AppPassword, LoginRow] | None:
    for row in rows:
        identifier, label, protocols, expires, created, made_by = row[-_OF_APP:]
        account = LoginRow._make(row[:-_OF_APP])
        found = AppPassword(
            cast("str", identifier),
            account.name,
            cast("str", label),
            protocols_of(protocols),
            cast("int | None", expires),
            cast("int", created),
            cast("str", made_by),
            account.is_active,
        )
        return found, account
    return None


def app_passwords(database: Database, account: str) -> list[AppPassword]:
    """Those of an account, the oldest first. Raises: DirectoryUnavailable."""
    return [_app_password(row) for row in database.rows(statements.APP_PASSWORDS, name=account)]


def add_app_password(
    database: Database, author: Author, new: AppPassword, probe: str, parameters: Mapping[str, str]
) -> None:
    """Add one to an account. `parameters`: "rounds,salt" of its SCRAM keys, by hash, for an account that has none yet.

    Raises: Missing, Refused if the label is in use or the account has MOST of them, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        identifier = account_id(database, new.account)
        present = app_passwords(database, new.account)
        if any(each.label == new.label for each in present):
            raise Refused(_TAKEN.format(new.account, new.label))
        if len(present) >= MOST:
            raise Refused(f"{new.account} has {MOST} app passwords, and there can be no more: revoke one")
        shared = _shared(database, identifier)
        for hash_name, text in parameters.items():
            if hash_name in new.scram and shared[hash_name] not in {"", text}:
                raise Refused("the SCRAM parameters of the account were changed meanwhile: try again")
            shared[hash_name] = shared[hash_name] or text
        database.change(
            statements.SET_SCRAM,
            id=identifier,
            serial=record.serial,
            scram_sha256=shared["SHA-256"],
            scram_sha1=shared["SHA-1"],
        )
        database.change(
            statements.ADD_APP_PASSWORD,
            id=new.id,
            account=identifier,
            label=new.label,
            probe=probe,
            scram_sha256=new.scram["SHA-256"].keys if "SHA-256" in new.scram else None,
            scram_sha1=new.scram["SHA-1"].keys if "SHA-1" in new.scram else None,
            protocols=protocols_text(new.protocols),
            expires=new.expires,
            at=author.at,
            who=author.who,
        )
        record.add(ADDED, new.account, credential=new.id, label=new.label)


def revoke(database: Database, author: Author, account: str, label: str) -> AppPassword:
    """Remove the app password with that label, or id. Return it. Raises: Missing, Refused, DirectoryUnavailable."""
    with recording(database, author) as record:
        account_id(database, account)
        present = app_passwords(database, account)
        found = next((each for each in present if label in {each.label, each.id}), None)
        if found is None:
            names = ", ".join(each.label for each in present)
            raise Refused(f"{account} has no app password with the label {label}; it has: {names or 'none'}")
        database.change(statements.REMOVE_CREDENTIAL, id=found.id)
        record.add(REVOKED, account, credential=found.id, label=found.label)
    return found


def next_expiry(database: Database, after: int) -> int | None:
    """The time at which the first app password after `after` expires; None if none does. Raises: DirectoryUnavailable."""
    return cast("int | None", database.rows(statements.NEXT_APP_PASSWORD_EXPIRY, after=after)[0][0])


def expired(database: Database, after: int, now: int) -> list[tuple[str, str]]:
    """The app passwords that have expired after `after` until `now`: each with its account. Raises: DirectoryUnavailable."""
    return [
        (str(identifier), str(name))
        for identifier, name in database.rows(statements.EXPIRED_APP_PASSWORDS, after=after, now=now)
    ]


def shared_parameters(database: Database, account: str) -> dict[str, str]:
    """The "rounds,salt" of an account's SCRAM keys, by hash; empty where it has none. Raises: Missing, DirectoryUnavailable."""
    return _shared(database, account_id(database, account))


def parameters_in_use(database: Database, account: str) -> dict[str, str]:
    """The "rounds,salt" of the SCRAM keys of an account's app passwords, by hash; without hashes that none has keys for.

    Keys of a main password under others would take those of the app passwords. Raises: DirectoryUnavailable.
    """
    found = app_passwords(database, account)
    return {hash_name: keys.parameters for each in found for hash_name, keys in each.scram.items()}


def new_id() -> str:
    """An identifier for a new app password."""
    return secrets.token_hex(8)


def _shared(database: Database, identifier: str) -> dict[str, str]:
    [row] = database.rows(statements.SCRAM_PARAMETERS, id=identifier)
    return {name: str(text) for name, text in zip(SCRAM_HASHES, row, strict=True)}


def _app_password(row: Row) -> AppPassword:
    identifier, account, state, label, protocols, expires, created, made_by, *scram = row
    shared, keys = scram[:2], scram[2:]
    return AppPassword(
        str(identifier),
        str(account),
        str(label),
        protocols_of(protocols),
        cast("int | None", expires),
        cast("int", created),
        str(made_by),
        state == State.ACTIVE.value,
        {
            hash_name: StoredKeys(str(parameters), str(own))
            for hash_name, parameters, own in zip(SCRAM_HASHES, shared, keys, strict=True)
            if parameters and own
        },
    )


def protocols_of(text: object) -> frozenset[str] | None:
    """The protocols of a row."""
    return None if text is None else frozenset(filter(None, str(text).split(",")))


def protocols_text(protocols: Iterable[str] | None) -> str | None:
    """As the table has them."""
    return None if protocols is None else ",".join(sorted(protocols))
