"""The directory: accounts, changes, their record, and what a broken or foreign file does."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import apsw
import pytest

from mailserver.directory import changing, migrations, reading
from mailserver.directory.changing import Author
from mailserver.directory.model import (
    AccountLimits,
    DirectoryUnavailable,
    Missing,
    NewAccount,
    Password,
    Refused,
    State,
    StoredKeys,
    Taken,
)
from mailserver.directory.sqlite import SQLiteDatabase

ROOT = Author("root", 1_790_000_000)
KEYS = {"SHA-256": StoredKeys("4096,c2FsdA==", "U3RvcmVk,U2VydmVy")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "directory.db"


@pytest.fixture
def database(path: Path) -> SQLiteDatabase:
    return SQLiteDatabase.create(path)


def add(database: SQLiteDatabase, *names: str) -> None:
    for name in names:
        changing.add_account(database, ROOT, NewAccount(name, Password("{PLAIN}x", KEYS)))


def test_what_is_added_is_found(database: SQLiteDatabase) -> None:
    limits = AccountLimits(("192.0.2.0/24", "local"), storage=10_000, messages=5)
    new = NewAccount(
        "anna@example.test",
        Password("{PLAIN}x", KEYS),
        "/home/anna",
        "Anna A.",
        State.DISABLED,
        limits,
        frozenset({"info@example.test"}),
    )
    identifier = changing.add_account(database, ROOT, new)
    account = reading.find_account(database, "anna@example.test")
    assert account is not None
    assert (account.id, account.name, account.home, account.full_name) == (
        identifier,
        new.name,
        new.home,
        new.full_name,
    )
    assert (account.state, account.limits, account.senders) == (State.DISABLED, limits, new.senders)
    assert account.password == new.password
    assert (account.serial, account.created) == (1, ROOT.at)
    assert reading.find_account(database, "info@example.test") is None
    assert reading.find_account(database, "ANNA@example.test") is None


def test_a_name_is_given_once(database: SQLiteDatabase) -> None:
    changing.add_account(database, ROOT, NewAccount("anna@example.test", senders=frozenset({"info@example.test"})))
    with pytest.raises(Taken, match="is a user already"):
        add(database, "anna@example.test")
    with pytest.raises(Taken, match="is an alias already"):
        add(database, "info@example.test")
    with pytest.raises(Taken, match="is a user already"):
        changing.add_account(database, ROOT, NewAccount("ben@example.test", senders=frozenset({"anna@example.test"})))
    assert [account.name for account in reading.accounts(database)] == ["anna@example.test"]
    assert reading.identity(database)[1] == 1


def test_each_change_is_recorded_with_its_author(database: SQLiteDatabase) -> None:
    add(database, "anna@example.test")
    other = Author("emma", ROOT.at + 5)
    changing.set_password(database, other, "anna@example.test", Password("{PLAIN}y"))
    changing.set_state(database, other, "anna@example.test", State.DISABLED)
    changing.set_limits(database, other, "anna@example.test", AccountLimits(storage=7))
    changing.rename(database, other, "anna@example.test", "anne@example.test")
    account = reading.find_account(database, "anne@example.test")
    assert account is not None
    assert account.password == Password("{PLAIN}y")
    assert (account.state, account.limits.storage, account.serial) == (State.DISABLED, 7, 5)
    changing.delete(database, other, "anne@example.test")
    assert list(reading.accounts(database)) == []
    rows = list(reading.changes(database, 0))
    assert [(row.serial, row.who, row.what, row.account) for row in rows] == [
        (1, "root", "account added", "anna@example.test"),
        (2, "emma", "password changed", "anna@example.test"),
        (3, "emma", "account disabled", "anna@example.test"),
        (4, "emma", "limits changed", "anna@example.test"),
        (5, "emma", "account renamed", "anna@example.test"),
        (6, "emma", "account deleted", "anne@example.test"),
    ]
    assert rows[3].facts == {"before": {}, "after": {"storage": 7}}
    assert rows[4].facts == {"new": "anne@example.test"}
    assert [row.serial for row in reading.changes(database, 4)] == [5, 6]


def test_another_password_brings_its_own_keys(database: SQLiteDatabase) -> None:
    add(database, "anna@example.test")
    keys = {"SHA-1": StoredKeys("5000,c2FsdHk=", "YQ==,Yg==")}
    changing.set_password(database, ROOT, "anna@example.test", Password("{PLAIN}y", keys))
    account = reading.find_account(database, "anna@example.test")
    assert account is not None
    assert account.password == Password("{PLAIN}y", keys)


def test_the_rows_of_one_change_stay_together(database: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BATCH", 3)
    add(database, "anna@example.test", "ben@example.test")
    for place in (1, 2):
        database.change(
            "INSERT INTO change (serial, place, at, who, what, account, facts) VALUES (2, :place, 1, 'x', 'y', '', '{}')",
            place=place,
        )
    add(database, "carla@example.test")
    assert [row.serial for row in reading.changes(database, 0)] == [1, 2, 2, 2, 3]


def test_a_deleted_account_leaves_nothing(database: SQLiteDatabase) -> None:
    changing.add_account(database, ROOT, NewAccount("anna@example.test", senders=frozenset({"info@example.test"})))
    changing.delete(database, ROOT, "anna@example.test")
    for table in ("account", "credential", "target"):
        assert database.rows(f"SELECT count(*) FROM {table}") == [(0,)]


def test_the_record_is_bounded(database: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "KEPT", 3)
    add(database, *(f"user{number}@example.test" for number in range(10)))
    assert [row.serial for row in reading.changes(database, 0)] == [8, 9, 10]
    assert reading.oldest_change(database) == 8


def test_changes_of_accounts_that_do_not_exist(database: SQLiteDatabase) -> None:
    for change in (
        lambda: changing.set_password(database, ROOT, "no@example.test", Password("")),
        lambda: changing.set_state(database, ROOT, "no@example.test", State.ACTIVE),
        lambda: changing.set_limits(database, ROOT, "no@example.test", AccountLimits()),
        lambda: changing.rename(database, ROOT, "no@example.test", "new@example.test"),
        lambda: changing.delete(database, ROOT, "no@example.test"),
    ):
        with pytest.raises(Missing):
            change()
    assert reading.identity(database)[1] == 0


def test_an_import_is_whole_or_nothing(database: SQLiteDatabase) -> None:
    add(database, "user7@example.test")
    new = [NewAccount(f"user{number}@example.test") for number in range(10)]
    with pytest.raises(Taken):
        changing.import_accounts(database, ROOT, new)
    assert reading.count(database) == 1
    changing.import_accounts(database, ROOT, new[8:])
    assert reading.count(database) == 3
    assert [row.what for row in reading.changes(database, 1)] == ["accounts imported"]


def test_the_list_is_read_in_batches(database: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BATCH", 3)
    names = [f"user{number}@example.test" for number in range(8)]
    add(database, *names)
    assert [account.name for account in reading.accounts(database)] == names
    assert [row.account for row in reading.changes(database, 0)] == names


def test_a_state_that_stands_is_no_change(database: SQLiteDatabase) -> None:
    add(database, "anna@example.test")
    changing.set_state(database, ROOT, "anna@example.test", State.ACTIVE)
    assert reading.identity(database)[1] == 1
    for _ in range(2):
        changing.set_state(database, ROOT, "anna@example.test", State.DISABLED)
    assert [row.what for row in reading.changes(database, 0)] == ["account added", "account disabled"]


def test_an_open_reader_sees_the_changes_of_others(path: Path, database: SQLiteDatabase) -> None:
    reader = SQLiteDatabase.open(path)
    before = reader.state()
    assert reader.state() == before
    add(database, "anna@example.test")
    assert reader.state() != before
    assert reading.find_account(reader, "anna@example.test") is not None


def test_a_reader_does_not_wait_for_a_writer_and_a_second_writer_is_refused(
    path: Path, database: SQLiteDatabase
) -> None:
    add(database, "anna@example.test")
    reader = SQLiteDatabase.open(path)
    with database.writing():
        database.change("UPDATE account SET home = '/elsewhere'")
        account = reading.find_account(reader, "anna@example.test")
        assert account is not None
        assert account.home == ""
        with pytest.raises(DirectoryUnavailable, match="is locked by another program"):
            add(reader, "ben@example.test")
    account = reading.find_account(reader, "anna@example.test")
    assert account is not None
    assert account.home == "/elsewhere"


def test_only_the_owner_can_open_the_files(path: Path, database: SQLiteDatabase) -> None:
    add(database, "anna@example.test")
    for name in os.listdir(path.parent):
        assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600, name


def test_create_takes_no_existing_file(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(Refused, match="exists already"):
        SQLiteDatabase.create(path)
    assert path.read_text() == "precious"


def test_files_that_are_no_directory(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DirectoryUnavailable, match="does not exist"):
        SQLiteDatabase.open(path)
    assert not path.exists()
    path.write_bytes(b"no database at all, but long enough to have a header" * 100)
    with pytest.raises(DirectoryUnavailable, match="damaged"):
        SQLiteDatabase.open(path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE users (name)")
    with pytest.raises(Refused, match="no directory of this server"):
        SQLiteDatabase.open(other)
    link = tmp_path / "link.db"
    link.symlink_to(SQLiteDatabase.create(tmp_path / "real.db").path)
    with pytest.raises(DirectoryUnavailable):
        SQLiteDatabase.open(link)


def test_damage_is_unavailable_and_found(path: Path, database: SQLiteDatabase) -> None:
    add(database, *(f"user{number}@example.test" for number in range(300)))
    database.close()
    with apsw.Connection(str(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    octets = bytearray(path.read_bytes())
    for page in range(1, len(octets) // 4096):
        octets[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    path.write_bytes(octets)
    with pytest.raises(DirectoryUnavailable, match="damaged"):
        reading.find_account(SQLiteDatabase.open(path), "user7@example.test")


def test_a_file_moved_over_the_directory_is_noticed(path: Path, database: SQLiteDatabase, tmp_path: Path) -> None:
    add(database, "anna@example.test")
    assert not database.is_replaced()
    copy = tmp_path / "copy.db"
    database.backup(copy)
    os.replace(copy, path)
    assert database.is_replaced()


def test_the_wal_of_a_replaced_file_is_not_that_of_the_new_one(path: Path, database: SQLiteDatabase) -> None:
    add(database, "anna@example.test")
    reader = SQLiteDatabase.open(path)
    aside = path.with_name("aside.db")
    # A reader within a transaction keeps the WAL from being emptied.
    reader.rows("BEGIN")
    assert reading.count(reader) == 1
    add(database, "ben@example.test")
    os.rename(path, aside)
    path.write_bytes(b"")
    database.close()
    assert not Path(f"{path}-wal").exists()


def test_closing_a_replaced_file_leaves_the_wal_of_the_new_one(path: Path, database: SQLiteDatabase) -> None:
    add(database, "anna@example.test")
    for suffix in ("", "-wal", "-shm"):
        os.rename(f"{path}{suffix}", f"{path}.aside{suffix}")
    new = SQLiteDatabase.create(path)
    add(new, "ben@example.test")
    database.close()
    assert Path(f"{path}-wal").stat().st_size > 0
    other = SQLiteDatabase.open(path)
    assert [account.name for account in reading.accounts(other)] == ["ben@example.test"]


def test_a_copy_that_was_moved_here_has_readers_that_do_not_wait(
    path: Path, database: SQLiteDatabase, tmp_path: Path
) -> None:
    add(database, "anna@example.test")
    copy = tmp_path / "copy.db"
    database.backup(copy)
    database.close()
    os.replace(copy, path)
    writer, reader = SQLiteDatabase.open(path), SQLiteDatabase.open(path)
    with writer.writing():
        writer.change("UPDATE account SET home = '/other'")
        assert reading.count(reader) == 1
    add(reader, "ben@example.test")
    assert reading.count(writer) == 2


def test_the_wal_of_a_file_is_not_applied_to_a_copy_that_was_moved_over_it(
    path: Path, database: SQLiteDatabase, tmp_path: Path
) -> None:
    """A command may be there before the server has noticed."""
    add(database, "anna@example.test")
    database.backup(tmp_path / "copy.db")
    add(database, "ben@example.test")
    os.replace(tmp_path / "copy.db", path)
    assert Path(f"{path}-wal").stat().st_size > 0
    first = SQLiteDatabase.open(path)
    assert [account.name for account in reading.accounts(first)] == ["anna@example.test"]
    add(first, "carla@example.test")
    assert reading.count(database) == 2
    database.close()
    for reader in (first, SQLiteDatabase.open(path)):
        assert [account.name for account in reading.accounts(reader)] == ["anna@example.test", "carla@example.test"]
        assert reader.problems() == []


def test_a_backup_is_of_one_moment_and_opens_as_a_directory(
    path: Path, database: SQLiteDatabase, tmp_path: Path
) -> None:
    add(database, "anna@example.test")
    copy = tmp_path / "copy.db"
    database.backup(copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    add(database, "ben@example.test")
    with pytest.raises(Refused, match="exists already"):
        database.backup(copy)
    restored = SQLiteDatabase.open(copy)
    assert reading.identity(restored) == (reading.identity(database)[0], 1)
    assert [account.name for account in reading.accounts(restored)] == ["anna@example.test"]
    assert restored.problems() == []


def test_a_directory_of_a_newer_release_is_refused(path: Path, database: SQLiteDatabase) -> None:
    database.change("UPDATE meta SET version = 9, oldest = 1")
    # Tables that only have more than ours are used.
    SQLiteDatabase.open(path).close()
    database.change("UPDATE meta SET oldest = 9")
    with pytest.raises(Refused, match="use a newer one"):
        SQLiteDatabase.open(path)


@pytest.mark.parametrize("number", range(1, migrations.NEWEST + 1))
def test_a_migration_that_is_interrupted_leaves_the_tables_as_they_were(number: int, tmp_path: Path) -> None:
    for broken in range(len(migrations.script(number)) + 2):
        path = tmp_path / f"{broken}.db"
        connection = apsw.Connection(str(path))
        database = Interrupted(path, connection)
        database.left = broken
        with pytest.raises(DirectoryUnavailable, match="pulled out"):
            migrations.create(database)
        assert connection.execute("SELECT count(*) FROM sqlite_master").get == 0
        database.left = 1000
        migrations.create(database)
        add(database, "anna@example.test")


@pytest.mark.parametrize("version", range(1, migrations.NEWEST))
def test_an_upgrade_that_is_interrupted_leaves_the_older_directory(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = sum(len(migrations.script(number)) for number in range(version + 1, migrations.NEWEST + 1))
    for broken in range(steps + 1):
        path = tmp_path / f"{broken}.db"
        with monkeypatch.context() as older:
            older.setattr(migrations, "NEWEST", version)
            SQLiteDatabase.create(path).close()
        connection = apsw.Connection(str(path))
        connection.execute("INSERT INTO domain VALUES ('example.test', NULL, '+', '{}', 1)")
        tables = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        rows = connection.execute("SELECT * FROM meta").fetchall()
        database = Interrupted(path, connection)
        database.left = broken
        with pytest.raises(DirectoryUnavailable, match="pulled out"):
            migrations.upgrade(database)
        assert connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == tables
        assert connection.execute("SELECT * FROM meta").fetchall() == rows
        database.left = 1000
        assert migrations.upgrade(database) == migrations.NEWEST - version
        assert migrations.version_of(database) == migrations.NEWEST
        assert connection.execute("SELECT name FROM domain").get == "example.test"
        add(database, "anna@example.test")


class Interrupted(SQLiteDatabase):
    left = 0
    """Statements until the interruption."""

    def change(self, statement: str, **values: str | int | None) -> int:
        if not self.left:
            raise DirectoryUnavailable("pulled out")
        self.left -= 1
        return super().change(statement, **values)


def test_the_disk_is_full(path: Path, database: SQLiteDatabase) -> None:
    add(database, "anna@example.test")
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DirectoryUnavailable, match="full"):
        add(database, *(f"user{number}@example.test" for number in range(5000)))
    reader = SQLiteDatabase.open(path)
    assert reading.find_account(reader, "anna@example.test") is not None
    assert reader.problems() == []
    count = reading.count(reader)
    assert reading.identity(reader)[1] == count


def test_statements_leave_the_wal_bounded(path: Path, database: SQLiteDatabase) -> None:
    """A statement that is not read to its end keeps the WAL from starting anew."""
    add(database, "anna@example.test")
    reader = SQLiteDatabase.open(path)
    for number in range(600):
        changing.set_limits(database, ROOT, "anna@example.test", AccountLimits(storage=number + 1))
        if number % 10 == 0:
            reading.find_account(reader, "anna@example.test")
            list(reading.changes(reader, number))
    assert (path.parent / "directory.db-wal").stat().st_size < 6 << 20


def test_a_killed_writer_costs_nothing(path: Path, database: SQLiteDatabase) -> None:
    add(database, "anna@example.test")
    child = os.fork()
    if not child:
        mine = SQLiteDatabase.open(path)
        with mine.writing():
            mine.change("UPDATE account SET home = '/lost'")
            os._exit(1)
    os.waitpid(child, 0)
    add(database, "ben@example.test")
    account = reading.find_account(database, "anna@example.test")
    assert account is not None
    assert account.home == ""
    assert database.problems() == []


def test_a_restored_copy_has_the_same_identity_and_a_lower_serial(
    path: Path, database: SQLiteDatabase, tmp_path: Path
) -> None:
    add(database, "anna@example.test")
    copy = tmp_path / "copy.db"
    database.backup(copy)
    add(database, "ben@example.test")
    identity, serial = reading.identity(database)
    database.close()
    shutil.copyfile(copy, path)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    assert reading.identity(SQLiteDatabase.open(path)) == (identity, serial - 1)
