"""A real full disk, and one without inodes: temporary refusals only, and everything else goes on (a small tmpfs)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

import pytest

from mailserver.errors import NoSpace
from mailserver.message.render import summarise
from mailserver.store.flags import FLAGGED, SEEN, FlagChange
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import reserved_space
from mailserver.store.maildir.sync import scan
from mailserver.store.receiving import NewMessage
from tests.disk.small import fill, free
from tests.store.maildirs import TEXT, append, deliver, files, read, uids

USER = "anna@example.test"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


def mount(path, options):
    os.mkdir(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)


@pytest.fixture(params=["size=24m", "size=24m,nr_inodes=130"], ids=["space", "inodes"])
def disk(request, tmp_path):
    path = str(tmp_path / "disk")
    mount(path, request.param)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def open_account(disk):
    return MaildirStore(disk, summarise, special_use={}, hostname="host.example.test").account(USER)


def attempt(account):
    """Deliveries until one is refused; how many were taken."""
    taken = 0
    while True:
        stage = account.stage()
        try:
            stage.write(TEXT + b"x" * 300_000)
            account.append("INBOX", [NewMessage(stage)])
            taken += 1
        except NoSpace:
            stage.abort()
            return taken
        assert taken < 1000


def test_a_full_disk_refuses_mail_and_serves_everything_else(disk, monkeypatch):
    account = open_account(disk)
    for number in range(20):
        append(account, flags=["\\Seen", "work"] if number % 2 else [])
    account.create("there")
    first = account.mailbox("INBOX")
    first.refresh()
    fill(disk)
    taken = attempt(account)
    fill(disk)
    assert attempt(account) == 0
    account.close()

    # a new process on the full disk
    account = open_account(disk)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    there = uids(mailbox)
    assert len(there) == 20 + taken
    assert read(mailbox, there[0]) == TEXT
    mailbox.claim_recent()
    assert account.status("there").messages == 0
    mailbox.store_flags(there[:4], FlagChange.ADD, ["\\Flagged", "work"])
    assert [row.flags & FLAGGED for row in mailbox.load().rows[:4]] == [FLAGGED] * 4
    fill(disk)
    assert mailbox.expunge(there[4:10], only_deleted=False) == there[4:10]
    assert uids(mailbox) == there[:4] + there[10:]
    free(disk)

    # and when there is room again, it is as if nothing had been
    assert append(account) > max(there)
    account.close()
    # The flags, which the index has, and the expunge, of which it could not be told, may be of one tick of the clock.
    later = time.time_ns() + 2 * scan.RACY_NS
    monkeypatch.setattr(time, "time_ns", lambda: later)
    account = open_account(disk)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert len(uids(mailbox)) == 15 + taken
    assert [row.flags & SEEN for row in mailbox.load().rows[:2]] == [0, SEEN]
    assert os.path.getsize(os.path.join(disk, reserved_space.FILE_NAME)) == reserved_space.SIZE
    assert os.listdir(os.path.join(account.root, "tmp")) == []


def test_the_index_can_be_lost_on_a_full_disk(disk):
    account = open_account(disk)
    for _ in range(10):
        append(account, flags=["\\Seen"])
    account.close()
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(account.root, "mailserver-index.sqlite" + end))
    reserved_space.release(disk)
    fill(disk)
    account = open_account(disk)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert uids(mailbox) == list(range(1, 11))
    assert read(mailbox, 3) == TEXT
    assert account._home.index().in_memory
    assert mailbox.expunge([1, 2], only_deleted=False) == [1, 2]
    assert uids(mailbox) == list(range(3, 11))
    assert len(files(account)) == 8


def test_a_foreign_message_without_room_for_its_uid_waits(disk):
    account = open_account(disk)
    append(account)
    mailbox = account.mailbox("INBOX")
    deliver(account)
    reserved_space.release(disk)
    fill(disk)
    mailbox.refresh()
    mailbox.refresh({"1700000001.M1P1.other"})
    free(disk)
    mailbox.refresh()
    assert uids(mailbox) == [1, 2]


def test_a_promised_message_is_published_on_a_full_disk(disk):
    account = open_account(disk)
    append(account)
    stage = account.stage()
    stage.write(TEXT)
    prepared = account.prepare("INBOX", [NewMessage(stage)])
    fill(disk)
    prepared.publish()
    assert os.listdir(os.path.join(account.root, "tmp")) == []
    # its UID may have to wait for room
    free(disk)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert uids(mailbox) == [1, 2]
