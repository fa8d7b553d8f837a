"""`check` says of a real Dovecot's accounts what is not taken over, once for each kind."""

from __future__ import annotations

import imaplib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailserver import adoption
from mailserver.cli import main
from mailserver.config.load import load
from mailserver.config.model import Config
from mailserver.problems import find_problems
from tests.config.test_load import SOUND
from tests.dovecot import away, need
from tests.server import make_demonstration

ANNA, BERT = "anna@example.org", "bert@example.org"
DOVECOT = """
mail_plugins {
  acl = yes
  quota = yes
}
protocol imap {
  mail_plugins {
    imap_acl = yes
  }
  imap_metadata = yes
}
acl_driver = vfile
quota "User quota" {
  driver = maildir
  quota_storage_size = 1G
}
mail_attribute {
  dict file {
    path = %{home}/dovecot-attributes
  }
}
mailbox_list_storage_escape_char = ^
"""


@pytest.fixture(scope="module")
def mail() -> Iterator[Path]:
    """Accounts that a real Dovecot has filled, with rights, attributes, a quota, a script and names with dots."""
    need()
    imaplib.Commands["SETMETADATA"] = ("AUTH",)
    with away(dict.fromkeys((ANNA, BERT), "secret"), more=DOVECOT) as dovecot:
        with dovecot:
            for user in (ANNA, BERT):
                client = imaplib.IMAP4("127.0.0.1", dovecot.ports["imap"])
                client.login(user, "secret")
                assert client.create('"Projekt v1.2"')[0] == "OK"
                assert client.setacl('"Projekt v1.2"', "carl@example.org", "lrs")[0] == "OK"
                assert client._simple_command("SETMETADATA", "INBOX", '(/private/comment "x")')[0] == "OK"
                assert client.append("INBOX", "", "", b"Subject: x\r\n\r\nx\r\n")[0] == "OK"
                client.logout()
        (dovecot.root / "example.org" / "anna" / ".dovecot.sieve").write_text("keep;\n")
        yield dovecot.root


def configuration(directory: Path, mail: Path, more: str = "", users: str = "") -> Path:
    (directory / "users").write_text(users)
    path = directory / "mailserver.toml"
    text = SOUND.decode().replace('"/var/mail/domains"', f'"{mail}"\n{more}')
    path.write_text(text.replace("/etc/mailserver/users", f"{directory}/users"))
    return path


def read(path: Path) -> Config:
    config, problems = load(path)
    assert config is not None, problems
    return config


def lines(config: Config) -> list[str]:
    found = adoption.check(config)
    assert all(problem.warning for problem in found)
    return [str(problem).partition(f"{config.source} ")[2] for problem in found]


@pytest.mark.interop
def test_each_kind_is_told_once(mail: Path, tmp_path: Path) -> None:
    told = lines(read(configuration(tmp_path, mail)))
    at = f"{mail}/example.org/anna"
    starts = [line.partition(" (")[0].partition("warning: ")[2][:30] for line in told]
    assert starts == [
        "access rights of Dovecot's",
        "mailbox attributes of Dovecot'",
        "names of folders look escaped,",
        "quotas of Dovecot's have no ef",
        "Sieve scripts of Dovecot's are",
    ]
    assert f"({at}/Maildir/.Projekt v1^2e2/dovecot-acl, and 1 more)" in told[0]
    assert f"({at}/dovecot-attributes, and 1 more)" in told[1]
    assert 'set escape = "^"' in told[2]
    assert told[2].startswith('[mail] escape = "": warning: ')
    assert f"({at}/.dovecot.sieve)" in told[4]


@pytest.mark.interop
@pytest.mark.parametrize(
    ("settings", "words", "example"),
    [
        ({"mail_driver = maildir": "mail_driver = mdbox", "~/Maildir": "~/mdbox"}, "another format", "mdbox"),
        ({"mail_driver = maildir": "mail_driver = sdbox", "~/Maildir": "~/dbox"}, "another format", "dbox"),
        (
            {"mail_driver = maildir": "mail_driver = mbox\nmail_inbox_path = ~/inbox", "~/Maildir": "~/mail"},
            "another format",
            "mail",
        ),
        ({"~/Maildir": "~/Maildir\nmailbox_list_layout = fs"}, "layout `fs`", "Maildir/Sent"),
    ],
)
def test_mail_of_dovecots_that_is_not_served(
    tmp_path: Path, settings: dict[str, str], words: str, example: str
) -> None:
    need()
    with away({ANNA: "secret"}) as dovecot:
        text = dovecot.config.read_text()
        for old, new in settings.items():
            assert old in text
            text = text.replace(old, new)
        dovecot.config.write_text(text)
        with dovecot:
            client = imaplib.IMAP4("127.0.0.1", dovecot.ports["imap"])
            client.login(ANNA, "secret")
            assert client.create("Sent")[0] == "OK"
            assert client.append("Sent", "", "", b"Subject: x\r\n\r\nx\r\n")[0] == "OK"
            client.logout()
        (told,) = lines(read(configuration(tmp_path, dovecot.root)))
        assert words in told
        assert f"({dovecot.root}/example.org/anna/{example})" in told


@pytest.mark.interop
def test_with_the_escape_character_nothing_more_is_said_of_names(mail: Path, tmp_path: Path) -> None:
    told = lines(read(configuration(tmp_path, mail, 'escape = "^"')))
    assert len(told) == 4
    assert not any("escape" in line or "not shown" in line for line in told)
    # Of another one the names are none.
    other = lines(read(configuration(tmp_path, mail, 'escape = "%"')))
    assert len(other) == 5
    assert [line for line in other if line.startswith('[mail] escape = "%"') and 'set escape = "^"' in line]


@pytest.mark.interop
def test_homes_of_the_users_file(mail: Path, tmp_path: Path) -> None:
    users = f"{ANNA}:{{PLAIN}}x::::{mail}/nowhere\n" + f"{BERT}:{{PLAIN}}x::::{mail}/example.org/anna\n"
    location = 'location = "{home}/Maildir"'
    told = lines(read(configuration(tmp_path, mail, location, users)))
    assert sum("Sieve" in line for line in told) == 1
    assert not any("more)" in line for line in told)


def test_the_command_says_it_and_finds_no_error(tmp_path: Path) -> None:
    make_demonstration(tmp_path, 21000, in_directory=True)
    words = ["check", "--config", str(tmp_path / "mailserver.toml")]
    assert "Dovecot" not in CliRunner().invoke(main, words).output
    maildir = next((tmp_path / "mail").rglob("Maildir"))
    (maildir.parent / ".dovecot.sieve").write_text("keep;")
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert done.output.count("Sieve scripts of Dovecot's") == 1
    assert "no errors" in done.output
    # A start does not look.
    _config, problems = find_problems(tmp_path / "mailserver.toml", starting=True)
    assert not any("Sieve" in problem.reason for problem in problems)


def test_the_look_ends(tmp_path: Path) -> None:
    for user in ("anna", "bert"):
        (tmp_path / "mail" / "example.org" / user / "Maildir" / "cur").mkdir(parents=True)
    times = iter([0.0, 1.0, adoption.SECONDS + 1])
    found = adoption.check(read(configuration(tmp_path, tmp_path / "mail")), lambda: next(times))
    assert ["only the first 1 accounts" in problem.reason for problem in found] == [True]


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mail" / "example.org" / "anna" / "Maildir" / "cur").mkdir(parents=True)

    def refused(*_arguments: object) -> Iterator[None]:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(adoption, "survey", refused)
    told = lines(read(configuration(tmp_path, tmp_path / "mail")))
    assert told == ["[mail] root: warning: what another server left there is not known: /x: Permission denied"]
