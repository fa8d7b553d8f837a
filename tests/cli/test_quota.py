"""`mailserver quota`: usage and limits are shown, and wrong numbers are mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mailserver.cli import main
from mailserver.config.load import load
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.wiring.mail_store import make_store
from tests.config.test_load import SOUND
from tests.store.samples import message, staged

ANNA, BEN = "anna@example.org", "ben@example.org"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configuration with two users, one of them with mail and a limit of its own."""
    (tmp_path / "mail").mkdir()
    (tmp_path / "users").write_text(
        f"{ANNA}:{{PLAIN}}x::::::userdb_quota_message_count=4 userdb_quota_storage_size=unlimited\n{BEN}:{{PLAIN}}x\n"
    )
    text = SOUND.decode().replace("/var/mail/domains", f"{tmp_path}/mail")
    text = text.replace("/etc/mailserver/users", f"{tmp_path}/users") + '[quota]\nstorage = "1M"\nmailboxes = 9\n'
    path = tmp_path / "mailserver.toml"
    path.write_text(text)
    account = account_of(path)
    account.append("INBOX", [staged(account, message("one")), staged(account, message("two"))])
    account.close()
    return path


def account_of(path: Path) -> MaildirAccount:
    config, problems = load(path)
    assert config is not None, problems
    return make_store(config).account(ANNA)


def run(path: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["quota", *words, "--config", str(path)])


def test_usage_and_limits_are_listed(site: Path) -> None:
    done = run(site, "list", "--json")
    assert done.exit_code == 0, done.output
    anna, ben = json.loads(done.stdout)
    octets = len(message("one")) + len(message("two"))
    assert anna == {
        "user": ANNA,
        "percent": 50,
        "storage": octets,
        "storage_limit": None,
        "messages": 2,
        "messages_limit": 4,
        "mailboxes": 6,
        "mailboxes_limit": 9,
    }
    assert (ben["user"], ben["storage"], ben["storage_limit"], ben["percent"]) == (BEN, 0, 1 << 20, 0)
    table = run(site, "list", ANNA).stdout.splitlines()
    assert [line.split()[:2] for line in table] == [["USER", "FULL"], [ANNA, "50%"]]


def test_numbers_are_counted_anew(site: Path) -> None:
    assert run(site, "recalculate").stdout == "all numbers were right\n"
    account = account_of(site)
    index = account._home.index()
    state = index.mailboxes.by_name("INBOX")
    assert state is not None
    with index.transaction():
        index.sums.change(state.key, 5, 500)
    account.close()
    done = run(site, "recalculate", ANNA)
    assert done.exit_code == 0, done.output
    assert f"{ANNA}: 7 messages" in done.stdout
    assert done.stdout.endswith("1 accounts had other numbers\n")
    assert run(site, "recalculate").stdout == "all numbers were right\n"


@pytest.mark.parametrize("command", ["list", "recalculate"])
def test_a_name_that_nobody_can_have_is_refused(site: Path, command: str) -> None:
    done = run(site, command, "../x@example.org")
    assert done.exit_code == 1
    assert "slash" in done.output
