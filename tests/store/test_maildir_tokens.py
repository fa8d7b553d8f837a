"""Prepared messages with a token, whose process died: they are published or dropped as was decided, or wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.errors import StorageFailure, StoreUnavailable
from mailserver.message.render import summarise
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.home import intent, recovery
from mailserver.types import Quota
from tests.store.maildirs import USER, append, uids
from tests.store.samples import message, staged

TOKEN = "0123abcd"
PREPARE = """
import os, sys
from mailserver.message.render import summarise
from mailserver.store.receiving import NewMessage
from mailserver.store.maildir.account.store import MaildirStore
account = MaildirStore(sys.argv[1], summarise, special_use={}).account("anna@example.test")
messages = []
for flags in ((), ("\\\\Seen",)):
    stage = account.stage()
    stage.write(b"Subject: prepared\\r\\n\\r\\nx\\r\\n")
    messages.append(NewMessage(stage, frozenset(flags)))
prepared = account.prepare("INBOX", messages, sys.argv[2])
if sys.argv[3:] == ["wait"]:
    print("ready", flush=True)
    sys.stdin.read()
os._exit(9)
"""


class Table:
    """Decisions, and how often each was asked for."""

    def __init__(self, answer: bool | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, token: str) -> bool:
        self.asked.append(token)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def opened(tmp_path: Path, decided: Callable[[str], bool] | None = None) -> MaildirAccount:
    return MaildirStore(tmp_path / "mail", summarise, special_use={}, decided=decided).account(USER)


def prepare(tmp_path: Path, token: str = TOKEN) -> None:
    """In a process that dies."""
    subprocess.run([sys.executable, "-c", PREPARE, str(tmp_path / "mail"), token], check=False)


def count(account: MaildirAccount) -> int:
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    return len(uids(mailbox))


def left(account: MaildirAccount) -> tuple[int, int]:
    """Files in tmp/, and intents."""
    intents = os.path.join(account.root, intent.DIRECTORY)
    return len(os.listdir(os.path.join(account.root, "tmp"))), len(os.listdir(intents))


def test_decided_messages_are_published(tmp_path: Path) -> None:
    prepare(tmp_path)
    table = Table(True)
    account = opened(tmp_path, table)
    assert count(account) == 2
    assert left(account) == (0, 0)
    assert table.asked == [TOKEN]


def test_undecided_messages_are_dropped_and_their_quota_is_given_back(tmp_path: Path) -> None:
    prepare(tmp_path)
    account = opened(tmp_path)
    account.quota = Quota(messages=2)
    assert account.usage().messages == 2
    account.close()
    account = opened(tmp_path, Table(False))
    account.quota = Quota(messages=2)
    assert account.usage().messages == 0
    assert left(account) == (0, 0)
    append(account)
    append(account)
    assert count(account) == 2


def test_where_nobody_can_tell_the_messages_wait(tmp_path: Path) -> None:
    prepare(tmp_path)
    account = opened(tmp_path)
    append(account)
    assert count(account) == 1
    account.tidy()
    assert left(account) == (2, 1)
    assert count(opened(tmp_path, Table(True))) == 3


@pytest.mark.parametrize("error", [StorageFailure("locked"), ValueError("a fault")], ids=["locked", "fault"])
def test_a_failure_leaves_them_for_later_and_the_account_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    prepare(tmp_path)
    prepare(tmp_path)
    table = Table(error)
    account = opened(tmp_path, table)
    for _ in range(3):
        append(account)
    assert count(account) == 3
    assert left(account) == (4, 2)
    # A table that is locked must not delay each operation.
    assert len(table.asked) == 1
    [record] = [record for record in caplog.records if "intent" in record.getMessage()]
    assert (record.exc_info is not None) == isinstance(error, ValueError), "a bug is logged whole"
    table.answer = True
    monkeypatch.setattr(recovery.time, "monotonic", lambda: account._home.ask_again)
    append(account)
    assert count(account) == 8
    assert left(account) == (0, 0)


def test_a_living_process_is_not_asked_for(tmp_path: Path) -> None:
    table = Table(False)
    with subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(tmp_path / "mail"), TOKEN, "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        account = opened(tmp_path, table)
        append(account)
        assert left(account) == (2, 1)
        assert table.asked == []
        process.stdin.close()
        process.wait()
    append(account)
    assert count(account) == 2
    assert left(account) == (0, 0)
    assert table.asked == [TOKEN]


def test_without_a_token_nothing_is_asked(tmp_path: Path) -> None:
    prepare(tmp_path, "")
    table = Table(False)
    assert count(opened(tmp_path, table)) == 2
    assert table.asked == []


def test_messages_that_could_not_be_published_had_been_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(False)
    account = opened(tmp_path, table)
    prepared = account.prepare("INBOX", [staged(account, message("a"))], TOKEN)

    def fail(*_arguments: object, **_named: object) -> None:
        raise StorageFailure("full")

    with monkeypatch.context() as patched:
        patched.setattr("mailserver.store.maildir.mailbox.prepared.publish", fail)
        with pytest.raises(StorageFailure):
            prepared.publish()
    append(account)
    assert count(account) == 2
    assert left(account) == (0, 0)
    assert table.asked == []


def test_a_file_that_cannot_be_removed_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    account = opened(tmp_path)
    account.close()
    table = Table(False)
    unlink = safeio.unlink

    def fail(path: str) -> None:
        if f"{os.sep}tmp{os.sep}" in path:
            raise StoreUnavailable("read-only")
        unlink(path)

    account = MaildirStore(tmp_path / "mail", summarise, special_use={}, decided=table).existing(USER)
    assert account is not None
    with monkeypatch.context() as patched:
        patched.setattr(safeio, "unlink", fail)
        append(account)
        assert left(account) == (2, 1)
    append(account)
    assert count(account) == 2
    assert left(account) == (0, 0)


@pytest.mark.parametrize("token", [3, ["x"], {"a": 1}, "é\n"], ids=["number", "list", "map", "text"])
def test_a_strange_token_is_asked_for_as_text(tmp_path: Path, token: object) -> None:
    account = opened(tmp_path)
    payload = {"owner": "1 gone", "mailbox": "INBOX", "guid": "00", "files": [], "token": token}
    intent.write(account.root, intent.Intent(recovery.PUBLISH, payload))
    table = Table(False)
    append(opened(tmp_path, table))
    assert table.asked == [str(token)]
    assert left(account) == (0, 0)
