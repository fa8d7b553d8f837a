"""`mailserver index show`: sizes and counts, and nothing changed by looking."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailserver.cli import main
from mailserver.store.maildir.account import text_index
from mailserver.store.query import Body
from tests.config.test_load import SOUND
from tests.store.disk import USER, account_root, open_store
from tests.store.samples import message, put


def site(tmp_path: Path, more: str = "") -> Path:
    path = tmp_path / "mailserver.toml"
    users = tmp_path / "users"
    users.write_text("broken line\n")
    text = SOUND.decode().replace('"/var/mail/domains"', f'"{tmp_path}/mail"\n{more}')
    path.write_text(text.replace("/etc/mailserver/users", str(users)))
    return path


def run(path: Path, user: str, *more: str) -> Result:
    return CliRunner().invoke(main, ["index", "show", user, *more, "--config", str(path)])


def files(root: str) -> list[str]:
    return sorted(os.path.join(at, name) for at, _directories, names in os.walk(root) for name in names)


def test_sizes_and_counts_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "WORTH", 3)
    path = site(tmp_path)
    account = open_store(str(tmp_path / "mail")).account(USER)
    account.create("Other")
    for number in range(3):
        put(account, data=message(body=f"needle {number}"))
    put(account, "Other")
    account.mailbox("INBOX").search(Body("needle"), [1, 2, 3])
    while account.maintain(lambda: False) is not None:
        pass
    before = files(account_root(str(tmp_path / "mail")))
    done = run(path, "Anna@example.test")
    assert done.exit_code == 0, done.output
    assert re.search(r"(?m)^text index  0\.\d MiB$", done.output)
    assert re.search(r"INBOX\W+3\W+3\W", done.output)
    assert re.search(r"Other\W+1\W+\n", done.output)
    assert files(account_root(str(tmp_path / "mail"))) == before
    account.close()
    told = json.loads(run(path, USER, "--json").stdout)
    assert told["search_index"]
    assert min((each["name"], each["messages"], each["indexed"]) for each in told["mailboxes"]) == ("INBOX", 3, 3)
    path = site(tmp_path, "search_index = false")
    assert "search_index = false" in run(path, USER).output
    assert not json.loads(run(path, USER, "--json").stdout)["search_index"]


def test_an_account_without_indexes(tmp_path: Path) -> None:
    path = site(tmp_path)
    root = account_root(str(tmp_path / "mail"))
    os.makedirs(os.path.join(root, "cur"))
    done = run(path, USER)
    assert done.exit_code == 0, done.output
    assert "0.0 MiB" in done.output
    assert files(root) == []


def test_who_has_no_mail(tmp_path: Path) -> None:
    path = site(tmp_path)
    done = run(path, "nobody@example.test")
    assert done.exit_code == 1
    assert "has no mail in" in done.output
    (tmp_path / "users").unlink()
    done = run(path, USER)
    assert done.exit_code == 1
    assert str(tmp_path / "users") in done.output
    for name in ("a/b@example.test", "..", ""):
        assert run(path, name).exit_code == 1
