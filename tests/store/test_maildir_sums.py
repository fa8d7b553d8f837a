"""The sums of a mailbox on disk: after another version, after a foreign program, after the loss of the index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store.index.database import Index
from mailserver.store.index.sums import ACCOUNT
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.disk import lock
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID
from tests.store.disk import USER, account_root, open_store
from tests.store.samples import message, staged, uids


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def account(root: str) -> Iterator[MaildirAccount]:
    account = open_store(root).account(USER)
    yield account
    account.close()


def append(account: MaildirAccount, *words: str) -> int:
    """Append messages. Return their octets."""
    new = [staged(account, message(word)) for word in words]
    account.append("INBOX", new)
    return sum(each.staged.size for each in new)


def spoil(account: MaildirAccount) -> None:
    """Let the kept sums be wrong, as those that another version has left behind."""
    index = account._home.index()
    with index.transaction():
        index.sums.change(key_of(index), 3, 1000)


def key_of(index: Index) -> int:
    state = index.mailboxes.by_name("INBOX")
    assert state is not None
    return state.key


def stamp_of_another_version(root: str) -> None:
    with open(os.path.join(account_root(root), lock.FILE_NAME), "r+b") as file:
        file.write(os.urandom(16))


def test_sums_are_counted_anew_after_a_version_without_them(root: str, account: MaildirAccount) -> None:
    octets = append(account, "one", "two")
    spoil(account)
    assert account.status("INBOX").size == octets + 1000
    account.close()
    stamp_of_another_version(root)
    again = open_store(root).account(USER)
    assert again.status("INBOX").size == octets
    octets += append(again, "three")
    assert again.status("INBOX").size == octets
    again.close()


def test_a_process_of_this_version_trusts_the_sums_of_another(root: str, account: MaildirAccount) -> None:
    append(account, "one")
    account.close()
    other = open_store(root).account(USER)
    index = other._home.index()
    assert index.sums.of(key_of(index)) is not None
    other.close()


def test_a_cleared_stamp_leaves_the_mark_of_the_sums(root: str, account: MaildirAccount) -> None:
    append(account, "one")
    lock.disturb(account_root(root))
    with lock.AccountLock(account_root(root)) as held:
        assert not held.alone
        assert held.sums_hold


def test_a_foreign_message_is_unmeasured_until_it_is_read(account: MaildirAccount) -> None:
    octets = append(account, "one")
    path = os.path.join(account.root, "new", "1700000000.x.host")
    Path(path).write_bytes(b"Subject: x\n\nbody\n")
    status = account.status("INBOX")
    assert (status.messages, status.size, status.unmeasured) == (2, octets, 1)
    assert account.mailbox("INBOX").measure_rest(UID(1), TimeSlice(1 << 20)) is None
    status = account.status("INBOX")
    assert (status.size, status.unmeasured) == (octets + 20, 0)


def test_messages_are_measured_in_slices(account: MaildirAccount) -> None:
    for number in range(5):
        Path(account.root, "new", f"170000000{number}.x.host").write_bytes(b"Subject: x\n\n")
    assert account.status("INBOX").unmeasured == 5
    ticks = iter(range(1000))
    steps, first = 0, UID(1)
    while first is not None:
        # Full after each message.
        first = account.mailbox("INBOX").measure_rest(first, TimeSlice(1 << 20, 0.5, lambda: float(next(ticks))))
        steps += 1
    assert steps == 6
    assert account.status("INBOX").size == 5 * 14


def test_an_unreadable_message_stays_unmeasured(account: MaildirAccount) -> None:
    path = Path(account.root, "new", "1700000000.x.host")
    path.write_bytes(b"Subject: x\n\n")
    account.status("INBOX")
    path.unlink()
    os.mkfifo(path)
    assert account.mailbox("INBOX").measure_rest(UID(1), TimeSlice(1 << 20)) is None


def test_a_message_that_is_changed_in_place_is_counted_with_its_new_size(account: MaildirAccount) -> None:
    append(account, "one")
    inbox = account.mailbox("INBOX")
    [uid] = uids(inbox)
    [name] = os.listdir(os.path.join(account.root, "new"))
    with open(os.path.join(account.root, "new", name), "ab") as file:
        file.write(b"more\r\n")
    size = inbox.open_message(uid).size
    assert account.status("INBOX").size == size


def test_the_sums_of_a_deleted_mailbox_go(account: MaildirAccount) -> None:
    account.create("a")
    octets = append(account, "one")
    account.append("a", [staged(account, message("two"))])
    index = account._home.index()
    with index.transaction():
        index.sums.put_account()
    account.delete("a")
    whole = index.sums.of(ACCOUNT)
    assert whole is not None
    assert whole[:3] == (1, octets, 0)
