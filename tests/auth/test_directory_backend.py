"""The back end `directory:PATH`: the contract, changes that others make, and files that cannot be used."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.auth.backends.directory import DirectoryBackend, check_backend, make_backend
from mailserver.auth.backends.directory_lines import entry_of, line_of, new_account
from mailserver.auth.changed_users import SessionsOf
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import Entry, TypicalScram, User
from mailserver.auth.limits import Limits
from mailserver.auth.schemes.passwd import parse_line
from mailserver.auth.schemes.scram_fields import make_fields, replace_fields
from mailserver.directory import changing, credentials, reading
from mailserver.directory.changing import Author
from mailserver.directory.model import AccountLimits, DirectoryDamaged, NewAccount, Password, State
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import AuthUnavailable
from mailserver.types import Quota, Secret
from tests.auth.test_conformance import findings
from tests.fakes import run_now

# doveadm pw -s SSHA -p secret
SSHA = "{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU"
ROOT = Author("root", 1)
ANNA = User("anna@example.test")


class World:
    """A directory, and a back end whose clock stands until it is moved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 100.0
        self.directory = SQLiteDatabase.create(path)
        self.backend = DirectoryBackend(path, DirectHasher(), lambda: self.now)

    def add(self, *names: str) -> None:
        for name in names:
            changing.add_account(self.directory, ROOT, NewAccount(name, Password(SSHA)))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "directory.db")


def keyed(name: str, stored: str, password: bytes, rounds: int = 4096) -> NewAccount:
    fields = make_fields(stored, password, ["SHA-256", "SHA-1"], rounds)
    return new_account(f"{name}:{stored}::::::{replace_fields('', fields)}")[0]


def test_the_contract_is_kept(world: World) -> None:
    changing.add_account(world.directory, ROOT, keyed("anna@example.test", SSHA, b"secret"))
    found = findings(world.backend)
    assert [finding.fault for finding in found if finding.fault] == []
    # No guard is around a directory, and no `domains` were given.
    assert {finding.promise for finding in found if not finding.offered} == {
        "it verifies as many passwords at once as it has places",
        "a right password stays right, as `cache` supposes",
        "it knows the domains that `domains` gives it, and no user in others",
    }


def test_a_change_is_used_by_the_next_question(world: World) -> None:
    assert world.backend.find_user("anna@example.test") is None
    world.add("anna@example.test")
    assert world.backend.find_user("anna@example.test") == ANNA
    assert run_now(world.backend.verify_password(ANNA, Secret(b"secret")))
    changing.set_password(world.directory, ROOT, "anna@example.test", Password("{PLAIN}new"))
    assert not run_now(world.backend.verify_password(ANNA, Secret(b"secret")))
    assert run_now(world.backend.verify_password(ANNA, Secret(b"new")))
    changing.set_state(world.directory, ROOT, "anna@example.test", State.DISABLED)
    assert world.backend.password_hash(ANNA) is None
    assert not world.backend.may_log_in(ANNA)
    assert world.backend.find_user("anna@example.test") == ANNA


def test_limits_and_addresses_are_the_users(world: World) -> None:
    limits = AccountLimits(("192.0.2.0/24",), 1000, 20, 3)
    changing.add_account(
        world.directory,
        ROOT,
        NewAccount("anna@example.test", home="/home/anna", limits=limits, senders=frozenset({"info@example.test"})),
    )
    user = world.backend.find_user("anna@example.test")
    assert user is not None
    assert user.home == "/home/anna"
    entry = Entry(("anna@example.test",), frozenset({"anna@example.test"}))
    assert world.backend.find_address("info@example.test") == entry
    assert (user.limits.networks, user.limits.quota) == (("192.0.2.0/24",), Quota(1000, 20, 3))


def test_users_that_changed_are_named_once(world: World) -> None:
    world.add("anna@example.test", "ben@example.test", "carla@example.test")
    assert world.backend.changed_users() == frozenset()
    assert world.backend.changed_users() == frozenset()
    world.add("david@example.test")
    assert world.backend.changed_users() == frozenset()
    changing.set_password(world.directory, ROOT, "anna@example.test", Password("{PLAIN}new"))
    changing.delete(world.directory, ROOT, "ben@example.test")
    assert world.backend.changed_users() == {
        SessionsOf("anna@example.test", credential=""),
        "ben@example.test",
    }
    assert world.backend.changed_users() == frozenset()
    changing.set_state(world.directory, ROOT, "carla@example.test", State.DISABLED)
    assert world.backend.changed_users() == {"carla@example.test"}
    changing.set_state(world.directory, ROOT, "carla@example.test", State.ACTIVE)
    changing.set_limits(world.directory, ROOT, "carla@example.test", AccountLimits(storage=5))
    assert world.backend.changed_users() == frozenset()
    changing.set_limits(world.directory, ROOT, "carla@example.test", AccountLimits(("192.0.2.1",), storage=5))
    expected = SessionsOf("carla@example.test", limits=Limits(("192.0.2.1",)))
    assert world.backend.changed_users() == {expected}
    changing.rename(world.directory, ROOT, "carla@example.test", "clara@example.test")
    assert world.backend.changed_users() == {"carla@example.test"}


def test_more_changes_than_are_recorded_concern_anybody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("anna@example.test")
    assert world.backend.changed_users() == frozenset()
    monkeypatch.setattr(changing, "KEPT", 2)
    world.add("ben@example.test", "carla@example.test")
    assert world.backend.changed_users() == frozenset()
    world.add("david@example.test", "emma@example.test", "franz@example.test")
    assert world.backend.changed_users() is None
    assert world.backend.changed_users() == frozenset()


def test_a_restored_copy_concerns_anybody(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world.add("anna@example.test")
    world.directory.backup(tmp_path / "copy.db")
    changing.set_state(world.directory, ROOT, "anna@example.test", State.DISABLED)
    assert world.backend.changed_users() == frozenset()
    assert not world.backend.may_log_in(ANNA)
    os.replace(tmp_path / "copy.db", world.path)
    world.now += 1
    assert world.backend.changed_users() is None
    assert world.backend.changed_users() == frozenset()
    assert world.backend.may_log_in(ANNA)
    assert "a restored copy" in caplog.text


def test_another_file_in_its_place_concerns_anybody(world: World, tmp_path: Path) -> None:
    world.add("anna@example.test")
    assert world.backend.changed_users() == frozenset()
    world.directory.backup(tmp_path / "copy.db")
    os.replace(tmp_path / "copy.db", world.path)
    world.now += 1
    assert world.backend.changed_users() is None
    assert world.backend.changed_users() == frozenset()


@pytest.mark.parametrize("damage", ["gone", "replaced", "no rights"])
def test_a_directory_that_cannot_be_read_is_unavailable_until_it_can(
    world: World, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.add("anna@example.test")
    assert world.backend.find_user("anna@example.test") == ANNA
    aside = world.path.with_name("aside.db")
    os.rename(world.path, aside)
    if damage == "replaced":
        world.path.write_text("not a database, and not empty either" * 30)
    elif damage == "no rights":
        world.path.mkdir()
    world.now += 1
    questions: list[Callable[[], object]] = [
        lambda: world.backend.find_user("anna@example.test"),
        lambda: world.backend.find_user("nobody@example.test"),
        lambda: world.backend.password_hash(ANNA),
        lambda: world.backend.scram_keys(ANNA, "SHA-256"),
        lambda: world.backend.may_log_in(ANNA),
        world.backend.typical_hash,
    ]
    for question in questions:
        with pytest.raises(AuthUnavailable):
            question()
    assert world.backend.typical_scram("SHA-256") is None
    assert world.backend.changed_users() == frozenset()
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    assert [problem.warning for problem in check_backend(str(world.path))] == [False]
    if damage == "no rights":
        world.path.rmdir()
    os.rename(aside, world.path)
    world.now += 1
    assert world.backend.find_user("anna@example.test") == ANNA
    assert check_backend(str(world.path)) == []


def test_damage_at_some_rows_is_logged_once_while_it_is_met(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(*_arguments: object) -> None:
        raise DirectoryDamaged("directory.db is damaged: malformed")

    world.add("anna@example.test")
    world.add("ben@example.test")
    assert world.backend.find_user("anna@example.test") == ANNA
    monkeypatch.setattr(credentials, "find_app_password", damaged)
    for seconds, lines in ((0, 1), (1, 1), (59, 1), (60, 2)):
        world.now += seconds
        with pytest.raises(AuthUnavailable):
            world.backend.find_app_password("probe")
        assert world.backend.find_user("ben@example.test") is not None, "others are answered at the same moment"
        assert len(caplog.records) == lines
    assert "whose rows are there" in caplog.text


def test_damage_at_what_is_typical_keeps_nobody_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_arguments: object) -> None:
        raise DirectoryDamaged("directory.db is damaged: malformed")

    changing.add_account(world.directory, ROOT, keyed("anna@example.test", SSHA, b"secret"))
    typical = world.backend.typical_hash()
    assert typical is not None
    monkeypatch.setattr(reading, "sample_of_scram", damaged)
    world.add("ben@example.test")
    world.now += 60
    assert world.backend.find_user("ben@example.test") is not None
    assert world.backend.typical_hash() == typical


@contextlib.contextmanager
def unreachable(directory: Path) -> Iterator[None]:
    """In the block, this process cannot reach the files of a directory."""
    uid = os.geteuid()
    directory.chmod(0)
    if uid == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(uid)
        directory.chmod(0o700)


def test_a_directory_that_cannot_be_reached_is_unavailable_until_it_can(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    world = World(tmp_path / "private" / "directory.db")
    world.add("anna@example.test")
    assert world.backend.find_user("anna@example.test") == ANNA
    world.directory.close()
    with unreachable(tmp_path / "private"):
        for _ in range(3):
            world.now += 1
            with pytest.raises(AuthUnavailable):
                world.backend.find_user("anna@example.test")
            assert world.backend.typical_scram("SHA-256") is None
            assert world.backend.changed_users() == frozenset()
    world.now += 1
    assert world.backend.find_user("anna@example.test") == ANNA


def test_what_is_typical_follows_the_accounts(world: World) -> None:
    assert world.backend.typical_hash() is None
    assert world.backend.typical_scram("SHA-256") is None
    changing.add_account(world.directory, ROOT, keyed("anna@example.test", SSHA, b"secret"))
    world.now += 60
    assert (world.backend.typical_hash() or "").startswith("{SSHA}")
    assert world.backend.typical_scram("SHA-256") == TypicalScram(4096, 16, True)
    world.add("ben@example.test")
    world.now += 60
    assert world.backend.typical_scram("SHA-256") == TypicalScram(4096, 16, False)
    changing.set_state(world.directory, ROOT, "ben@example.test", State.DISABLED)
    world.now += 60
    assert world.backend.typical_scram("SHA-256") == TypicalScram(4096, 16, True)


def test_a_copy_is_restored_beside_open_readers(world: World, tmp_path: Path) -> None:
    world.add("anna@example.test")
    world.directory.backup(tmp_path / "copy.db")
    world.add("ben@example.test")
    assert world.backend.changed_users() == frozenset()
    world.directory.restore(tmp_path / "copy.db", lambda copy: changing.mark_restored(copy, ROOT))
    assert world.backend.find_user("ben@example.test") is None
    assert world.backend.find_user("anna@example.test") == ANNA
    assert world.backend.changed_users() is None
    assert [change.what for change in reading.changes(world.directory, 0)] == ["account added", "directory restored"]
    assert world.directory.problems() == []
    world.add("carla@example.test")
    assert world.backend.find_user("carla@example.test") is not None


def test_no_change_is_lost_where_the_file_is_moved_away_and_back(world: World) -> None:
    world.add("anna@example.test")
    assert world.backend.find_user("anna@example.test") == ANNA
    aside = world.path.with_name("aside.db")
    os.rename(world.path, aside)
    world.now += 1
    with pytest.raises(AuthUnavailable):
        world.backend.find_user("anna@example.test")
    world.directory.close()
    SQLiteDatabase.create(world.path).close()
    world.now += 1
    assert world.backend.find_user("anna@example.test") is None
    os.replace(aside, world.path)
    world.now += 1
    assert world.backend.find_user("anna@example.test") == ANNA


@pytest.mark.parametrize(
    "column",
    [
        "limits = 'nonsense'",
        "limits = '[]'",
        """limits = '{"networks":"x"}'""",
        """limits = '{"storage":"x"}'""",
        "scram_sha256 = 'x,y'",
    ],
)
def test_an_unusable_row_is_that_of_one_user(world: World, column: str, caplog: pytest.LogCaptureFixture) -> None:
    changing.add_account(world.directory, ROOT, keyed("anna@example.test", SSHA, b"secret"))
    changing.add_account(world.directory, ROOT, keyed("ben@example.test", SSHA, b"secret"))
    world.directory.change(
        f"UPDATE account SET {column} WHERE id = (SELECT account FROM target WHERE address = 'ben@example.test')"
    )
    ben = User("ben@example.test")
    for _ in range(3):
        if column.startswith("limits"):
            with pytest.raises(AuthUnavailable):
                world.backend.find_user(ben.name)
        else:
            assert world.backend.scram_keys(ben, "SHA-256") is None
        assert world.backend.find_user("anna@example.test") == ANNA
        assert run_now(world.backend.verify_password(ANNA, Secret(b"secret")))
        assert world.backend.typical_scram("SHA-256") == TypicalScram(4096, 16, True)
    assert "ben@example.test" in caplog.text


def test_more_accounts_without_keys_than_are_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_WITHOUT_KEYS", 3)
    changing.add_account(world.directory, ROOT, keyed("anna@example.test", SSHA, b"secret"))
    for number in range(3):
        name = f"user{number}@example.test"
        world.add(name)
        changing.set_state(world.directory, ROOT, name, State.DISABLED)
        world.now += 60
        assert world.backend.typical_scram("SHA-256") == TypicalScram(4096, 16, number < 2)


def test_a_file_that_others_may_open_is_a_warning(world: World) -> None:
    world.path.chmod(0o640)
    [problem] = check_backend(str(world.path))
    assert (problem.warning, problem.reason) == (True, "others may open this directory: chmod go= it")


def test_an_argument_is_a_path() -> None:
    with pytest.raises(ValueError, match="absolute path"):
        make_backend("users.db", DirectHasher())
    with pytest.raises(ValueError, match="absolute path"):
        check_backend("")


LINE = (
    "anna@example.test:!{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU:::Anna A.:/home/anna::allow_nets=192.0.2.0/24,local "
    "userdb_addresses=a@example.test,info@example.test userdb_quota_storage_size=10240 userdb_quota_message_count=unlimited"
)


def test_a_line_comes_back_as_it_was(world: World) -> None:
    fields = make_fields(SSHA, b"secret", ["SHA-256", "SHA-1"], 4096)
    line = f"{LINE} {' '.join(f'{name}={value}' for name, value in fields.items())}"
    account, left = new_account(line)
    assert left == frozenset()
    changing.add_account(world.directory, ROOT, account)
    [stored] = reading.accounts(world.directory)
    assert line_of(stored) == line
    assert entry_of(stored) == parse_line(line)


def test_keys_of_another_password_are_left_behind(world: World) -> None:
    fields = make_fields("{PLAIN}before", b"before", ["SHA-256"], 4096)
    account, _left = new_account(f"anna@example.test:{SSHA}::::::{replace_fields('', fields)}")
    assert account.password == Password(SSHA)


def test_fields_without_a_place_are_named() -> None:
    _account, left = new_account("anna@example.test:x::::::userdb_mail=maildir:~/x proxy nologin")
    assert left == {"userdb_mail", "proxy"}
