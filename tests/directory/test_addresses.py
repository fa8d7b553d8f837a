"""Addresses and domains of the directory: what is added is found, follows its accounts, and is refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.directory import address_changes, addresses, changing, reading
from mailserver.directory.changing import Author
from mailserver.directory.model import (
    AddressKind,
    Missing,
    NewAccount,
    Refused,
    StoredAddress,
    StoredDomain,
    Taken,
    Target,
)
from mailserver.directory.sqlite import SQLiteDatabase

ROOT = Author("root", 1_790_000_000)
ANNA, BEN, INFO = "anna@example.test", "ben@example.test", "info@example.test"


@pytest.fixture
def database(tmp_path: Path) -> SQLiteDatabase:
    database = SQLiteDatabase.create(tmp_path / "directory.db")
    for name in (ANNA, BEN):
        changing.add_account(database, ROOT, NewAccount(name))
    return database


def add(database: SQLiteDatabase, name: str, *targets: Target, kind: AddressKind = AddressKind.ALIAS) -> StoredAddress:
    new = StoredAddress(name, kind, targets)
    address_changes.add_address(database, ROOT, new)
    return new


def test_an_address_is_found_with_its_targets_in_order(database: SQLiteDatabase) -> None:
    targets = Target(BEN), Target("other@elsewhere.test", is_account=False, may_send=False), Target(ANNA)
    new = StoredAddress(INFO, AddressKind.GROUP, targets, enabled=False, note="since 2026")
    address_changes.add_address(database, ROOT, new)
    assert addresses.find_stored(database, INFO) == new
    assert list(addresses.addresses(database, AddressKind.GROUP)) == [new]
    assert list(addresses.addresses(database, AddressKind.ALIAS)) == []
    assert addresses.kind_of(database, INFO) is AddressKind.GROUP
    assert addresses.kind_of(database, ANNA) is AddressKind.USER
    assert addresses.kind_of(database, "x@example.test") is None


def test_an_accounts_own_name_is_no_address_of_these(database: SQLiteDatabase) -> None:
    assert addresses.find_stored(database, ANNA) is None
    with pytest.raises(Missing):
        address_changes.remove_address(database, ROOT, ANNA)


def test_all_addresses_are_read_over_batches(database: SQLiteDatabase) -> None:
    with database.writing():
        pass
    added = [add(database, f"a{number:04}@example.test", Target(ANNA), Target(BEN)) for number in range(1203)]
    assert list(addresses.addresses(database, AddressKind.ALIAS)) == added


def test_targets_follow_a_renamed_account(database: SQLiteDatabase) -> None:
    add(database, INFO, Target(ANNA), Target(BEN))
    changing.rename(database, ROOT, ANNA, "zoe@example.test")
    stored = addresses.find_stored(database, INFO)
    assert stored is not None
    assert [each.name for each in stored.targets] == ["zoe@example.test", BEN]
    assert addresses.addresses_of(database, "zoe@example.test") == [(INFO, AddressKind.ALIAS)]


def test_a_deleted_account_is_no_target_any_more(database: SQLiteDatabase) -> None:
    add(database, INFO, Target(ANNA))
    changing.delete(database, ROOT, ANNA)
    assert addresses.find_stored(database, INFO) == StoredAddress(INFO, AddressKind.ALIAS, ())


def test_targets_are_added_once_and_removed(database: SQLiteDatabase) -> None:
    add(database, INFO, Target(ANNA))
    elsewhere = Target("x@elsewhere.test", is_account=False)
    assert address_changes.add_targets(database, ROOT, INFO, [Target(ANNA), Target(BEN), elsewhere]) == [
        Target(BEN),
        elsewhere,
    ]
    assert addresses.addresses_to(database, "x@elsewhere.test") == [(INFO, AddressKind.ALIAS)]
    address_changes.remove_targets(database, ROOT, INFO, [ANNA, "x@elsewhere.test"])
    assert addresses.find_stored(database, INFO) == StoredAddress(INFO, AddressKind.ALIAS, (Target(BEN),))
    address_changes.add_targets(database, ROOT, INFO, [Target(ANNA)])
    stored = addresses.find_stored(database, INFO)
    assert stored is not None
    assert [each.name for each in stored.targets] == [BEN, ANNA]
    with pytest.raises(Missing, match=r"no target of info@example\.test named x@elsewhere\.test"):
        address_changes.remove_targets(database, ROOT, INFO, [BEN, "x@elsewhere.test"])
    assert addresses.find_stored(database, INFO) == stored


@pytest.mark.parametrize("name", [ANNA, INFO])
def test_a_name_is_taken_once(database: SQLiteDatabase, name: str) -> None:
    add(database, INFO, Target(ANNA))
    with pytest.raises(Taken):
        add(database, name, Target(BEN), kind=AddressKind.GROUP)
    with pytest.raises(Taken):
        changing.add_account(database, ROOT, NewAccount(name))


def test_a_target_that_does_not_exist_refuses_all(database: SQLiteDatabase) -> None:
    with pytest.raises(Missing, match=r"there is no user nobody@example\.test"):
        add(database, INFO, Target(ANNA), Target("nobody@example.test"))
    assert addresses.kind_of(database, INFO) is None


def test_an_alias_gives_the_right_to_send_and_a_group_does_not(database: SQLiteDatabase) -> None:
    add(database, INFO, Target(ANNA))
    add(database, "all@example.test", Target(ANNA, may_send=False), kind=AddressKind.GROUP)
    account = reading.find_account(database, ANNA)
    assert account is not None
    assert account.senders == {INFO}
    address_changes.set_address_enabled(database, ROOT, INFO, enabled=False)
    account = reading.find_account(database, ANNA)
    assert account is not None
    assert account.senders == frozenset()


def test_changes_of_addresses_are_recorded_for_no_account(database: SQLiteDatabase) -> None:
    _identity, before = reading.identity(database)
    add(database, INFO, Target(ANNA))
    address_changes.set_address_enabled(database, ROOT, INFO, enabled=False)
    address_changes.remove_address(database, ROOT, INFO)
    found = [(each.what, each.account, each.facts) for each in reading.changes(database, before)]
    assert found == [
        ("alias added", "", {"address": INFO, "targets": [ANNA]}),
        ("alias disabled", "", {"address": INFO}),
        ("alias removed", "", {"address": INFO, "targets": [ANNA]}),
    ]


def test_a_domain_is_added_changed_and_removed(database: SQLiteDatabase) -> None:
    address_changes.add_domain(database, ROOT, StoredDomain("example.test"))
    address_changes.add_domain(database, ROOT, StoredDomain("example.org", alias_of="example.test"))
    with pytest.raises(Taken):
        address_changes.add_domain(database, ROOT, StoredDomain("example.org"))
    assert addresses.aliases_of_domain(database, "example.test") == ["example.org"]
    changed = address_changes.change_domain(database, ROOT, "example.test", detail="-", enabled=False)
    assert changed == StoredDomain("example.test", None, "-", "{}", enabled=False)
    assert addresses.domains(database) == [StoredDomain("example.org", "example.test"), changed]
    with pytest.raises(Refused, match=r"example\.org stands for example\.test"):
        address_changes.remove_domain(database, ROOT, "example.test")
    address_changes.change_domain(database, ROOT, "example.org", alias_of=None)
    address_changes.remove_domain(database, ROOT, "example.test")
    assert addresses.find_stored_domain(database, "example.test") is None


def test_a_domain_stands_for_another_in_one_step(database: SQLiteDatabase) -> None:
    for name, alias_of in (("a.test", None), ("b.test", "a.test"), ("c.test", None)):
        address_changes.add_domain(database, ROOT, StoredDomain(name, alias_of))
    for name, alias_of, words in (
        ("c.test", "b.test", "b.test itself stands for a.test"),
        ("a.test", "c.test", "b.test stands for a.test"),
        ("c.test", "c.test", "cannot stand for itself"),
        ("c.test", "d.test", "there is no domain d.test"),
    ):
        with pytest.raises(Refused, match=words):
            address_changes.change_domain(database, ROOT, name, alias_of=alias_of)
