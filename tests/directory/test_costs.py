"""What questions about an account take in SQLite's steps, however many aliases it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from mailserver.directory import address_changes, addresses, applying, changing, credentials, delegates, plan, reading
from mailserver.directory.changing import Author
from mailserver.directory.credentials import AppPassword
from mailserver.directory.delegates import StoredDelegate
from mailserver.directory.document import Document
from mailserver.directory.document_parse import Parsed
from mailserver.directory.model import AddressKind, NewAccount, State, StoredAddress, StoredDomain, Target
from mailserver.directory.plan import Surroundings
from mailserver.directory.sqlite import SQLiteDatabase

ROOT = Author("root", 1_790_000_000)
ANNA = "anna@example.test"


def steps(database: SQLiteDatabase, work: Callable[[], object]) -> int:
    """The steps of SQLite's machine."""
    found: list[int] = []

    def note(event: dict[str, dict[str, int]]) -> None:
        found.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

    database._connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)
    try:
        work()
    finally:
        database._connection.trace_v2(0)
    return sum(found)


def made(path: Path, aliases: int) -> SQLiteDatabase:
    """A directory with one account of that many aliases, which is in a group, has an app password, and is a delegate."""
    database = SQLiteDatabase.create(path)
    senders = frozenset(f"alias{number:05}@example.test" for number in range(aliases))
    changing.add_account(database, ROOT, NewAccount(ANNA, senders=senders))
    address_changes.add_domain(database, ROOT, StoredDomain("example.test"))
    group = StoredAddress("all@example.test", AddressKind.GROUP, (Target(ANNA, may_send=False),))
    address_changes.add_address(database, ROOT, group)
    credentials.add_app_password(database, ROOT, AppPassword("id", ANNA, "phone", expires=1_790_000_100), "digest", {})
    delegates.put_delegate(database, ROOT, StoredDelegate(ANNA, "example.test"))
    return database


def renamed(database: SQLiteDatabase, _path: Path) -> SQLiteDatabase:
    changing.rename(database, ROOT, ANNA, "other@example.test")
    changing.rename(database, ROOT, "other@example.test", ANNA)
    return database


def copied(database: SQLiteDatabase, path: Path) -> SQLiteDatabase:
    """Another directory, as its document says."""
    document = applying.load(database)
    other = SQLiteDatabase.create(path.with_suffix(".copy"))
    before = applying.load(other)
    planned = plan.make(before, Parsed(document, (), {}), Surroundings())
    assert planned.faults == ()
    applying.apply(other, ROOT, planned.steps, reading.identity(other))
    database.close()
    return other


def unchanged(database: SQLiteDatabase, _path: Path) -> SQLiteDatabase:
    return database


QUESTIONS: dict[str, Callable[[SQLiteDatabase], object]] = {
    "login": lambda database: reading.find_login_row(database, ANNA),
    "targets": lambda database: addresses.find_targets(database, "all@example.test", 10),
    "address": lambda database: addresses.find_stored(database, "all@example.test"),
    "app password": lambda database: credentials.find_app_password(database, "digest"),
    "app passwords": lambda database: credentials.app_passwords(database, ANNA),
    "expired": lambda database: credentials.expired(database, 0, 1_790_000_200),
    "delegates": lambda database: list(delegates.delegates(database)),
    "may act for": lambda database: delegates.may_act_for(database, ANNA, "x", "example.test", 0),
    "state": lambda database: changing.set_state(database, ROOT, ANNA, State.DISABLED),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS.keys())
@pytest.mark.parametrize("become", [unchanged, renamed, copied])
def test_the_aliases_of_an_account_cost_its_questions_nothing(
    tmp_path: Path, ask: Callable[[SQLiteDatabase], object], become: Callable[[SQLiteDatabase, Path], SQLiteDatabase]
) -> None:
    taken = []
    for number in (1, 1000):
        database = become(made(tmp_path / f"{number}.db", number), tmp_path / f"{number}.db")
        assert ask(database) or ask is QUESTIONS["state"]
        taken.append(steps(database, lambda database=database: ask(database)))  # type: ignore[misc]
        database.close()
    few, many = taken
    assert few > 0
    assert many <= few + 4


def test_a_list_of_aliases_takes_steps_for_each_but_not_for_each_pair(tmp_path: Path) -> None:
    taken = []
    for number in (500, 1000):
        database = made(tmp_path / f"{number}.db", number)
        taken.append(steps(database, lambda database=database: list(addresses.addresses(database, AddressKind.ALIAS))))  # type: ignore[misc]
        database.close()
    assert taken[1] < 2.2 * taken[0]


def test_a_document_of_many_aliases_is_read_in_as_many_steps(tmp_path: Path) -> None:
    taken = []
    for number in (500, 1000):
        database = made(tmp_path / f"{number}.db", number)
        taken.append(steps(database, lambda database=database: applying.load(database)))  # type: ignore[misc]
        database.close()
    assert taken[1] < 2.2 * taken[0]
    assert Document() != applying.load(made(tmp_path / "x.db", 1))
