"""The questions of the server and the command about addresses and domains."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final

from mailserver.directory import statements
from mailserver.directory.database import Database, Row
from mailserver.directory.model import AddressKind, StoredAddress, StoredDomain, Target

_BATCH: Final = 500
"""Addresses in one statement."""


def find_stored(database: Database, name: str) -> StoredAddress | None:
    """The alias, group or forward of that name, with all its targets. Raises: DirectoryUnavailable."""
    rows = database.rows(statements.ONE_ADDRESS, name=name)
    return _address(rows) if rows else None


def find_targets(database: Database, name: str, most: int) -> list[Target]:
    """The first `most` targets of an enabled address; none if it is unknown. Raises: DirectoryUnavailable."""
    rows = database.rows(statements.ENTRY, name=name, count=most)
    return [
        Target(str(target), bool(is_account), bool(may_send))
        for target, may_send, is_account in rows
        if target is not None
    ]


def addresses(database: Database, kind: AddressKind) -> Iterator[StoredAddress]:
    """All addresses of a kind by name, read in batches. Raises: DirectoryUnavailable."""
    after = ""
    while batch := database.rows(statements.ADDRESSES, kind=kind.value, after=after, count=_BATCH):
        for _name, rows in groupby(batch, itemgetter(0)):
            yield _address(list(rows))
        after = str(batch[-1][0])


def kind_of(database: Database, name: str) -> AddressKind | None:
    """The kind of a name; None if it is free. Raises: DirectoryUnavailable."""
    for (kind,) in database.rows(statements.ADDRESS, name=name):
        return AddressKind(kind)
    return None


def addresses_of(database: Database, account: str) -> list[tuple[str, AddressKind]]:
    """The aliases, groups and forwards that have the account as a target. Raises: DirectoryUnavailable."""
    return [(str(name), AddressKind(kind)) for name, kind in database.rows(statements.ADDRESSES_OF, name=account)]


def addresses_only_to(database: Database, account: str) -> list[tuple[str, AddressKind]]:
    """Those of them that have no other target. Raises: DirectoryUnavailable."""
    return [(str(name), AddressKind(kind)) for name, kind in database.rows(statements.ADDRESSES_ONLY_TO, name=account)]


def addresses_to(database: Database, name: str) -> list[tuple[str, AddressKind]]:
    """Those that have the address, which is no account here, as a target. Raises: DirectoryUnavailable."""
    return [(str(found), AddressKind(kind)) for found, kind in database.rows(statements.ADDRESSES_TO, name=name)]


def find_stored_domain(database: Database, name: str) -> StoredDomain | None:
    """The domain of that name. Raises: DirectoryUnavailable."""
    for row in database.rows(statements.DOMAIN, name=name):
        return _domain(row)
    return None


def domains(database: Database) -> list[StoredDomain]:
    """All domains by name. Raises: DirectoryUnavailable."""
    return [_domain(row) for row in database.rows(statements.DOMAINS)]


def aliases_of_domain(database: Database, name: str) -> list[str]:
    """The domains that stand for it. Raises: DirectoryUnavailable."""
    return [str(alias) for (alias,) in database.rows(statements.DOMAIN_ALIASES, name=name)]


def _address(rows: list[Row]) -> StoredAddress:
    name, kind, enabled, note, *_target = rows[0]
    targets = [
        Target(str(elsewhere if own is None else own), own is not None, bool(may_send))
        for _name, _kind, _enabled, _note, elsewhere, own, may_send in rows
        if own is not None or elsewhere is not None
    ]
    return StoredAddress(str(name), AddressKind(kind), tuple(targets), bool(enabled), str(note))


def _domain(row: Row) -> StoredDomain:
    name, alias_of, detail, limits, enabled = row
    return StoredDomain(str(name), None if alias_of is None else str(alias_of), str(detail), str(limits), bool(enabled))
