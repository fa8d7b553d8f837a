"""`mailserver directory export`, `plan` and `apply` beside each other and beside other administrators."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from mailserver.auth.app_passwords import probe_of
from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.conformance import DirectHasher
from mailserver.cli import main
from mailserver.directory import address_changes, changing, migrations, reading
from mailserver.directory.changing import Author
from mailserver.directory.model import Account, NewAccount, Password, Target
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.sasl.scram_keys import derive
from tests.cli.test_aliases import ALL, ANNA, BEN, INFO, Site
from tests.command import run_process

ROOT = Author("root", 1_790_000_000)
ZOE = "zoe@example.org"
NEW = f'[[user]]\nname = "{ZOE}"\n[[alias]]\naddress = "{INFO}"\ntargets = ["{ZOE}", "{ANNA}"]\n'


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def written(site: Site, text: str) -> str:
    file = site.file.parent / "wanted.toml"
    file.write_text(text)
    return str(file)


def account(site: Site, name: str) -> Account | None:
    database = SQLiteDatabase.open(site.path)
    try:
        return reading.find_account(database, name)
    finally:
        database.close()


def test_what_is_planned_is_applied_and_then_nothing_is_left(site: Site) -> None:
    file = written(site, NEW)
    planned = site.ok("directory", "plan", file)
    rows = [line.split() for line in planned.splitlines() if line.startswith("add")]
    assert [row[:3] for row in rows] == [["add", "user", ZOE], ["add", "alias", INFO]]
    assert f"leads to {ZOE}, {ANNA}" in planned
    assert site.stored(INFO) is None
    at = planned.split("--at ")[1].split("`")[0]
    applied = site.ok("directory", "apply", file, "--at", at, "--yes")
    assert "applied 2 changes (add 1 alias, add 1 user)" in applied
    assert account(site, ZOE) is not None
    assert [each.name for each in site.stored(INFO).targets] == [ZOE, ANNA]  # type: ignore[union-attr]
    assert site.ok("directory", "plan", file) == "nothing to change\n"
    assert site.ok("directory", "apply", file) == "nothing to change\n"


def test_an_export_is_edited_and_applied(site: Site) -> None:
    site.ok("group", "add", ALL, ANNA, BEN)
    exported = site.ok("directory", "export")
    file = written(site, exported.replace(f'["{ANNA}", "{BEN}"]', f'["{BEN}"]'))
    assert f"loses {ANNA}" in site.ok("directory", "apply", file, "--delete", "--yes")
    said = site.refused("directory", "apply", written(site, exported), "--yes")
    assert "was exported at change" in said
    assert "without its lines `id` and `serial`" in said
    kept = "\n".join(line for line in exported.splitlines() if not line.startswith(("id =", "serial =")))
    site.ok("directory", "apply", written(site, kept), "--yes")
    assert [each.name for each in site.stored(ALL).targets] == [ANNA, BEN]  # type: ignore[union-attr]


def test_an_app_password_works_on_another_machine(site: Site, tmp_path: Path) -> None:
    said = site.ok("user", "app-password", "add", ANNA, "--label", "phone")
    password = said.partition("password: ")[2].split()[0]
    exported = site.ok("directory", "export")
    assert password not in exported
    assert "digest" not in site.ok("directory", "export", "--no-secrets")
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    assert f"phone of {ANNA}" in other.ok("directory", "plan", written(other, exported))
    other.ok("directory", "apply", written(other, exported), "--yes")
    backend = DirectoryBackend(other.path, DirectHasher())
    found = backend.find_app_password(probe_of(password.encode()) or "")
    assert found is not None
    assert (found.user.name, found.label) == (ANNA, "phone")
    keys = backend.scram_keys(found.user, "SHA-256")
    assert keys is not None
    expected = derive("SHA-256", password.encode(), keys.salt, keys.rounds)
    assert (keys.stored_key, [each.stored_key for each in keys.others]) in (
        (expected.stored_key, []),
        (keys.stored_key, [expected.stored_key]),
    )


def test_apply_asks_first(site: Site) -> None:
    said = site.refused("directory", "apply", written(site, NEW))
    assert "Make these 2 changes? [y/N]" in said
    assert account(site, ZOE) is None


def test_users_go_only_where_that_is_said(site: Site) -> None:
    file = written(site, f'[[user]]\nname = "{ANNA}"\n')
    assert site.ok("directory", "apply", file, "--yes") == "nothing to change\n"
    assert "its mail stays where it is" in site.ok("directory", "apply", file, "--delete", "--yes")
    assert account(site, BEN) is None


def test_another_change_between_plan_and_apply(site: Site) -> None:
    file = written(site, NEW)
    at = json.loads(site.ok("directory", "plan", file, "--json"))["at"]
    site.ok("user", "disable", BEN)
    said = site.refused("directory", "apply", file, "--at", str(at), "--yes")
    assert f"the directory's last change is {at + 1}, and the plan was made at {at}" in said
    assert f"`mailserver directory changes --since {at}`" in said
    assert account(site, ZOE) is None


def test_another_change_while_the_administrator_thinks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def confirm(*_words: object, **_options: object) -> bool:
        site.ok("user", "disable", BEN)
        return True

    monkeypatch.setattr("mailserver.cli.directory_document.click.confirm", confirm)
    assert "was changed meanwhile" in site.refused("directory", "apply", written(site, NEW))
    assert account(site, ZOE) is None


def test_faults_are_listed_and_nothing_is_changed(site: Site) -> None:
    before = site.ok("directory", "export")
    text = (
        f'[[user]]\nname = "{ZOE}"\npassword = "{{ROT13}}x"\n'
        f'[[user]]\nname = "x@example.org"\nlimits = {{ networks = ["192.0.2.0/33"] }}\n'
        f'[[alias]]\naddress = "{INFO}"\ntargets = ["q@example.org", "x@elsewhere.test"]\n'
    )
    file = written(site, text)
    for command in (("plan",), ("apply", "--yes")):
        said = site.refused("directory", command[0], file, *command[1:])
        assert f"{file} line 1: {ZOE}: " in said
        assert "192.0.2.0/33" in said
        assert f"{file} line 7: {INFO}: there is no user or address q@example.org" in said
        assert "x@elsewhere.test is elsewhere, and mail cannot leave" in said
    assert site.ok("directory", "export") == before
    assert "nothing was changed" in site.refused("directory", "plan", written(site, "[[user]"))


def test_json_of_a_plan(site: Site) -> None:
    data = json.loads(site.ok("directory", "plan", written(site, NEW), "--json"))
    assert data["changes"][0] == {
        "action": "add",
        "kind": "user",
        "name": ZOE,
        "change": "without a password",
    }
    assert data["notes"] == []


def test_names_are_normalised(site: Site) -> None:
    text = f'[[domain]]\nname = "Bücher.example"\n[[alias]]\naddress = "Info@BÜCHER.example"\ntargets = ["ANNA@example.org"]\n[[alias]]\naddress = "\\"o.d-d\\"@example.org"\ntargets = ["{BEN}"]\n'
    site.ok("directory", "apply", written(site, text), "--yes")
    assert site.stored("info@xn--bcher-kva.example") is not None
    assert site.stored("o.d-d@example.org") is not None
    assert site.ok("directory", "plan", written(site, text)) == "nothing to change\n"


def test_standard_input_and_other_encodings(site: Site) -> None:
    words = ("directory", "plan", "-", "--config", str(site.file))
    done = run_process(*words, text=NEW)
    assert (done.returncode, ZOE in done.stdout) == (0, True), done.stderr
    done = run_process(*words, text="\udcff")
    assert (done.returncode, "is no UTF-8" in done.stderr) == (1, True)


def test_a_document_without_secrets_keeps_passwords(site: Site) -> None:
    site.ok("user", "password", ANNA, "--generate")
    exported = site.ok("directory", "export", "--no-secrets")
    assert "ARGON2ID" not in exported
    assert "nothing to change" in site.ok("directory", "plan", written(site, exported), "--delete")
    assert "{ARGON2ID}" in site.ok("directory", "export", "--passwd")
    site.refused("directory", "export", "--passwd", "--no-secrets", status=2)


def test_a_directory_that_another_program_holds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.cli.account_stores.WRITER_WAITS", 50)
    file = written(site, NEW)
    holder = apsw.Connection(str(site.path))
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert "add" in site.ok("directory", "plan", file)
        for words in (
            ("directory", "apply", file, "--yes"),
            ("alias", "add", INFO, ANNA),
            ("domain", "add", "example.net", "--no-host"),
            ("user", "delete", ANNA, "--yes", "--keep-mail"),
        ):
            assert "is locked by another program" in site.refused(*words)
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert account(site, ANNA) is not None


def opened_with(monkeypatch: pytest.MonkeyPatch, pragma: str) -> None:
    """Open directories with a setting of SQLite's that makes it refuse as the disk would. "{}": the present pages."""
    opened = SQLiteDatabase.open

    def changed(path: Path, *, waits: int = 20) -> SQLiteDatabase:
        database = opened(path, waits=waits)
        database.rows(pragma.format(database.rows("PRAGMA page_count")[0][0]))
        return database

    monkeypatch.setattr(SQLiteDatabase, "open", changed)


def test_a_full_database_keeps_what_it_had(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    members = "".join(f'  "x{number}@elsewhere.test",\n' for number in range(2000))
    file = written(site, f'[[group]]\naddress = "{ALL}"\ntargets = [\n{members}]\n')
    with monkeypatch.context() as patched:
        opened_with(patched, "PRAGMA max_page_count = {}")
        assert "full" in site.refused("directory", "apply", file, "--force", "--yes")
    assert site.stored(ALL) is None
    assert "no damage" in site.ok("directory", "check")


def test_a_directory_that_may_not_be_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(site, NEW)
    opened_with(monkeypatch, "PRAGMA query_only = ON")
    for words in (
        ("directory", "apply", file, "--yes"),
        ("alias", "add", INFO, ANNA),
        ("domain", "catch-all", "example.org", ANNA),
    ):
        said = site.refused(*words)
        assert str(site.path) in said
        assert "readonly" in said
    assert site.ok("alias", "list").splitlines() == ["ALIAS  STATE  LEADS TO"]


def test_two_administrators_at_once(site: Site) -> None:
    """Each adds members of one group, in many changes: none is lost, and every change has its own number."""
    site.ok("group", "add", ALL, ANNA)
    script = (
        "import sys\nfrom mailserver.cli import main\n"
        "for number in range(10):\n"
        "    main(['group', 'add', sys.argv[1], f'{sys.argv[2]}{number}@example.org', '--force', '--config', sys.argv[3]],"
        " standalone_mode=False)\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, ALL, who, str(site.file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for who in ("first", "second")
    ]
    for each in running:
        output, _ = each.communicate(timeout=120)
        assert each.returncode == 0, output
    stored = site.stored(ALL)
    assert stored is not None
    assert {each.name for each in stored.targets} == {
        ANNA,
        *(f"{who}{number}@example.org" for who in ("first", "second") for number in range(10)),
    }
    numbers = [row["number"] for row in json.loads(site.ok("directory", "changes", "--json"))]
    assert len(set(numbers)) == len(numbers)


def test_of_two_that_apply_at_once_one_is_refused(site: Site) -> None:
    file = written(site, NEW)
    at = json.loads(site.ok("directory", "plan", file, "--json"))["at"]
    words = ("directory", "apply", file, "--at", str(at), "--yes", "--config", str(site.file))
    results: list[int] = []

    def run() -> None:
        results.append(run_process(*words).returncode)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [0, 1]


def test_a_file_from_before_a_restore_is_applied_with_a_note(site: Site, tmp_path: Path) -> None:
    exported, copy = site.ok("directory", "export"), tmp_path / "copy.db"
    assert "note:" not in site.ok("directory", "plan", written(site, exported + NEW))
    site.ok("directory", "backup", str(copy))
    site.ok("directory", "restore", str(copy), "--yes")
    assert "note:" not in site.ok("directory", "plan", written(site, exported))
    file = written(site, exported + NEW)
    [note] = json.loads(site.ok("directory", "plan", file, "--json"))["notes"]
    assert "exported from another directory, or from this one before `directory restore`" in note
    assert "before `directory restore`" in site.ok("directory", "apply", file, "--yes")


def test_a_restored_copy_uses_no_number_twice(site: Site, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    site.ok("directory", "backup", str(copy))
    for name in ("c@example.org", "d@example.org"):
        database = SQLiteDatabase.open(site.path)
        changing.add_account(database, ROOT, NewAccount(name))
        last = reading.identity(database)[1]
        database.close()
    site.ok("directory", "restore", str(copy), "--yes")
    rows = json.loads(site.ok("directory", "changes", "--json"))
    assert (rows[-1]["what"], rows[-1]["number"]) == (changing.RESTORED, last + 1)


def test_check_names_loops_and_what_is_gone_or_disabled(site: Site) -> None:
    site.ok("alias", "add", INFO, ANNA, "soon@example.org", "--force")
    site.ok("group", "add", ALL, INFO)
    said = site.ok("directory", "check")
    assert f"{INFO}: there is no user or address soon@example.org" in said
    assert f"2 accounts, 2 addresses, version {migrations.NEWEST}, no damage" in said
    site.ok("alias", "disable", INFO)
    assert f"{ALL} leads to {INFO}, which is disabled" in site.ok("directory", "check")
    site.ok("alias", "enable", INFO)
    # No command makes a loop; a restored or damaged directory may have one.
    database = SQLiteDatabase.open(site.path)
    address_changes.add_targets(database, ROOT, INFO, [Target(ALL, is_account=False, may_send=False)])
    database.close()
    said = site.refused("directory", "check")
    assert f"mail to {INFO} would go round in a loop: {INFO} to {ALL} to {INFO}" in said
    data = json.loads(site.refused("directory", "check", "--json"))
    assert (data["accounts"], data["without_password"], data["addresses"]) == (2, 2, {"alias": 1, "group": 1})
    assert {(each["address"], each["sort"]) for each in data["findings"]} == {
        (INFO, "gone"),
        (INFO, "loop"),
        (ALL, "loop"),
    }


def test_a_stored_password_that_cannot_be_used_is_a_fault_unless_it_stands_there_already(site: Site) -> None:
    database = SQLiteDatabase.open(site.path)
    changing.set_password(database, ROOT, ANNA, Password("{SHA512-CRYPT}$6$short"))
    database.close()
    exported = site.ok("directory", "export")
    assert "nothing to change" in site.ok("directory", "apply", written(site, exported), "--yes")
    other = exported.replace("$6$short", "$6$other")
    assert f"{ANNA}: not a SHA-crypt hash" in site.refused("directory", "plan", written(site, other))


def test_help_names_the_commands() -> None:
    assert {"export", "plan", "apply"} <= set(main.commands["directory"].commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE account SET limits = 'x'", f"the account {ANNA} cannot be used: "),
        ("UPDATE account SET limits = '[]'", f"the account {ANNA} cannot be used: the limits are no JSON object"),
        ("INSERT INTO domain VALUES ('example.net', NULL, '+', '[]', 1)", "the domain example.net cannot be used: "),
    ],
    ids=["no-json", "no-object", "domain"],
)
def test_rows_that_nobody_can_use_are_named(site: Site, statement: str, said: str) -> None:
    connection = apsw.Connection(str(site.path))
    connection.execute(statement)
    connection.close()
    for command in (("check",), ("export",), ("plan", written(site, NEW)), ("apply", written(site, NEW), "--yes")):
        assert said in site.refused("directory", *command)
