"""Parts of a Maildir that somebody removes, renames or locks below the running server."""

from __future__ import annotations

import os
import shutil

import pytest

from mailserver.errors import BadMailboxName, MailError, StoreUnavailable
from mailserver.store.flags import FLAGGED, SEEN, FlagChange
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.format.dotlocks import Dotlocks
from mailserver.store.maildir.home import folders
from mailserver.store.receiving import Delivery, NewMessage
from tests.store.maildirs import TEXT, append, open_account, uids


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


@pytest.mark.parametrize(
    "act", ["append", "group", "large", "prepare", "store", "copy", "move", "move away", "expunge"]
)
@pytest.mark.parametrize("missing", ["new", "tmp", "new tmp"])
def test_an_empty_directory_removed_below_the_running_server_is_made_again(account, missing, act):
    account.create("there")
    kept = append(account, flags=["\\Seen"])
    away = append(account, "there", flags=["\\Seen"])
    mailbox, there = account.mailbox("INBOX"), account.mailbox("there")
    for box in (mailbox, there):
        box.refresh()
        box.claim_recent()
    for part in missing.split():
        os.rmdir(os.path.join(account.root, part))
    if act in {"append", "group", "large", "prepare"}:
        messages = []
        for _ in range(2 if act == "group" else 1):
            stage = account.stage()
            stage.write(TEXT + b"x" * (1_000_000 if act == "large" else 0))
            messages.append(NewMessage(stage))
        if act == "prepare":
            account.prepare("INBOX", messages).publish()
        else:
            account.append("INBOX", messages)
    elif act == "store":
        mailbox.store_flags([kept], FlagChange.ADD, ["\\Flagged"])
    elif act == "expunge":
        mailbox.expunge([kept], only_deleted=False)
    elif act == "move away":
        mailbox.move([kept], "there")
    else:
        getattr(there, act)([away], "INBOX")
    mailbox.refresh()
    expected = {"store": 1, "expunge": 0, "move away": 0, "group": 3}.get(act, 2)
    assert len(uids(mailbox)) == expected
    append(account)
    mailbox.refresh()
    assert len(uids(mailbox)) == expected + 1


def test_a_mailbox_that_goes_below_the_running_server_is_refused(account):
    account.create("there")
    append(account, "there")
    account.mailbox("there").refresh()
    stage = account.stage()
    stage.write(TEXT)
    shutil.rmtree(os.path.join(account.root, ".there"))
    with pytest.raises(MailError):
        account.append("there", [NewMessage(stage)])
    stage.abort()
    shutil.rmtree(account.root)
    stage = account.stage()
    with pytest.raises(StoreUnavailable):
        stage.write(b"x" * 1_000_000)


def fifo(path):
    shutil.rmtree(path)
    os.mkfifo(path)


def a_file(path):
    shutil.rmtree(path)
    with open(path, "wb"):
        pass


def a_link(path):
    os.rename(path, path + ".elsewhere")
    os.symlink(path + ".elsewhere", path)


@pytest.mark.parametrize("instead", [shutil.rmtree, fifo, a_file, a_link])
@pytest.mark.parametrize("part", ["cur", "new", "tmp"])
def test_an_inbox_that_is_not_on_the_disk_is_never_said_not_to_exist(account, part, instead):
    """An MTA would return its mail, and a client forget what it has."""
    append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    instead(os.path.join(account.root, part))

    def deliver():
        stage = account.stage()
        try:
            stage.write(TEXT)
            [outcome] = account.deliver([Delivery("INBOX", [NewMessage(stage)])])
        finally:
            stage.abort()
        if isinstance(outcome, Exception):
            raise outcome

    refused = []
    for act in (deliver, mailbox.refresh, lambda: account.mailbox("INBOX").refresh(), lambda: append(account)):
        try:
            act()
        except StoreUnavailable:
            refused.append(act)
    if instead is shutil.rmtree and part in {"new", "tmp"}:
        assert refused == []
    elif instead is not a_link:
        assert refused != []


@pytest.mark.parametrize("instead", [fifo, a_file, a_link])
@pytest.mark.parametrize("part", ["new", "tmp"])
def test_the_log_can_say_which_part_of_a_mailbox_is_no_directory(account, part, instead):
    account.create("there")
    path = os.path.join(account.root, ".there")
    instead(os.path.join(path, part))
    with pytest.raises(StoreUnavailable, match=f"has a {part} that is no directory"):
        folders.complete(path)


@pytest.mark.parametrize("instead", [fifo, a_file, a_link])
def test_no_mailbox_is_made_where_something_else_has_its_name(account, instead):
    path = os.path.join(account.root, ".there")
    account.create("there")
    instead(path)
    with pytest.raises(BadMailboxName, match="something else has that name"):
        account.create("there")
    assert os.path.lexists(path)
    assert "there" not in account.mailboxes()
    assert not [name for name in os.listdir(account.root) if "unfinished" in name]


def test_an_account_that_is_not_on_the_disk_is_never_said_to_have_no_inbox(account):
    shutil.rmtree(account.root)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            account.mailbox("INBOX")
        with pytest.raises(StoreUnavailable):
            append(account)


def test_a_renamed_mailbox_is_found_by_the_first_lines_of_the_lists(account, monkeypatch):
    for number in range(5):
        account.create(f"box{number}")
        append(account, f"box{number}")
    account.create("there")
    append(account, "there")
    mailbox = account.mailbox("there")
    mailbox.refresh()
    os.rename(os.path.join(account.root, ".there"), os.path.join(account.root, ".zero"))
    whole = uidlist.read
    read = []

    def count(path):
        read.append(path)
        return whole(path)

    monkeypatch.setattr(uidlist, "read", count)
    mailbox.refresh()
    assert mailbox.name == "zero"
    assert uids(mailbox) == [1]
    assert {os.path.basename(os.path.dirname(path)) for path in read} <= {".zero"}


@pytest.mark.parametrize("act", ["copy", "move"])
@pytest.mark.parametrize("target", ["a", "z", "m"])
def test_no_lock_of_another_program_is_waited_for_while_one_is_held(account, monkeypatch, act, target):
    for name in ("a", "m", "z"):
        account.create(name)
    uid = append(account, "m", flags=["\\Seen"])
    mailbox = account.mailbox("m")
    mailbox.refresh()
    cur = os.path.join(account.root, ".m", "cur")
    [name] = os.listdir(cur)
    os.rename(os.path.join(cur, name), os.path.join(cur, name.replace(":2,S", ":2,FS")))
    with open(os.path.join(account.root, ".m", "new", "1700000001.M1P1.other"), "wb") as file:
        file.write(TEXT)
    held, order = set(), []
    take, release = Dotlocks.take, Dotlocks.release

    def taking(locks, directory):
        assert not held, "one at a time"
        held.add(directory)
        order.append(directory)
        take(locks, directory)

    def releasing(locks, directory):
        held.discard(directory)
        release(locks, directory)

    monkeypatch.setattr(Dotlocks, "take", taking)
    monkeypatch.setattr(Dotlocks, "release", releasing)
    copied = getattr(mailbox, act)([uid], target)
    assert list(copied.source) == [uid]
    assert {os.path.basename(directory) for directory in order} == {".m", f".{target}"}
    [row] = [row for row in account.mailbox(target).load().rows if row.uid == copied.target[0]]
    assert row.flags == SEEN | FLAGGED
