"""Changes of addresses and domains, each one transaction with its row in the record of changes (see `changing`).

Names are normalised by the caller. An account as a target is a reference: it follows when the account is renamed, and goes
when the account is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import attrs

from mailserver.directory import addresses, statements
from mailserver.directory.changing import Author, Record, account_id, expect_free, recording
from mailserver.directory.database import Database
from mailserver.directory.model import (
    AccountLimits,
    Missing,
    Refused,
    StoredAddress,
    StoredDomain,
    Taken,
    Target,
)

DOMAIN_ADDED: Final = "domain added"
DOMAIN_CHANGED: Final = "domain changed"
DOMAIN_REMOVED: Final = "domain removed"
_LISTED: Final = 20
"""Targets that the record of changes names."""


def add_address(database: Database, author: Author, new: StoredAddress) -> None:
    """Add an alias, group or forward with its targets.

    Raises: Taken, Missing for a target that is no account, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        add_rows(database, new)
        _record(record, f"{new.kind.value} added", new.name, new.targets)


def replace_address(database: Database, author: Author, new: StoredAddress) -> None:
    """Put an alias or group in the place of the one with its name, if there is one.

    Raises: Taken by an account, Missing for a target that is no account, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        before = addresses.find_stored(database, new.name)
        if before is not None:
            database.change(statements.DELETE_ADDRESS, name=new.name)
        add_rows(database, new)
        _record(record, f"{new.kind.value} {'replaced' if before else 'added'}", new.name, new.targets)


def add_targets(database: Database, author: Author, name: str, targets: Sequence[Target]) -> Sequence[Target]:
    """Add the targets that an address has not. Return these.

    Raises: Missing for the address or a target, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        stored = _existing(database, name)
        present = {target.name for target in stored.targets}
        new = [target for target in targets if target.name not in present]
        _add_targets(database, name, new)
        _record(record, f"{stored.kind.value} extended", name, new)
    return new


def remove_targets(database: Database, author: Author, name: str, targets: Sequence[str]) -> None:
    """Remove targets of an address, by their names; the address stays, with none if these were all.

    Raises: Missing for the address or a target, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        stored = _existing(database, name)
        present = {target.name: target for target in stored.targets}
        for each in targets:
            if each not in present:
                raise Missing(each, f"target of {name} named")
            if present[each].is_account:
                account = account_id(database, each)
                database.change(statements.REMOVE_TARGET_ACCOUNT, address=name, account=account)
            else:
                database.change(statements.REMOVE_TARGET_ELSEWHERE, address=name, elsewhere=each)
        _record(record, f"{stored.kind.value} reduced", name, [present[each] for each in targets])


def set_address_enabled(database: Database, author: Author, name: str, *, enabled: bool) -> None:
    """Enable an address, or disable it so that it is unknown. Raises: Missing, DirectoryUnavailable."""
    with recording(database, author) as record:
        stored = _existing(database, name)
        database.change(statements.SET_ADDRESS_ENABLED, name=name, enabled=int(enabled))
        _record(record, f"{stored.kind.value} {'enabled' if enabled else 'disabled'}", name)


def remove_address(database: Database, author: Author, name: str) -> StoredAddress:
    """Remove an address and return it. Raises: Missing, DirectoryUnavailable."""
    with recording(database, author) as record:
        stored = _existing(database, name)
        database.change(statements.DELETE_ADDRESS, name=name)
        _record(record, f"{stored.kind.value} removed", name, stored.targets)
    return stored


def add_domain(database: Database, author: Author, new: StoredDomain) -> None:
    """Add a domain. Raises: Taken, Missing for the domain it stands for, DirectoryUnavailable."""
    with recording(database, author) as record:
        if addresses.find_stored_domain(database, new.name) is not None:
            raise Taken(new.name, "domain")
        _add_domain(record, new)


def change_domain(
    database: Database,
    author: Author,
    name: str,
    *,
    absent: Iterable[StoredDomain] = (),
    changed_limits: Mapping[str, Any] | None = None,
    **values: Any,
) -> StoredDomain:
    """Give a domain other values: `alias_of`, `detail`, `limits`, `enabled`. Return it.

    `absent`: domains that are added before, if the directory does not have them. `changed_limits`: fields of AccountLimits; the
    others stand. Raises: Missing, Refused for an alias of an
    alias, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        for new in absent:
            if addresses.find_stored_domain(database, new.name) is None:
                _add_domain(record, new)
        before = addresses.find_stored_domain(database, name)
        if before is None:
            raise Missing(name, "domain")
        after = attrs.evolve(before, **values)
        if changed_limits:
            after = attrs.evolve(after, limits=attrs.evolve(AccountLimits.parse(after.limits), **changed_limits).text())
        _check_alias(database, after)
        database.change(statements.SET_DOMAIN, **domain_columns(after))
        record.add(DOMAIN_CHANGED, "", domain=name, changed=domain_differences(before, after))
    return after


def remove_domain(database: Database, author: Author, name: str) -> None:
    """Remove a domain; its addresses stay, unknown until it is added again.

    Raises: Missing, Refused while others stand for it, DirectoryUnavailable.
    """
    with recording(database, author) as record:
        if addresses.find_stored_domain(database, name) is None:
            raise Missing(name, "domain")
        if aliases := addresses.aliases_of_domain(database, name):
            raise Refused(f"{', '.join(aliases)} stands for {name}: remove or change that first")
        database.change(statements.REMOVE_DOMAIN, name=name)
        record.add(DOMAIN_REMOVED, "", domain=name)


def _add_domain(record: Record, new: StoredDomain) -> None:
    _check_alias(record.database, new)
    record.database.change(statements.ADD_DOMAIN, **domain_columns(new))
    record.add(DOMAIN_ADDED, "", domain=new.name, alias_of=new.alias_of)


def _check_alias(database: Database, domain: StoredDomain) -> None:
    """One step: a domain that stands for others stands for none. Raises: Missing, Refused."""
    if domain.alias_of is None:
        return
    meant = addresses.find_stored_domain(database, domain.alias_of)
    if meant is None:
        raise Missing(domain.alias_of, "domain")
    if meant.alias_of is not None:
        raise Refused(f"{meant.name} itself stands for {meant.alias_of}: name that instead")
    if meant.name == domain.name:
        raise Refused(f"{domain.name} cannot stand for itself")
    if aliases := addresses.aliases_of_domain(database, domain.name):
        raise Refused(f"{', '.join(aliases)} stands for {domain.name}, so this cannot stand for another")


def domain_differences(before: StoredDomain, after: StoredDomain) -> dict[str, list[Any]]:
    """The values that differ, each as it was and as it is."""
    old, new = attrs.asdict(before), attrs.asdict(after)
    return {key: [value, new[key]] for key, value in old.items() if new[key] != value}


def domain_columns(domain: StoredDomain) -> dict[str, str | int | None]:
    """The values of a domain's row."""
    return attrs.asdict(domain) | {"enabled": int(domain.enabled)}


def add_rows(database: Database, new: StoredAddress) -> None:
    """Add an address with its targets, within a change. Raises: Taken, Missing, DirectoryUnavailable."""
    expect_free(database, new.name)
    database.change(statements.ADD_ADDRESS, name=new.name, kind=new.kind.value)
    if new.note:
        database.change(statements.SET_NOTE, name=new.name, note=new.note)
    if not new.enabled:
        database.change(statements.SET_ADDRESS_ENABLED, name=new.name, enabled=0)
    _add_targets(database, new.name, new.targets)


def _add_targets(database: Database, address: str, targets: Sequence[Target]) -> None:
    [(last,)] = database.rows(statements.LAST_PLACE, address=address)
    first = 0 if last is None else cast("int", last) + 1
    for place, target in enumerate({each.name: each for each in targets}.values(), first):
        account = account_id(database, target.name) if target.is_account else None
        database.change(
            statements.ADD_TARGET_ROW,
            address=address,
            place=place,
            account=account,
            elsewhere=None if target.is_account else target.name,
            may_send=int(target.may_send),
        )


def _existing(database: Database, name: str) -> StoredAddress:
    stored = addresses.find_stored(database, name)
    if stored is None:
        raise Missing(name, "address")
    return stored


def _record(record: Record, what: str, address: str, targets: Sequence[Target] = ()) -> None:
    facts = target_facts("targets", targets) if targets else {}
    record.add(what, "", address=address, **facts)


def target_facts(key: str, targets: Sequence[Target]) -> dict[str, Any]:
    """Targets in the record of changes: the first ones, and their number if there are more."""
    facts: dict[str, Any] = {key: [each.name for each in targets[:_LISTED]]}
    if len(targets) > _LISTED:
        facts[f"all_{key}" if key != "targets" else "all"] = len(targets)
    return facts
