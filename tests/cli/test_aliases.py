"""`mailserver alias`, `group` and `domain` on a directory."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailserver.cli import main
from mailserver.directory import address_changes, addresses, changing
from mailserver.directory.changing import Author
from mailserver.directory.model import AddressKind, NewAccount, StoredAddress, Taken, Target
from mailserver.directory.sqlite import SQLiteDatabase
from tests.command import run_process
from tests.server import make_demonstration

ANNA, BEN, INFO, ALL = "anna@example.org", "ben@example.org", "info@example.org", "all@example.org"
DOCS = Path(__file__).resolve().parents[2] / "docs"
ROOT = Author("root", 1_790_000_000)


class Site:
    """The configuration of a demonstration, with two users in a directory."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "mailserver.toml"
        self.path = directory / "private" / "directory.db"
        make_demonstration(directory, 10000)
        me = f'user = "{pwd.getpwuid(os.getuid()).pw_name}"'
        text = re.sub(r"(?m)^user = .*$", me, self.file.read_text())
        text = re.sub(r"(?m)^backends = .*$", f'backends = ["directory:{self.path}"]', text)
        self.file.write_text(text)
        self.path.parent.mkdir(mode=0o700)
        database = SQLiteDatabase.create(self.path)
        for name in (ANNA, BEN):
            changing.add_account(database, ROOT, NewAccount(name))
        database.close()

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--config", str(self.file)])

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.exit_code == 0, done.output
        return done.output

    def refused(self, *words: str, status: int = 1) -> str:
        done = self.run(*words)
        assert done.exit_code == status, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.output

    def stored(self, name: str) -> StoredAddress | None:
        database = SQLiteDatabase.open(self.path)
        try:
            return addresses.find_stored(database, name)
        finally:
            database.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_an_alias_is_added_extended_shown_and_removed(site: Site) -> None:
    assert f"added the alias {INFO}: {ANNA}" in site.ok("alias", "add", "Info@Example.ORG", "ANNA@example.org")
    assert f"{INFO}: added {BEN}" in site.ok("alias", "add", INFO, ANNA, BEN)
    assert site.stored(INFO) == StoredAddress(INFO, AddressKind.ALIAS, (Target(ANNA), Target(BEN)))
    assert "has these targets already" in site.ok("alias", "add", INFO, BEN)
    shown = site.ok("alias", "show", INFO)
    assert f"user: {ANNA}, may send as it" in shown
    assert f"{INFO}: removed {ANNA}" in site.ok("alias", "remove", INFO, ANNA)
    said = site.refused("alias", "remove", INFO, BEN)
    assert f"`mailserver alias remove {INFO}` removes it" in said
    assert f"which led to {BEN}" in site.ok("alias", "remove", INFO)
    assert site.stored(INFO) is None


def test_members_of_a_group_may_not_send_as_it(site: Site) -> None:
    site.ok("group", "add", ALL, ANNA, BEN, "--note", "everybody here")
    assert site.stored(ALL) == StoredAddress(
        ALL, AddressKind.GROUP, (Target(ANNA, may_send=False), Target(BEN, may_send=False)), note="everybody here"
    )
    assert "may send" not in site.ok("group", "show", ALL)
    site.refused("group", "add", ALL, ANNA, "--no-send", status=2)


def test_an_alias_by_which_nobody_sends(site: Site) -> None:
    site.ok("alias", "add", INFO, ANNA, "--no-send")
    assert site.stored(INFO) == StoredAddress(INFO, AddressKind.ALIAS, (Target(ANNA, may_send=False),))


def test_lists_are_tables_and_json(site: Site) -> None:
    site.ok("alias", "add", INFO, ANNA)
    site.ok("alias", "add", "sales@example.org", BEN)
    site.ok("alias", "disable", INFO)
    table = site.ok("alias", "list").splitlines()
    assert [line.split() for line in table] == [
        ["ALIAS", "STATE", "LEADS", "TO"],
        [INFO, "disabled", ANNA],
        ["sales@example.org", "enabled", BEN],
    ]
    [row] = json.loads(site.ok("alias", "list", "--user", ANNA, "--json"))
    assert row == {
        "address": INFO,
        "kind": "alias",
        "enabled": False,
        "note": None,
        "targets": [{"name": ANNA, "user": True, "may_send": True}],
    }
    site.ok("alias", "enable", INFO)
    assert json.loads(site.ok("alias", "show", INFO, "--json"))["enabled"] is True
    assert json.loads(site.ok("group", "list", "--json")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("alias", "add", ANNA, BEN), f"{ANNA} is a user already"),
        (("alias", "add", "info", ANNA), "'info' has no domain; write info@example.test"),
        (("alias", "add", "info@exmaple.org", ANNA), "did you mean 'example.org'?"),
        (("alias", "add", INFO, "ana@example.org"), f"did you mean {ANNA}?"),
        (("alias", "add", INFO, "x@elsewhere.test"), "[submission.relay] names no next hop"),
        (("alias", "add", INFO, "a b@example.org"), "an address must not contain a space"),
        (("alias", "add", INFO, "a\0b@example.org"), "control characters"),
        (("alias", "add", INFO, INFO), f"in a loop: {INFO} to {INFO}"),
        (("alias", "show", INFO), f"there is no alias {INFO}"),
        (("group", "remove", ANNA), f"{ANNA} is a user: use `mailserver user`"),
        (("domain", "catch-all", "example.org", "nobody-at-all@example.org"), "there is no user or address"),
        (("domain", "show", "exmaple.org"), "did you mean 'example.org'?"),
        (("domain", "alias", "example.net", "example.com"), "'example.com' is not a domain of this server"),
        (("domain", "remove", "example.org"), "there is no domain example.org"),
    ],
)
def test_refusals_say_what_to_do(site: Site, words: tuple[str, ...], said: str) -> None:
    before = site.path.read_bytes()
    assert said in site.refused(*words)
    assert site.path.read_bytes() == before


def test_a_loop_over_several_addresses_is_refused(site: Site) -> None:
    site.ok("alias", "add", "a@example.org", ANNA)
    site.ok("alias", "add", "b@example.org", "a@example.org", BEN)
    site.ok("group", "add", "c@example.org", "b@example.org")
    said = site.refused("alias", "add", "a@example.org", "c@example.org")
    assert "a@example.org to c@example.org to b@example.org to a@example.org" in said


def test_force_adds_what_does_not_exist(site: Site) -> None:
    site.ok("alias", "add", INFO, "soon@example.org", "x@elsewhere.test", "--force")
    stored = site.stored(INFO)
    assert stored is not None
    assert [(each.name, each.is_account) for each in stored.targets] == [
        ("soon@example.org", False),
        ("x@elsewhere.test", False),
    ]


def test_targets_with_details_or_elsewhere(site: Site) -> None:
    site.file.write_text(site.file.read_text() + '\n[submission.relay]\nhost = "127.0.0.1"\ntls = "none"\n')
    site.ok("alias", "add", INFO, "anna+info@example.org", "x@elsewhere.test")
    stored = site.stored(INFO)
    assert stored is not None
    assert [each.name for each in stored.targets] == ["anna+info@example.org", "x@elsewhere.test"]


def test_a_domain_stands_for_another(site: Site) -> None:
    assert "example.net stands for example.org" in site.ok("domain", "alias", "example.net", "example.org")
    said = site.refused("alias", "add", "info@example.net", ANNA)
    assert f"add {INFO}, which has both names" in said
    rows = {row["domain"]: row for row in json.loads(site.ok("domain", "list", "--json"))}
    assert rows["example.net"]["alias_of"] == "example.org"
    assert (rows["example.net"]["configured"], rows["example.net"]["in_directory"]) == (False, True)
    assert "example.net stands for example.org" in site.refused("domain", "remove", "example.org")
    site.ok("domain", "alias", "example.net", "--remove")
    site.ok("domain", "remove", "example.net")
    site.ok("domain", "remove", "example.org")
    assert "example.org" in site.ok("domain", "list")


def test_a_catch_all_is_set_replaced_and_removed(site: Site) -> None:
    site.ok("domain", "catch-all", "example.org", ANNA)
    site.ok("domain", "catch-all", "example.org", BEN)
    expected = StoredAddress("@example.org", AddressKind.ALIAS, (Target(BEN, may_send=False),))
    assert site.stored("@example.org") == expected
    assert json.loads(site.ok("domain", "show", "example.org", "--json"))["catch_all"] == [BEN]
    site.ok("domain", "catch-all", "example.org", "--remove")
    assert site.stored("@example.org") is None
    assert "has no catch-all" in site.refused("domain", "catch-all", "example.org", "--remove")


def test_a_domain_of_the_directory_alone_has_users(site: Site) -> None:
    assert "not a domain of this server" in site.refused("user", "add", "x@example.net", "--generate")
    site.ok("domain", "add", "example.net", "--no-host")
    site.ok("user", "add", "x@example.net", "--generate")
    site.ok("domain", "detail", "example.net", "-")
    site.ok("domain", "disable", "example.net")
    shown = site.ok("domain", "show", "example.net")
    assert "disabled, kept in the directory" in shown
    assert "separator of details: -" in shown
    site.ok("domain", "enable", "example.net")
    assert "separator of details: -" in site.ok("domain", "show", "example.net")
    site.ok("domain", "detail", "example.net", "--none")
    assert "separator of details: none" in site.ok("domain", "show", "example.net")
    site.refused("domain", "detail", "example.net", "@", status=2)


def test_a_group_of_very_many(site: Site) -> None:
    database = SQLiteDatabase.open(site.path)
    new = StoredAddress(
        ALL, AddressKind.GROUP, tuple(Target(f"x{number}@example.org", is_account=False) for number in range(20_000))
    )
    address_changes.add_address(database, ROOT, new)
    database.close()
    assert "and 19995 more" in site.ok("group", "list")
    assert "20000" in site.ok("directory", "changes", "--json")


def whither(site: Site, address: str) -> subprocess.CompletedProcess[str]:
    return run_process("address", address, "--json", "--config", str(site.file))


def test_what_an_address_leads_to(site: Site) -> None:
    site.ok("alias", "add", INFO, ANNA)
    site.ok("domain", "alias", "example.net", "example.org")
    done = whither(site, "Info+Work@example.net")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["users"] == [{"user": ANNA, "detail": "Work"}]
    assert data["path"][1:] == [f"{INFO} leads to {ANNA}", f"{ANNA} is a user, with the detail Work"]
    done = whither(site, "nobody@example.org")
    assert (done.returncode, json.loads(done.stdout)["refusal"]) == (1, "550 5.1.1 no such user here")
    assert json.loads(whither(site, "postmaster").stdout)["users"][0]["user"].startswith("postmaster@")
    assert "is no address" in whither(site, "a b").stderr


def test_the_commands_of_the_page_work_one_after_the_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"(?m)^    mailserver (.*)$", (DOCS / "accounts.md").read_text())
    assert len(lines) > 20
    (site.file.parent / "accounts.toml").write_text(f'[[user]]\nname = "{ANNA}"\n')
    monkeypatch.chdir(site.file.parent)
    for line in lines:
        if not line.startswith("address "):
            site.ok(*shlex.split(line, comments=True))


def test_where_to_begin_is_true(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/authentication.md, in their order, on a new directory."""
    page = (DOCS / "authentication.md").read_text().partition("## Where to begin")[2].partition("\n## ")[0]
    lines = [shlex.split(line) for line in re.findall(r"(?m)^    mailserver (.*)$", page)]
    assert len(lines) == 13
    site.path.unlink()
    shutil.rmtree(site.file.parent / "mail")
    monkeypatch.chdir(site.file.parent)
    users = site.file.parent / "imported"
    users.write_text("carla@example.org:{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU\n")
    for words in lines:
        given = [str(users) if word == "/etc/mailserver/users" else word for word in words]
        if words[:2] == ["directory", "plan"]:
            text = site.ok("directory", "export")
            # A document that a program writes has no such lines.
            kept = [line for line in text.splitlines() if not line.startswith(("id = ", "serial = "))]
            Path("accounts.toml").write_text("\n".join(kept) + "\n")
        if words[:2] == ["auth", "test"]:
            # It ends the process.
            done = run_process(*words, "--config", str(site.file))
            assert done.returncode == 0, done.stdout + done.stderr
            continue
        done = CliRunner().invoke(main, [*given, "--config", str(site.file)], input="geheim\n")
        assert done.exit_code == 0, f"{words}: {done.output}"


def test_a_users_file_has_no_aliases(site: Site) -> None:
    text = re.sub(r"(?m)^backends = .*$", f'backends = ["file:{site.file.parent}/users"]', site.file.read_text())
    site.file.write_text(text)
    assert "`mailserver directory create` makes one" in site.refused("alias", "list")
    assert "example.org" in site.ok("domain", "list")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_a_directory_that_cannot_be_opened(site: Site) -> None:
    site.path.chmod(0)
    site.refused("alias", "list")


def test_a_directory_that_is_gone_or_damaged(site: Site) -> None:
    site.path.write_bytes(b"no database at all, but some text" * 200)
    assert str(site.path) in site.refused("alias", "list")
    site.path.unlink()
    assert str(site.path) in site.refused("group", "add", ALL, ANNA)


def mail_of(site: Site, user: str) -> Path:
    local, _, domain = user.partition("@")
    return site.file.parent / "mail" / domain / local / "Maildir"


def test_the_name_of_an_alias_is_no_name_for_a_user(site: Site) -> None:
    site.ok("alias", "add", INFO, ANNA)
    (mail_of(site, BEN) / "cur").mkdir(parents=True)
    assert site.refused("user", "add", INFO, "--generate") == f"Error: {INFO} is an alias already\n"
    assert site.refused("user", "rename", BEN, INFO) == f"Error: {INFO} is an alias already\n"
    assert (mail_of(site, BEN) / "cur").exists()
    assert not mail_of(site, INFO).exists()


def test_mail_is_moved_back_where_the_directory_refuses_the_new_name(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_meanwhile(*_words: object) -> None:
        raise Taken("new@example.org", "alias")

    (mail_of(site, BEN) / "cur").mkdir(parents=True)
    monkeypatch.setattr(changing, "rename", taken_meanwhile)
    site.refused("user", "rename", BEN, "new@example.org")
    assert (mail_of(site, BEN) / "cur").exists()
    assert not mail_of(site, "new@example.org").exists()


def test_a_domain_that_the_directory_gets_keeps_the_separator_of_the_configuration(site: Site) -> None:
    site.file.write_text(site.file.read_text() + '\n[lmtp]\ndetail_separator = "-"\n')
    site.ok("domain", "alias", "example.org", "--remove")
    site.ok("domain", "alias", "example.com", "example.org")
    said = site.refused("domain", "alias", "example.test", "example.com")
    assert "example.com itself stands for example.org" in said
    rows = {each["domain"]: each for each in json.loads(site.ok("domain", "list", "--json"))}
    assert not rows["example.test"]["in_directory"], "a refused command changes nothing"
    assert [rows[name]["detail"] for name in ("example.org", "example.com")] == ["-", "-"]
    site.ok("domain", "limit", "example.test", "--protocol", "imap")
    assert "separator of details: -" in site.ok("domain", "show", "example.test")
    numbers = [each["number"] for each in json.loads(site.ok("directory", "changes", "--json"))]
    assert numbers == [1, 2, 3, 3, 3, 4, 4]
