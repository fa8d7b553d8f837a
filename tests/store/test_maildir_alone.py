"""What an account object remembers of its own writes: right when nobody else was there, forgotten when somebody was."""

from __future__ import annotations

import os

import pytest
from attrs import evolve

from mailserver.store.flags import FLAGGED, SEEN, FlagChange
from mailserver.store.maildir.disk import lock
from mailserver.store.maildir.home import local_changes
from mailserver.store.receiving import NewMessage
from tests.store.maildirs import TEXT, append, files, open_account, uids


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


@pytest.fixture
def other(tmp_path, account):
    """The same account in what could be another process: an object with a lock and an index of its own."""
    return open_account(tmp_path)


def flag(mailbox, uid, flags=("\\Flagged",)):
    mailbox.store_flags([uid], FlagChange.ADD, flags)


def expunge(mailbox, uid):
    mailbox.expunge([uid], only_deleted=False)


STEPS = {
    "append": lambda account, mailbox, uid: append(account),
    "append with flags": lambda account, mailbox, uid: append(account, flags=["\\Seen", "work"]),
    "store": lambda account, mailbox, uid: flag(mailbox, uid),
    "store a keyword": lambda account, mailbox, uid: flag(mailbox, uid, ["later"]),
    "expunge": lambda account, mailbox, uid: expunge(mailbox, uid),
    "copy": lambda account, mailbox, uid: mailbox.copy([uid], "there"),
    "copy within": lambda account, mailbox, uid: mailbox.copy([uid], "INBOX"),
    "move": lambda account, mailbox, uid: mailbox.move([uid], "there"),
    "move within": lambda account, mailbox, uid: mailbox.move([uid], "INBOX"),
    "store nothing new": lambda account, mailbox, uid: mailbox.store_flags([uid], FlagChange.REMOVE, ["\\Draft"]),
}


@pytest.mark.parametrize("is_read", [True, False])
def test_a_long_change_is_remembered_until_it_is_read_or_the_next_begins(account, other, monkeypatch, is_read):
    monkeypatch.setattr(local_changes, "LARGE", 2)
    account.create("there")
    for _ in range(3):
        append(account)
    here, there = account.mailbox("INBOX"), account.mailbox("there")
    before = {mailbox: mailbox.load().modseq for mailbox in (here, there)}
    here.move([1, 2, 3], "there")
    assert len(account._home.local_changes) == 2
    for mailbox, since in before.items() if is_read else ():
        told = [mailbox.changes_since(since) for _ in range(2)]
        told.append(other.mailbox(mailbox.name).changes_since(since))
        assert all(evolve(changes, stamp=None) == evolve(told[0], stamp=None) for changes in told)
        assert len(told[0].expunged) == (3 if mailbox is here else 0)
    if not is_read:
        flag(there, 1)
    assert len(account._home.local_changes) == (0 if is_read else 1)


@pytest.mark.parametrize("step", STEPS)
def test_what_a_change_is_remembered_to_have_done_is_what_the_index_tells(account, other, step):
    account.create("there")
    for _ in range(3):
        append(account)
    here, there = account.mailbox("INBOX"), account.mailbox("there")
    before = {name: account.mailbox(name).load().modseq for name in ("INBOX", "there")}
    STEPS[step](account, here, 2)
    for name, mailbox in (("INBOX", here), ("there", there)):
        told = mailbox.changes_since(before[name])
        assert evolve(told, stamp=None) == evolve(other.mailbox(name).changes_since(before[name]), stamp=None)
    # and what the next change starts from
    flag(here, 1)
    row = next(row for row in other.mailbox("INBOX").load().rows if row.uid == 1)
    assert row.flags & FLAGGED


@pytest.mark.parametrize("first", STEPS)
@pytest.mark.parametrize("second", STEPS)
def test_two_in_turns_see_each_others_changes(account, other, first, second):
    account.create("there")
    for _ in range(6):
        append(account)
    mailboxes = account.mailbox("INBOX"), other.mailbox("INBOX")
    for turn in range(2):
        for (each, mailbox), step in zip(zip((account, other), mailboxes, strict=True), (first, second), strict=True):
            mailbox.refresh()
            STEPS[step](each, mailbox, uids(mailbox)[turn])
    for each in (account, other):
        each.mailbox("INBOX").refresh()
        assert len(uids(each.mailbox("INBOX"))) == len(files(each))
    assert account.mailbox("INBOX").load().rows == other.mailbox("INBOX").load().rows
    assert account.mailbox("there").load().rows == other.mailbox("there").load().rows
    with open(os.path.join(account.root, "dovecot-uidlist")) as file:
        listed = [int(line.split()[0]) for line in file.read().splitlines()[1:]]
    assert listed == sorted(set(listed)), "no UID is given twice"


def test_within_exclusive_nobody_else_changes_anything(account, other, monkeypatch):
    append(account)
    mailbox = account.mailbox("INBOX")
    monkeypatch.setattr(lock, "WAIT", 0.05)
    with mailbox.exclusive():
        with pytest.raises(lock.InUse):
            flag(other.mailbox("INBOX"), 1)
        flag(mailbox, 1)
        assert [row.flags for row in mailbox.changes_since(0).rows] == [FLAGGED]
    flag(other.mailbox("INBOX"), 1, ["\\Seen"])
    assert [row.flags for row in mailbox.changes_since(0).rows] == [FLAGGED | SEEN]


def test_a_change_that_fails_leaves_nothing_remembered(account, monkeypatch):
    append(account)
    mailbox = account.mailbox("INBOX")
    flag(mailbox, 1)

    def fail(path):
        raise lock.StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr("mailserver.store.maildir.disk.safeio.sync_directory", fail)
        with pytest.raises(lock.StoreUnavailable):
            flag(mailbox, 1, ["\\Seen"])
    mailbox.refresh()
    [row] = mailbox.load().rows
    assert row.flags == FLAGGED, "it is taken back, and the file says so"


def deliver(account, seen_by):
    stage = account.stage()
    stage.write(TEXT)
    return account.append("INBOX", [NewMessage(stage, frozenset(), None)], seen_by)


def test_a_message_for_a_session_that_is_there_goes_to_cur_at_once(account):
    asked = []
    appended = deliver(account, lambda mailbox: not asked.append(mailbox))
    assert appended.claimed
    assert asked == [appended.mailbox]
    [name] = os.listdir(os.path.join(account.root, "cur"))
    assert name.endswith(":2,")
    assert os.listdir(os.path.join(account.root, "new")) == []


def test_one_that_comes_after_others_waits_with_them(account):
    append(account)
    assert not deliver(account, lambda _mailbox: True).claimed
    assert len(os.listdir(os.path.join(account.root, "new"))) == 2
    assert account.mailbox("INBOX").claim_recent().start == 1
