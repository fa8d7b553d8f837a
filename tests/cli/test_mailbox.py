"""`mailserver mailbox special-use`: shown and set, in the names that mail programs have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailserver.cli import main
from mailserver.config.model import Server
from tests.config.test_load import SOUND

USER = "anna@example.org"


def site(directory: Path, mail: str = "") -> Path:
    """A configuration, and an account that came from another server."""
    for name in ("", ".Gesendet", ".Sent", ".Müll".replace("ü", "&APw-")):
        for part in ("cur", "new", "tmp"):
            (directory / "mail" / "example.org" / "anna" / "Maildir" / name / part).mkdir(parents=True)
    (directory / "users").write_text("")
    text = SOUND.decode().replace('"/var/mail/domains"', f'"{directory}/mail"\n{mail}')
    text = text.replace("/etc/mailserver/users", f"{directory}/users")
    path = directory / "mailserver.toml"
    path.write_text(text)
    return path


def run(path: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["mailbox", "special-use", *words, "--config", str(path)])


def folders(path: Path) -> dict[str, str | None]:
    return {row["use"]: row["folder"] for row in json.loads(run(path, USER, "--json").stdout)}


def test_it_is_shown_and_set(tmp_path: Path) -> None:
    path = site(tmp_path, 'separator = "."\nprefix = "INBOX."\nspecial_use = { Sent = ["Out", "Gesendet"] }')
    before = run(path, "Anna@example.org")
    assert before.exit_code == 0, before.output
    assert [line.split(maxsplit=2) for line in before.stdout.splitlines()][4] == [
        "Sent",
        "INBOX.Gesendet",
        "[mail] special_use names it",
    ]
    assert folders(path) == {"Archive": None, "Drafts": None, "Junk": None, "Sent": "INBOX.Gesendet", "Trash": None}
    done = run(path, USER, "sent=INBOX.Sent", "Trash=INBOX.Müll")
    assert done.exit_code == 0, done.output
    assert "it was set" in done.stdout
    assert folders(path) | {"Sent": "INBOX.Sent", "Trash": "INBOX.Müll"} == folders(path)
    assert run(path, USER, "Sent=").exit_code == 0
    assert folders(path)["Sent"] == "INBOX.Gesendet"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((USER, "Sent"), 2, "must be USE=FOLDER"),
        ((USER, "Snet=Sent"), 2, "did you mean Sent?"),
        ((USER, "Sent=Nowhere"), 1, "Sent=Nowhere"),
        ((USER, "Sent=a//b"), 1, "no such mailbox"),
        (("bert@example.org",), 1, "has no mail yet"),
        (("../x@example.org",), 1, "slash"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, words: tuple[str, ...], status: int, said: str) -> None:
    path = site(tmp_path)
    done = run(path, *words)
    assert done.exit_code == status, done.output
    assert said in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "mail" / "example.org" / "bert").exists()


def test_nothing_is_opened_before_root_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command makes in the account must be the service's own."""
    path = site(tmp_path)
    made: list[str] = []

    def become(server: Server) -> None:
        assert server.user == "root"
        assert sorted(each.name for each in (tmp_path / "mail/example.org/anna/Maildir").iterdir()) == before
        made.append("become")

    before = sorted(each.name for each in (tmp_path / "mail/example.org/anna/Maildir").iterdir())
    monkeypatch.setattr("mailserver.cli.mailbox.become", become)
    assert run(path, USER, "Sent=Sent").exit_code == 0
    assert made == ["become"]
    assert (tmp_path / "mail/example.org/anna/Maildir/mailserver-special-use").exists()
