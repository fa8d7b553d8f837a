"""`mailserver user` on users files: what changes, what stays, what is told."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import PasswdEntry
from mailserver.auth.schemes.scram_fields import keys_of
from mailserver.cli import main
from mailserver.cli.users_file import UsersFile
from mailserver.sasl.scram_keys import HASHES, ScramKeys, derive

# doveadm pw -s SSHA -p secret
SSHA = "{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU"
OLD = (
    f"# staff, kept by hand\n\nAnna@example.test:{SSHA}:1000:1000:Anna A.:/home/anna::userdb_quota=1G\r\n"
    f"broken line\nben@example.test:!{SSHA}\ncarla@example.test:{SSHA}::::::nologin"
)


class Site:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "users"
        self.path.write_bytes(OLD.encode() + b"\n\xff\xfe latin:x\n")
        self.path.chmod(0o640)

    def run(self, *words: str, stdin: str = "geheim\n") -> Result:
        return CliRunner().invoke(main, ["user", *words, "--users-file", str(self.path)], input=stdin)

    def entry(self, name: str) -> PasswdEntry:
        return next(each for each in UsersFile(self.path).entries() if each.name == name)

    def other_lines(self, name: str) -> list[bytes]:
        return [line for line in self.path.read_bytes().split(b"\n") if not line.lower().startswith(name.encode())]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_add_appends_one_line(site: Site) -> None:
    before = site.path.read_bytes()
    done = site.run("add", "Dora@Example.test")
    assert done.exit_code == 0, done.output
    after = site.path.read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == before.count(b"\n") + 1
    entry = site.entry("dora@example.test")
    assert entry.stored.startswith("{ARGON2ID}")
    assert schemes.verify(entry.stored, b"geheim")
    assert site.path.stat().st_mode & 0o777 == 0o640


def test_add_after_a_last_line_without_its_end(site: Site) -> None:
    site.path.write_text(f"anna@example.test:{SSHA}")
    assert site.run("add", "ben").exit_code == 0
    assert [entry.name for entry in UsersFile(site.path).entries()] == ["anna@example.test", "ben"]


def test_add_makes_a_private_file(site: Site) -> None:
    site.path.unlink()
    assert site.run("add", "anna@example.test").exit_code == 0
    assert site.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("anna@example.test", "already"),
        ("ANNA@example.test", "already"),
        ("a b", "space"),
        ("", "octets"),
        ("a:b", "colon"),
    ],
)
def test_add_refuses(site: Site, name: str, word: str) -> None:
    before = site.path.read_bytes()
    done = site.run("add", name)
    assert done.exit_code == 1
    assert word in done.output
    assert site.path.read_bytes() == before


@pytest.mark.parametrize("stdin", ["", "\n", "a\0b\n", "x" * 5000])
def test_passwords_that_cannot_be(site: Site, stdin: str) -> None:
    before = site.path.read_bytes()
    assert site.run("add", "dora", stdin=stdin).exit_code == 1
    assert site.path.read_bytes() == before


def test_password_changes_one_field_of_one_line(site: Site) -> None:
    others = site.other_lines("anna@")
    done = site.run("password", "anna@example.test", "--scheme", "SHA512-CRYPT")
    assert done.exit_code == 0, done.output
    assert site.other_lines("anna@") == others
    line = next(line for line in site.path.read_bytes().split(b"\n") if line.startswith(b"Anna@"))
    assert re.search(rb":1000:1000:Anna A\.:/home/anna::userdb_quota=1G scram_sha256=\S+\r$", line)
    stored = site.entry("anna@example.test").stored
    assert stored.startswith("{SHA512-CRYPT}")
    assert schemes.verify(stored, b"geheim")


def test_a_new_password_does_not_enable(site: Site) -> None:
    done = site.run("password", "ben@example.test")
    assert done.exit_code == 0
    assert "ben@example.test stays disabled: `mailserver user enable ben@example.test`" in done.output
    assert site.entry("ben@example.test").disabled
    assert schemes.verify(site.entry("ben@example.test").stored, b"geheim")


def test_a_new_password_of_a_user_disabled_by_hand_says_where(site: Site) -> None:
    done = site.run("password", "carla@example.test")
    assert done.exit_code == 0
    assert "carla@example.test stays disabled: remove the extra field `nologin`" in done.output
    assert "user enable" not in done.output, "it would not help"
    assert "disabled" not in site.run("password", "anna@example.test").output


def test_generated_passwords_are_printed_and_right(site: Site) -> None:
    done = site.run("password", "anna@example.test", "--generate", stdin="")
    password = done.output.split("password: ")[1].split("\n")[0]
    assert len(password) >= 16
    assert schemes.verify(site.entry("anna@example.test").stored, password.encode())


@pytest.mark.parametrize("words", [["enable"], ["disable", "--undo"]])
def test_disable_and_enable(site: Site, words: list[str]) -> None:
    others = site.other_lines("anna@")
    assert site.run("disable", "anna@example.test").exit_code == 0
    assert site.entry("anna@example.test").disabled
    assert site.run("disable", "anna@example.test").exit_code == 0, "twice is no error"
    assert site.run(*words, "anna@example.test").output == "enabled anna@example.test\n"
    assert site.entry("anna@example.test").stored == SSHA
    assert not site.entry("anna@example.test").disabled
    assert site.other_lines("anna@") == others
    done = site.run(*words, "carla@example.test")
    assert done.exit_code == 1
    assert "nologin" in done.output


def test_delete_asks_and_takes_every_line_of_the_name(site: Site) -> None:
    site.path.write_text(f"anna:{SSHA}\nben:{SSHA}\nANNA:!{SSHA}\n")
    assert site.run("delete", "anna", stdin="n\n").exit_code == 1
    assert len(list(UsersFile(site.path).entries())) == 3
    assert site.run("delete", "anna", stdin="y\n").exit_code == 0
    assert site.path.read_text() == f"ben:{SSHA}\n"


@pytest.mark.parametrize("words", [["password"], ["disable"], ["enable"], ["delete", "--yes"]])
@pytest.mark.parametrize("name", ["nobody@example.test", "a b", "broken line"])
def test_users_that_are_not_there(site: Site, words: list[str], name: str) -> None:
    before = site.path.read_bytes()
    done = site.run(*words, name)
    assert done.exit_code == 1
    assert "has no user" in done.output
    assert site.path.read_bytes() == before


def listed(site: Site) -> list[list[str]]:
    """The rows, the head first."""
    return [re.split(r" {2,}", line) for line in site.run("list").stdout.splitlines()]


def test_list_says_who_may_log_in(site: Site) -> None:
    assert listed(site) == [
        ["USER", "PASSWORD", "STATE"],
        ["anna@example.test", "SSHA", "enabled"],
        ["ben@example.test", "SSHA", "disabled"],
        ["carla@example.test", "SSHA", "disabled"],
    ]


def test_list_warns_of_lines_that_cannot_be_used(site: Site) -> None:
    site.path.write_text(f"anna@example.test:{SSHA}\nben@example.test:{{ROT13}}x\nno password\n")
    site.path.chmod(0o600)
    done = site.run("list")
    assert done.exit_code == 0
    assert [row[1] for row in listed(site)] == ["PASSWORD", "SSHA", "cannot be used"]
    first, second = done.stderr.splitlines()
    assert "line 2 user ben@example.test = {ROT13}: warning: unknown password scheme" in first
    assert "`mailserver user password ben@example.test` sets another" in first
    assert "line 3: warning:" in second


def test_no_password_is_an_argument() -> None:
    for command in ("add", "password"):
        assert CliRunner().invoke(main, ["user", command, "anna", "secret"]).exit_code == 2
        assert "--password" not in CliRunner().invoke(main, ["user", command, "--help"]).output


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["user", "list", "--users-file", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "No such file" in done.output


CONFIGURATION = """
[server]
hostname = "mail.example.test"
user = "root"
[mail]
root = "mail"
location = "LOCATION"
[auth]
backends = ["file:USERS"]
default_domain = "DEFAULT"
[[domain]]
name = "example.org"
hosts = ["mail.example.org"]
certificate = "a.pem"
key = "a.key"
[[domain]]
name = "example.test"
hosts = ["mail.example.test"]
certificate = "a.pem"
key = "a.key"
[[listener]]
protocol = "imap"
"""


def configured(site: Site, location: str, default: str = "") -> Path:
    path = site.path.with_name("mailserver.toml")
    text = CONFIGURATION.replace("LOCATION", location).replace("DEFAULT", default).replace("USERS", str(site.path))
    path.write_text(text)
    return path


@pytest.mark.parametrize(("default", "right"), [("", "carl@example.org"), ("example.test", "carl@example.test")])
def test_a_name_without_the_domain_that_its_mail_needs_is_refused(site: Site, default: str, right: str) -> None:
    before = site.path.read_bytes()
    path = configured(site, "{root}/{domain}/{local}/Maildir", default)
    done = CliRunner().invoke(main, ["user", "add", "Carl", "--config", str(path)], input="geheim\n")
    assert done.exit_code == 1
    assert "has no domain" in done.output
    assert f"write {right}" in done.output
    assert site.path.read_bytes() == before
    done = CliRunner().invoke(main, ["user", "add", right, "--config", str(path)], input="geheim\n")
    assert done.output == f"added {right}\n"


def test_a_name_without_a_domain_is_taken_where_mail_has_a_place(site: Site) -> None:
    path = configured(site, "{root}/{user}/Maildir")
    done = CliRunner().invoke(main, ["user", "add", "carl", "--config", str(path)], input="geheim\n")
    assert done.output == "added carl\n"


def keys_of_anna(site: Site) -> dict[str, ScramKeys | None]:
    entry = site.entry("anna@example.test")
    return {name: keys_of(entry, name) for name in HASHES}


def test_scram_keys_stand_beside_the_password(site: Site) -> None:
    assert site.run("password", "anna@example.test").exit_code == 0
    first = keys_of_anna(site)
    assert first["SHA-1"] is None, "only by setting"
    keys = first["SHA-256"]
    assert keys is not None
    assert derive("SHA-256", b"geheim", keys.salt, keys.rounds) == keys
    assert keys.rounds >= 4096
    assert site.run("password", "anna@example.test").exit_code == 0
    assert keys_of_anna(site) != first, "they were replaced"
    assert site.path.read_bytes().count(b"scram_sha256=") == 1
    assert site.entry("anna@example.test").extra["userdb_quota"] == "1G"


def test_disabling_keeps_the_keys(site: Site) -> None:
    assert site.run("password", "anna@example.test").exit_code == 0
    keys = keys_of_anna(site)
    assert site.run("disable", "anna@example.test").exit_code == 0
    assert site.run("enable", "anna@example.test").exit_code == 0
    assert keys_of_anna(site) == keys


def test_no_keys_where_none_are_wanted_or_possible(site: Site) -> None:
    assert site.run("password", "anna@example.test").exit_code == 0
    assert site.run("password", "anna@example.test", "--no-scram").exit_code == 0
    assert site.entry("anna@example.test").extra == {"userdb_quota": "1G"}
    done = site.run("password", "anna@example.test", stdin="\U0001f600\n")
    assert done.exit_code == 0
    assert "no SCRAM keys are stored" in done.output
    assert set(keys_of_anna(site).values()) == {None}
    assert schemes.verify(site.entry("anna@example.test").stored, "\U0001f600".encode())


def test_the_list_tells_who_has_keys(site: Site) -> None:
    assert site.run("password", "anna@example.test", "--scheme", "SHA512-CRYPT").exit_code == 0
    assert site.run("add", "dora", "--scheme", "SCRAM-SHA-256").exit_code == 0
    stored = {name: password for name, password, _state in listed(site)}
    assert stored["anna@example.test"].endswith("+ SCRAM-SHA-256")
    assert stored["dora"].startswith("SCRAM-SHA-256")
    assert "+" not in stored["dora"]
    assert stored["ben@example.test"] == "SSHA"
    # Changed by another program: the keys are told to be of another password.
    text = site.path.read_text("latin-1")
    old = site.entry("anna@example.test").stored
    site.path.write_text(text.replace(old, SSHA), "latin-1")
    stored = {name: password for name, password, _state in listed(site)}
    assert stored["anna@example.test"] == "SSHA + SCRAM-SHA-256 of another password"


def test_without_a_password_it_says_where_one_comes_from(site: Site) -> None:
    before = site.path.read_bytes()
    done = site.run("add", "dora@example.test", stdin="")
    assert done.exit_code == 1
    assert "first line of standard input" in done.output
    assert site.path.read_bytes() == before
