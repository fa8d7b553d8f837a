"""What the disk did not let be made safe is remembered, by whichever process comes, and settled before anything else."""

from __future__ import annotations

import errno
import logging
import os

import pytest

from mailserver.errors import StoreUnavailable
from mailserver.store.flags import SEEN, FlagChange
from mailserver.store.maildir.disk import lock, safeio
from mailserver.store.maildir.disk.lock import AccountLock
from mailserver.store.maildir.home import unsynced
from tests.store.failing import another_process
from tests.store.faults import Plan, failing_disk
from tests.store.maildirs import append, deliver, files, open_account, uids


@pytest.fixture
def disk():
    with another_process(dead=False), failing_disk() as faults:
        yield faults


def flag(account):
    return account.mailbox("INBOX").store_flags([1], FlagChange.ADD, ["\\Seen"])


def notes(account):
    with AccountLock(account.root) as held:
        return held.notes()


def stuck(path):
    """The sync of that directory fails, and nothing is taken back."""

    def sync(original, asked):
        if asked == path:
            safeio.unsynced.add(asked)
            raise StoreUnavailable
        original(asked)

    return sync


def fail_once(account, monkeypatch):
    """A STORE whose sync fails, and whose renames cannot be taken back."""
    cur, sync, renames = os.path.join(account.root, "cur"), safeio.sync_directory, [safeio.rename]

    def rename(old, new):
        if not renames:
            raise StoreUnavailable
        renames.pop()(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(safeio, "sync_directory", lambda path: stuck(cur)(sync, path))
        patch.setattr("mailserver.store.maildir.disk.directories.safeio.sync_directory", safeio.sync_directory)
        patch.setattr(safeio, "rename", rename)
        with pytest.raises(StoreUnavailable):
            flag(account)


def test_a_change_that_stands_there_unsynced_is_not_acknowledged_until_it_is_synced(tmp_path, disk, monkeypatch):
    account = open_account(tmp_path)
    append(account)
    account.mailbox("INBOX").refresh()
    fail_once(account, monkeypatch)
    assert b"cur" in notes(account)
    with another_process(dead=False):
        disk.begin(Plan("unsynced", 0))
        other = open_account(tmp_path)
        mailbox = other.mailbox("INBOX")
        mailbox.refresh()
        assert [row.flags & SEEN for row in mailbox.load().rows] == [SEEN], "mail is read meanwhile"
        with pytest.raises(StoreUnavailable):
            flag(other)
        assert b"cur" in notes(other)
        disk.mend()
        disk.begin(None)
        flag(other)
        assert ("sync_directory", os.path.join(other.root, "cur")) in disk.calls
        assert notes(other) == b""
    # and the first one sees that it has been done
    disk.begin(None)
    flag(account)
    assert disk.calls == []


def test_notes_of_another_start_of_the_machine_count_for_nothing(tmp_path, disk, monkeypatch):
    account = open_account(tmp_path)
    append(account)
    account.mailbox("INBOX").refresh()
    fail_once(account, monkeypatch)
    with another_process(boot="another start"):
        disk.begin(Plan("unsynced", 0))
        other = open_account(tmp_path)
        other.set_subscribed("INBOX", subscribed=False)
        assert "INBOX" not in other.subscriptions()


def test_notes_need_no_room_and_outlive_the_stamps_of_holders(tmp_path):
    root = str(tmp_path)
    with AccountLock(root) as held:
        assert held.notes() == b""
        assert held.leave_notes(b"x" * lock.NOTES_ROOM)
        assert not held.leave_notes(b"x" * (lock.NOTES_ROOM + 1))
    path = tmp_path / lock.FILE_NAME
    size = path.stat().st_size
    assert size == 4096
    lock.disturb(root)
    with AccountLock(root) as held:
        assert not held.alone
        assert held.notes() == b"x" * lock.NOTES_ROOM
        assert held.leave_notes(b"")
    with AccountLock(root) as held:
        assert not held.noted
    assert path.stat().st_size == size


def test_a_lock_file_of_an_earlier_version_gets_its_room(tmp_path):
    (tmp_path / lock.FILE_NAME).write_bytes(b"an earlier stamp")
    with AccountLock(str(tmp_path)) as held:
        assert not held.alone
        assert held.leave_notes(b"note")
    with AccountLock(str(tmp_path)) as held:
        assert held.notes() == b"note"


@pytest.mark.parametrize(
    "spoilt", [b"junk", b"[]", b'{"boot": 3}', b'{"boot": "%s", "unsynced": ["/etc"], "leftovers": []}']
)
def test_notes_that_make_no_sense_have_everything_synced(tmp_path, disk, spoilt):
    account = open_account(tmp_path)
    account.create("there")
    if b"%s" in spoilt:
        spoilt = spoilt.replace(b"%s", account._home.boot.encode())
    with AccountLock(account.root) as held:
        held.leave_notes(spoilt)
    disk.begin(None)
    account.set_subscribed("there", subscribed=True)
    synced = {path for operation, path in disk.calls if operation == "sync_directory"}
    if spoilt != b'{"boot": 3}':
        assert {account.root, os.path.join(account.root, "cur"), os.path.join(account.root, ".there", "new")} <= synced
    assert notes(account) == b""


@pytest.mark.parametrize("left", [".", "..", ".there", "cur"])
def test_no_directory_of_mail_is_removed_on_the_word_of_notes(tmp_path, left):
    account = open_account(tmp_path)
    account.create("there")
    append(account)
    home = account._home
    with AccountLock(account.root) as held:
        held.leave_notes(f'{{"boot": "{home.boot}", "unsynced": [], "leftovers": ["{left}"]}}'.encode())
    account.set_subscribed("any", subscribed=True)
    assert files(account)
    assert os.path.isdir(os.path.join(account.root, ".there", "cur"))


def test_more_than_there_is_room_for_stands_for_everything(tmp_path, disk):
    account = open_account(tmp_path)
    safeio.unsynced.update(os.path.join(account.root, f".{'x' * 200}{number}") for number in range(100))
    account.set_subscribed("any", subscribed=True)
    safeio.unsynced.update(os.path.join(account.root, f".{'x' * 200}{number}") for number in range(100))
    with account._home.locked():
        pass
    home = account._home
    written = unsynced._format(
        home.root, home.boot, [os.path.join(home.root, "x" * 200 + str(n)) for n in range(100)], []
    )
    assert len(written) <= lock.NOTES_ROOM
    assert unsynced._parse(home, written).unsynced == {os.path.join(home.root, "*")}
    assert unsynced._parse(home, written).names(home.root, home.paths("INBOX"))


def test_a_list_that_could_not_be_cut_back_is_written_anew_before_it_is_believed(tmp_path, disk, monkeypatch):
    account = open_account(tmp_path)
    append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    deliver(account)
    listed = os.path.join(account.root, "dovecot-uidlist")
    inode = os.stat(listed).st_ino

    def broken(*_args):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "fdatasync", broken, raising=False)
        patch.setattr(disk, "ftruncate", broken, raising=False)
        with pytest.raises(StoreUnavailable):
            mailbox.refresh()
    with another_process(dead=False):
        disk.begin(Plan("dead", 0))
        other = open_account(tmp_path)
        there = other.mailbox("INBOX")
        there.refresh()
        assert uids(there) == [1], "a UID that a power cut may take away is told nobody"
        disk.mend()
        there.refresh()
        assert uids(there) == [1, 2]
    assert os.stat(listed).st_ino != inode


def test_a_lock_that_could_not_be_removed_is_removed_by_the_next_operation(tmp_path, disk, caplog):
    account = open_account(tmp_path)
    account.create("there")
    append(account)
    disk.begin(None)
    append(account)
    last = len(disk.calls) - 1
    assert disk.calls[last][0] == "unlink"
    disk.begin(Plan("once", last))
    with caplog.at_level(logging.WARNING):
        assert append(account) == 3, "it is acknowledged all the same"
    assert "dovecot-uidlist.lock" in caplog.text
    assert os.path.exists(os.path.join(account.root, "dovecot-uidlist.lock"))
    append(account, "there")
    assert not os.path.exists(os.path.join(account.root, "dovecot-uidlist.lock"))
    assert len(files(account)) == 3


def test_a_counter_left_half_written_by_an_earlier_version_is_swept(tmp_path):
    account = open_account(tmp_path)
    account.close()
    with open(os.path.join(account.root, "dovecot-uidvalidity.tmp"), "wb"):
        pass
    open_account(tmp_path)
    assert not os.path.exists(os.path.join(account.root, "dovecot-uidvalidity.tmp"))
