"""A document's way out of a database and into it: read at one moment, and made true in one transaction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, cast

import attrs

from mailserver.directory import address_changes, addresses, app_password_rows, changing, reading, statements
from mailserver.directory.changing import Author, Record
from mailserver.directory.database import Database
from mailserver.directory.document import AppPassword, Delegate, Document, User
from mailserver.directory.model import (
    NO_PASSWORD,
    AccountLimits,
    AddressKind,
    BadRow,
    NewAccount,
    Refused,
    State,
    StoredAddress,
    StoredDomain,
    Target,
)
from mailserver.directory.plan import Step

_RECORDED: Final = 1_000
"""New accounts, or changed addresses, that are recorded one by one; more are one row with their number."""


def load(database: Database) -> Document:
    """All of a directory, as it is at one moment. Raises: DirectoryUnavailable, BadRow."""
    with database.reading():
        identifier, serial = reading.identity(database)
        users = {
            account.name: User(
                account.name,
                attrs.evolve(account.password, protocols=None),
                account.password.protocols,
                account.home,
                account.full_name,
                account.state,
                account.limits,
            )
            for account in reading.accounts(database)
        }
        names = dict(cast("list[tuple[str, str]]", database.rows(statements.OWN_NAMES)))
        delegates = [
            Delegate(str(account), str(over), cast("int | None", expires), str(why))
            for account, over, expires, why in database.rows(statements.DELEGATES)
        ]
        return Document(
            {domain.name: _checked(domain) for domain in addresses.domains(database)},
            users,
            _addresses(database, names),
            {(each.account, each.over): each for each in delegates},
            app_password_rows.load(database, names),
            identifier,
            serial,
        )


def _checked(domain: StoredDomain) -> StoredDomain:
    """Raises: BadRow."""
    try:
        AccountLimits.parse(domain.limits)
    except ValueError as error:
        raise BadRow(f"the domain {domain.name} cannot be used: {error}") from error
    return domain


def _addresses(database: Database, names: dict[str, str]) -> dict[str, StoredAddress]:
    """All addresses; `names` are those of accounts by their identifiers.

    The targets are joined here: an account with thousands of aliases would be joined with each of them for each.
    """
    targets: dict[str, list[Target]] = {}
    for address, account, elsewhere, may_send in database.rows(statements.ALL_TARGETS):
        name = str(elsewhere) if account is None else names[str(account)]
        targets.setdefault(str(address), []).append(Target(name, account is not None, bool(may_send)))
    return {
        str(name): StoredAddress(
            str(name), AddressKind(kind), tuple(targets.get(str(name), ())), bool(enabled), str(note)
        )
        for name, kind, enabled, note in database.rows(statements.ALL_ADDRESSES)
    }


def apply(database: Database, author: Author, steps: Sequence[Step], expected: tuple[str, int]) -> None:
    """Make the steps of a plan in one transaction. `expected`: identifier and last change of the directory it was made for.

    Raises: Refused if the directory was changed since, Taken, Missing, DirectoryUnavailable.
    """
    with changing.recording(database, author) as record:
        identifier, serial = expected
        if reading.identity(database) != (identifier, serial + 1):
            raise Refused(
                f"the directory was changed meanwhile (change {record.serial - 1} instead of {serial}):"
                " nothing was applied; look at the plan again"
            )
        app_passwords = [_app_passwords(step) for step in steps if step.kind == "app_password"]
        app_password_rows.remove(record, app_passwords)
        _remove(record, steps)
        _put_domains(record, [each.after for each in steps if isinstance(each.after, StoredDomain)])
        _put_users(record, steps)
        app_password_rows.put(record, app_passwords, record_new=len(app_passwords) <= _RECORDED)
        for step in steps:
            if isinstance(step.after, StoredAddress):
                address_changes.add_rows(database, step.after)
            elif isinstance(step.after, Delegate):
                _put_delegate(database, step.after)
        for step in steps:
            if isinstance(step.before, StoredDomain) and step.after is None:
                database.change(statements.REMOVE_DOMAIN, name=step.name)
        _record(record, steps)


def _app_passwords(step: Step) -> app_password_rows.Pair:
    before, after = step.before, step.after
    return before if isinstance(before, AppPassword) else None, after if isinstance(after, AppPassword) else None


def _remove(record: Record, steps: Iterable[Step]) -> None:
    """Remove the rows that go, and those of addresses that others replace."""
    change = record.database.change
    for step in steps:
        if isinstance(step.before, StoredAddress):
            change(statements.DELETE_ADDRESS, name=step.name)
        elif isinstance(step.before, Delegate):
            account = changing.account_id(record.database, step.before.account)
            change(statements.DELETE_DELEGATE, account=account, over=step.before.over)
    # Last: a delegate's row has an account's identifier.
    for step in steps:
        if isinstance(step.before, User) and step.after is None:
            changing.delete_rows(record, step.name)
        elif isinstance(step.before, StoredDomain) and step.before.alias_of is not None:
            # No row may refer to one that goes.
            change(statements.SET_DOMAIN, **address_changes.domain_columns(step.before) | {"alias_of": None})


def _put_domains(record: Record, domains: Sequence[StoredDomain]) -> None:
    for domain in domains:
        columns = address_changes.domain_columns(domain)
        if not record.database.rows(statements.DOMAIN, name=domain.name):
            record.database.change(statements.ADD_DOMAIN, **columns | {"alias_of": None})
    # The domain that one stands for is there now.
    for domain in domains:
        record.database.change(statements.SET_DOMAIN, **address_changes.domain_columns(domain))


def _put_users(record: Record, steps: Iterable[Step]) -> None:
    for step in steps:
        match step.before, step.after:
            case None, User() as new:
                account = changing.add_rows(
                    record,
                    NewAccount(new.name, new.password or NO_PASSWORD, new.home, new.full_name, new.state, new.limits),
                )
                if new.password_protocols is not None:
                    changing.set_main_protocols_row(record.database, account, new.password_protocols)
            case User() as before, User() as after:
                _change_user(record, before, after)
            case _:
                continue


def _change_user(record: Record, before: User, after: User) -> None:
    database, serial = record.database, record.serial
    account = changing.account_id(database, after.name)
    if after.password is not None and after.password != before.password:
        changing.set_password_rows(record, account, after.password)
    if after.password_protocols != before.password_protocols:
        changing.set_main_protocols_row(database, account, after.password_protocols)
    database.change(
        statements.SET_ACCOUNT,
        id=account,
        home=after.home,
        full_name=after.full_name,
        state=after.state.value,
        limits=after.limits.text(),
        serial=serial,
    )


def _put_delegate(database: Database, delegate: Delegate) -> None:
    account = changing.account_id(database, delegate.account)
    database.change(
        statements.ADD_DELEGATE, account=account, over=delegate.over, expires=delegate.expires, why=delegate.why
    )


def _record(record: Record, steps: Sequence[Step]) -> None:
    numbers = Counter(f"{step.kind} {_PAST[step.action.value]}" for step in steps)
    record.add(changing.APPLIED, "", numbers=dict(numbers))
    few_new = sum(isinstance(step.after, User) and step.before is None for step in steps) <= _RECORDED
    few_addresses = sum(step.kind not in {"user", "domain", "delegate", "app_password"} for step in steps) <= _RECORDED
    for step in steps:
        match step.before, step.after:
            case None, User():
                if few_new:
                    record.add(changing.ADDED, step.name)
            case User(), None:
                record.add(changing.DELETED, step.name)
            case User() as before, User() as after:
                _record_user(record, before, after)
            case (StoredAddress(), _) | (_, StoredAddress()):
                if few_addresses:
                    _record_address(record, step)
            case (Delegate() as either, _) | (_, Delegate() as either):
                # What an account may log in to is looked at anew.
                record.add(f"delegate {_PAST[step.action.value]}", either.account, over=either.over)
            case (AppPassword(), _) | (_, AppPassword()):
                # Recorded where they are put.
                continue
            case _:
                record.add(f"domain {_PAST[step.action.value]}", "", domain=step.name, **_domain_facts(step))


_PAST: Final = {"add": "added", "change": "changed", "remove": "removed"}


def _domain_facts(step: Step) -> dict[str, object]:
    """As `address_changes` records them."""
    match step.before, step.after:
        case StoredDomain() as before, StoredDomain() as after:
            return {"changed": address_changes.domain_differences(before, after)}
        case None, StoredDomain() as added:
            return {"alias_of": added.alias_of}
    return {}


def _record_user(record: Record, before: User, after: User) -> None:
    if after.password is not None and after.password != before.password:
        record.add(changing.PASSWORD, after.name)
    if after.password_protocols != before.password_protocols:
        record.add(
            changing.MAIN_PROTOCOLS, after.name, protocols=changing.main_protocols_text(after.password_protocols)
        )
    if before.state is not after.state:
        record.add(changing.DISABLED if after.state is State.DISABLED else changing.ENABLED, after.name)
    if before.limits != after.limits:
        record.add(
            changing.LIMITS,
            after.name,
            before=json.loads(before.limits.text()),
            after=json.loads(after.limits.text()),
        )
    if before.home != after.home:
        record.add(changing.HOME, after.name, before=before.home, after=after.home)
    if before.full_name != after.full_name:
        # Of no account: its sessions go on.
        record.add(changing.FULL_NAME, "", address=after.name)


def _record_address(record: Record, step: Step) -> None:
    facts: dict[str, object] = {}
    for key, value in (("before", step.before), ("targets", step.after)):
        if isinstance(value, StoredAddress):
            facts |= address_changes.target_facts(key, value.targets)
    record.add(f"{step.kind} {_PAST[step.action.value]}", "", address=step.name, **facts)
