"""`mailserver directory` and `mailserver user` on a directory."""

from __future__ import annotations

import json
import os
import pwd
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailserver.auth.schemes import schemes
from mailserver.cli import main, user
from mailserver.cli.account_stores import author
from mailserver.directory import addresses, credentials, migrations, reading
from mailserver.directory.model import Account, AccountLimits, State
from mailserver.directory.sqlite import SQLiteDatabase

# doveadm pw -s SSHA -p secret
SSHA = "{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU"
USERS = f"# staff\nanna@example.test:{SSHA}:::Anna A.:/home/anna::userdb_quota_storage_size=10240\nben@example.test:!{SSHA}\n"


class Site:
    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.path = directory / "private" / "directory.db"

    def directory(self, *words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(main, ["directory", *words, "--directory", str(self.path)], input=stdin)

    def user(self, *words: str, stdin: str = "geheim\n") -> Result:
        return CliRunner().invoke(main, ["user", *words, "--directory", str(self.path)], input=stdin)

    def domain(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["domain", *words, "--directory", str(self.path)])

    def account(self, name: str) -> Account | None:
        database = SQLiteDatabase.open(self.path)
        try:
            return reading.find_account(database, name)
        finally:
            database.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    assert made.directory("create").exit_code == 0
    return made


def ok(done: Result) -> str:
    assert done.exit_code == 0, done.output
    return done.output


def refused(done: Result) -> str:
    assert done.exit_code == 1, done.output
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit)
    return done.output


def test_create_makes_a_private_file_once(site: Site) -> None:
    assert stat.S_IMODE(site.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o600
    assert "exists already" in refused(site.directory("create"))


def test_users_are_added_changed_and_deleted(site: Site) -> None:
    assert "added anna@example.test" in ok(site.user("add", "Anna@Example.test"))
    account = site.account("anna@example.test")
    assert account is not None
    assert schemes.verify(account.password.secret, b"geheim")
    assert set(account.password.scram) == {"SHA-256"}
    assert "has a user 'anna@example.test' already" in refused(site.user("add", "anna@example.test"))
    before = account.password
    ok(site.user("password", "anna@example.test", stdin="anders\n"))
    account = site.account("anna@example.test")
    assert account is not None
    assert account.password != before
    assert schemes.verify(account.password.secret, b"anders")
    ok(site.user("disable", "anna@example.test"))
    rows = json.loads(ok(site.user("list", "--json")))
    assert rows == [
        {
            "user": "anna@example.test",
            "password": "ARGON2ID m=65536,t=3,p=1 + SCRAM-SHA-256",
            "enabled": False,
            "kept_in": str(site.path),
        }
    ]
    ok(site.user("enable", "anna@example.test"))
    ok(site.user("rename", "anna@example.test", "anne@example.test"))
    assert site.account("anna@example.test") is None
    ok(site.user("delete", "anne@example.test", "--yes"))
    assert json.loads(ok(site.user("list", "--json"))) == []
    assert "has no user 'anne@example.test'" in refused(site.user("disable", "anne@example.test"))
    changes = json.loads(ok(site.directory("changes", "--json")))
    assert [(row["what"], row["user"]) for row in changes] == [
        ("account added", "anna@example.test"),
        ("password changed", "anna@example.test"),
        ("account disabled", "anna@example.test"),
        ("account enabled", "anna@example.test"),
        ("account renamed", "anna@example.test"),
        ("account deleted", "anne@example.test"),
    ]
    assert "anne@example.test" in ok(site.directory("changes", "--since", "5"))
    assert "account renamed to anne@example.test  anna@example.test" in ok(site.directory("changes"))


def test_a_users_file_is_imported_and_exported(site: Site) -> None:
    source = site.dir / "users"
    source.write_text(USERS)
    assert "2 accounts would be imported" in ok(site.directory("import", str(source), "--dry-run"))
    assert site.account("anna@example.test") is None
    assert "imported 2 accounts" in ok(site.directory("import", str(source)))
    account = site.account("anna@example.test")
    assert account is not None
    assert (account.password.secret, account.home, account.full_name) == (SSHA, "/home/anna", "Anna A.")
    assert account.limits.storage == 10240
    ben = site.account("ben@example.test")
    assert ben is not None
    assert ben.state is State.DISABLED
    exported = ok(site.directory("export", "--passwd"))
    again = Site(site.dir / "again")
    ok(again.directory("create"))
    (site.dir / "exported").write_text(exported)
    ok(again.directory("import", str(site.dir / "exported")))
    assert ok(again.directory("export", "--passwd")) == exported
    output = refused(site.directory("import", str(source)))
    assert "nothing was imported: anna@example.test exists" in output


def test_an_import_with_faulty_lines_changes_nothing(site: Site) -> None:
    source = site.dir / "users"
    source.write_text(USERS + "no line at all\nanna@example.test:x\na b:x\n" + "bad\n" * 30)
    output = refused(site.directory("import", str(source)))
    assert "line 4: expected user:{SCHEME}hash" in output
    assert "line 5: anna@example.test is in the file twice" in output
    assert "line 6: a user name must not contain a space" in output
    assert "and 13 more lines" in output
    assert site.account("ben@example.test") is None


def test_fields_without_a_place_are_named(site: Site) -> None:
    source = site.dir / "users"
    source.write_text("anna@example.test:x::::::proxy host=192.0.2.1\nben@example.test:x::::::proxy\n")
    output = ok(site.directory("import", str(source)))
    assert "the extra field proxy of 2 accounts has no place" in output
    assert "the extra field host of 1 accounts has no place" in output


def test_stored_passwords_that_cannot_be_used_are_named(site: Site) -> None:
    source = site.dir / "users"
    lines = [f"user{number}@example.test:{{SHA512-CRYPT}}$6$short\n" for number in range(21)]
    source.write_text(
        f"anna@example.test:{{CRAM-MD5}}9186\nben@example.test:{SSHA}\ncarl@example.test:\n" + "".join(lines)
    )
    for words in (("import", str(source), "--dry-run"), ("import", str(source)), ("check",)):
        said = ok(site.directory(*words))
        assert "the stored password of anna@example.test cannot be used: " in said
        assert "and 2 more passwords" in said
        assert "ben@" not in said
        assert "carl@" not in said
    data = json.loads(ok(site.directory("check", "--json")))
    assert [each["account"] for each in data["unusable_passwords"]][:2] == ["anna@example.test", "user0@example.test"]


def test_check_backup_restore_and_upgrade(site: Site) -> None:
    ok(site.user("add", "anna@example.test"))
    copy = site.dir / "copy.db"
    ok(site.directory("backup", str(copy)))
    assert "exists already" in refused(site.directory("backup", str(copy)))
    ok(site.user("add", "ben@example.test"))
    assert f"2 accounts, version {migrations.NEWEST}, no damage" in ok(site.directory("check"))
    assert site.directory("restore", str(copy), stdin="n\n").exit_code == 1
    assert site.account("ben@example.test") is not None
    ok(site.directory("restore", str(copy), "--yes"))
    assert site.account("ben@example.test") is None
    assert "is up to date" in ok(site.directory("upgrade"))


def test_damage_is_reported(site: Site) -> None:
    for number in range(30):
        (site.dir / "users").write_text(f"user{number}@example.test:x\n")
        ok(site.directory("import", str(site.dir / "users")))
    octets = bytearray(site.path.read_bytes())
    octets[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    site.path.write_bytes(octets)
    assert "damaged" in refused(site.directory("check"))


def test_a_directory_that_is_absent_or_no_directory(site: Site, tmp_path: Path) -> None:
    site.path = tmp_path / "none.db"
    assert "does not exist" in refused(site.directory("check"))
    assert "does not exist" in refused(site.user("list"))
    site.path.write_text("x" * 5000)
    assert "damaged" in refused(site.user("add", "anna@example.test"))
    assert os.listdir(tmp_path / "private") == ["directory.db"]


def test_no_password_is_made_where_the_directory_is_absent(site: Site, tmp_path: Path) -> None:
    site.path = tmp_path / "none.db"
    output = refused(site.user("add", "anna@example.test", "--generate"))
    assert output == f"Error: {site.path} does not exist, or is no file; `mailserver directory create` makes one\n"


def configured(tmp_path: Path, backends: list[str], user: str = "root") -> list[str]:
    path = tmp_path / "mailserver.toml"
    path.write_text(
        f'[server]\nhostname = "mail.example.test"\nuser = "{user}"\n[auth]\nbackends = {json.dumps(backends)}\n'
        f'[mail]\nroot = "{tmp_path}/mail"\n[[listener]]\nprotocol = "lmtp"\nport = 10024\n[[domain]]\nname = "example.test"\nhosts = ["mail.example.test"]\n'
    )
    return ["--config", str(path)]


def test_a_directory_is_found_behind_a_users_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(USERS)
    user = pwd.getpwuid(os.getuid()).pw_name
    config = configured(tmp_path, [f"file:{tmp_path}/users", f"directory:{site.path}"], user)
    assert "0 accounts" in ok(CliRunner().invoke(main, ["directory", "check", *config]))
    config = configured(tmp_path, [f"file:{tmp_path}/users"], user)
    assert "has no `directory:PATH`" in refused(CliRunner().invoke(main, ["directory", "check", *config]))


@pytest.mark.parametrize("words", [["directory", "check"], ["directory", "create"], ["user", "list"]])
def test_an_argument_that_is_no_path(words: list[str], tmp_path: Path) -> None:
    for argument in ("directory", "directory:"):
        run = CliRunner().invoke(main, [*words, *configured(tmp_path, [argument])])
        assert "Error: [auth] backends: directory: needs the absolute path of a file" in refused(run)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_create_names_the_user_that_may_not_write(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    for path in (tmp_path / "own" / "directory.db", tmp_path / "own" / "accounts" / "directory.db"):
        run = CliRunner().invoke(main, ["directory", "create", *configured(tmp_path, [f"directory:{path}"], "nobody")])
        output = refused(run)
        assert f"nobody, the service's user, may not write in {path.parent}" in output
        assert "`install -d -o nobody -m 700 DIRECTORY`" in output
    assert os.listdir(tmp_path / "own") == []


@pytest.mark.parametrize(("uid", "sudo", "who"), [(0, "anna", "anna"), (0, "", "root"), (65534, "anna", "nobody")])
def test_the_author_of_a_change(monkeypatch: pytest.MonkeyPatch, uid: int, sudo: str, who: str) -> None:
    """With sudo the one who called it; nobody else can give another name."""
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setenv("SUDO_USER", sudo)
    assert author().who == who


def test_limits_are_set_shown_and_removed(site: Site) -> None:
    ok(site.user("add", "anna@example.test"))
    ok(site.user("limit", "anna@example.test", "--network", "192.0.2.0/24", "--network", "local", "--storage", "10k"))
    ok(site.user("limit", "anna@example.test", "--messages", "unlimited", "--mailboxes", "7"))
    account = site.account("anna@example.test")
    assert account is not None
    assert account.limits == AccountLimits(("192.0.2.0/24", "local"), 10240, 2**63 - 1, 7)
    shown = json.loads(ok(site.user("show", "anna@example.test", "--json")))
    assert shown["networks"] == ["192.0.2.0/24", "local"]
    assert (shown["storage_limit"], shown["mailboxes_limit"], shown["enabled"]) == (10240, 7, True)
    assert shown["messages_limit"] == "unlimited"
    lines = ok(site.user("show", "anna@example.test")).splitlines()
    assert "networks:           192.0.2.0/24, local" in lines
    assert "messages limit:     unlimited" in lines
    ok(site.user("limit", "anna@example.test", "--network", "none", "--storage", "none"))
    account = site.account("anna@example.test")
    assert account is not None
    assert account.limits == AccountLimits(None, None, 2**63 - 1, 7)
    for wrong in (["--network", "192.0.2.0/33"], ["--storage", "much"], ["--messages", "10k"], ["--network", ""], []):
        assert site.user("limit", "anna@example.test", *wrong).exit_code == 2
    assert "has no user" in refused(site.user("limit", "ben@example.test", "--storage", "1G"))
    assert site.account("anna@example.test") == account


@pytest.fixture
def other_administrator(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What another administrator does just before the next transaction of a command."""
    steps: list[Callable[[], object]] = []
    writing = SQLiteDatabase.writing

    def after_the_other(database: SQLiteDatabase) -> AbstractContextManager[None]:
        while steps:
            steps.pop()()
        return writing(database)

    monkeypatch.setattr(SQLiteDatabase, "writing", after_the_other)
    return steps


def test_limits_that_two_administrators_set_at_once_hold_both(
    site: Site, other_administrator: list[Callable[[], object]]
) -> None:
    ok(site.user("add", "anna@example.test"))
    other_administrator.append(lambda: ok(site.user("limit", "anna@example.test", "--network", "192.0.2.0/24")))
    ok(site.user("limit", "anna@example.test", "--protocol", "imap"))
    account = site.account("anna@example.test")
    assert account is not None
    assert account.limits == AccountLimits(("192.0.2.0/24",), protocols=("imap",))


def test_limits_that_two_administrators_set_at_once_for_a_domain_hold_both(
    site: Site, other_administrator: list[Callable[[], object]]
) -> None:
    ok(site.user("add", "anna@example.test"))
    ok(site.domain("enable", "example.test"))
    other_administrator.append(lambda: ok(site.domain("limit", "example.test", "--network", "192.0.2.0/24")))
    ok(site.domain("limit", "example.test", "--protocol", "imap"))
    database = SQLiteDatabase.open(site.path)
    stored = addresses.find_stored_domain(database, "example.test")
    database.close()
    assert stored is not None
    assert AccountLimits.parse(stored.limits) == AccountLimits(("192.0.2.0/24",), protocols=("imap",))


def test_all_limits_of_a_command_are_one_change(site: Site) -> None:
    ok(site.user("add", "anna@example.test"))
    ok(site.user("limit", "anna@example.test", "--network", "192.0.2.0/24", "--apps-only"))
    account = site.account("anna@example.test")
    assert account is not None
    assert (account.limits.networks, account.password.protocols) == (("192.0.2.0/24",), frozenset())
    database = SQLiteDatabase.open(site.path)
    assert len({change.serial for change in reading.changes(database, 1)}) == 1
    database.close()


def test_a_password_that_would_take_the_keys_of_an_app_password_made_meanwhile(
    site: Site, other_administrator: list[Callable[[], object]]
) -> None:
    ok(site.user("add", "anna@example.test", "--no-scram"))
    ok(site.user("app-password", "add", "anna@example.test", "--label", "tablet", "--no-scram"))
    other_administrator.append(lambda: ok(site.user("app-password", "add", "anna@example.test", "--label", "phone")))
    before = site.account("anna@example.test")
    assert "were changed meanwhile: try again" in refused(site.user("password", "anna@example.test"))
    after = site.account("anna@example.test")
    assert before is not None
    assert after is not None
    assert after.password == before.password
    ok(site.user("password", "anna@example.test"))
    database = SQLiteDatabase.open(site.path)
    found = credentials.app_passwords(database, "anna@example.test")
    database.close()
    assert {each.label: bool(each.scram) for each in found} == {"phone": True, "tablet": False}


def test_keys_of_app_passwords_stay_where_another_hash_gets_a_new_salt(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(site.user("add", "anna@example.test"))
    ok(site.user("app-password", "add", "anna@example.test", "--label", "phone"))
    store = user._store
    monkeypatch.setattr(user, "_store", lambda *given: store(*given[:2], ("SHA-256", "SHA-1"), *given[3:]))
    for _ in range(2):
        # The second time SHA-1 has a salt that no app password uses.
        ok(site.user("password", "anna@example.test"))
    account = site.account("anna@example.test")
    assert account is not None
    database = SQLiteDatabase.open(site.path)
    [found] = credentials.app_passwords(database, "anna@example.test")
    database.close()
    assert found.scram["SHA-256"].parameters == account.password.scram["SHA-256"].parameters
    assert set(account.password.scram) == {"SHA-256", "SHA-1"}


def test_limits_of_a_user_that_is_deleted_meanwhile(
    site: Site, other_administrator: list[Callable[[], object]]
) -> None:
    ok(site.user("add", "anna@example.test"))
    other_administrator.append(lambda: ok(site.user("delete", "anna@example.test", "--yes")))
    assert "has no user" in refused(site.user("limit", "anna@example.test", "--protocol", "imap"))


def test_limits_of_a_users_file_are_in_its_lines(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(USERS)
    run = CliRunner().invoke(
        main, ["user", "limit", "anna@example.test", "--storage", "1G", "--users-file", str(users)]
    )
    assert "userdb_quota_... of its line" in refused(run)
    run = CliRunner().invoke(main, ["user", "show", "ben@example.test", "--json", "--users-file", str(users)])
    assert json.loads(ok(run))["enabled"] is False
    assert users.read_text() == USERS
