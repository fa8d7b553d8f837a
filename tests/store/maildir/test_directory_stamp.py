"""A stamp says "unchanged" only while nobody, in this process or another, has changed the mailbox."""

from __future__ import annotations

import os
import time

import pytest

from mailserver.store.flags import FlagChange
from mailserver.store.maildir.format import uidlist
from tests.store.maildirs import open_account
from tests.store.samples import put


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


@pytest.fixture
def other(tmp_path, account):
    """Another process of ours."""
    return open_account(tmp_path)


def age(account, name="INBOX"):
    """Let new/ and cur/ be as they are since long ago."""
    root = account.root if name == "INBOX" else os.path.join(account.root, "." + name)
    past = time.time_ns() - 60 * 10**9
    for place in ("new", "cur"):
        os.utime(os.path.join(root, place), ns=(past, past))


def settled(account, name="INBOX"):
    """The stamp of a mailbox that was read when nothing was fresh or recent."""
    mailbox = account.mailbox(name)
    mailbox.refresh()
    mailbox.claim_recent()
    age(account, name)
    mailbox.refresh()
    stamp = mailbox.load().stamp
    assert stamp is not None
    assert stamp.settled
    assert stamp.unchanged(name)
    return stamp


def test_what_nobody_touches_stays_unchanged(account, other):
    put(account)
    stamp = settled(account)
    other.mailbox("INBOX").refresh()
    other.status("INBOX")
    assert stamp.unchanged("INBOX")
    assert stamp.settled


def test_all_that_is_read_of_it_carries_the_mark(account):
    put(account)
    settled(account)
    mailbox = account.mailbox("INBOX")
    for stamp in (mailbox.load().stamp, mailbox.changes_since(0).stamp, mailbox.status().stamp):
        assert stamp.settled
        assert stamp.unchanged("INBOX")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(put, id="append"),
        pytest.param(lambda account: put(account, flags=["\\Seen"]), id="append with flags"),
        pytest.param(lambda account: account.mailbox("INBOX").store_flags([1], FlagChange.ADD, ["\\Seen"]), id="flag"),
        pytest.param(lambda account: account.mailbox("INBOX").store_flags([1], FlagChange.ADD, ["word"]), id="keyword"),
        pytest.param(lambda account: account.mailbox("INBOX").expunge([1], only_deleted=False), id="expunge"),
        pytest.param(lambda account: account.mailbox("INBOX").move([1], "target"), id="move away"),
        pytest.param(lambda account: account.mailbox("target").copy([1], "INBOX"), id="copy in"),
        pytest.param(lambda account: account.rename("INBOX", "elsewhere"), id="rename"),
    ],
)
@pytest.mark.parametrize("by", ["us", "another process"])
def test_every_change_of_ours_shows(account, other, change, by):
    put(account)
    account.create("target")
    put(account, "target")
    stamp = settled(account)
    change(account if by == "us" else other)
    assert not stamp.unchanged("INBOX")


def test_a_delivery_and_a_rename_by_foreign_programs_show(account):
    put(account)
    stamp = settled(account)
    path = os.path.join(account.root, "new", "1700000001.M1P1.other")
    with open(path, "wb") as file:
        file.write(b"x")
    assert not stamp.unchanged("INBOX")
    stamp = settled(account)
    [name] = [name for name in os.listdir(os.path.join(account.root, "cur")) if name.startswith("1700000001.")]
    cur = os.path.join(account.root, "cur", "")
    os.rename(cur + name, cur + name + "F")
    assert not stamp.unchanged("INBOX")


def test_a_uid_that_another_program_burns_shows(account):
    put(account)
    stamp = settled(account)
    with open(os.path.join(account.root, uidlist.FILE_NAME), "ab") as file:
        file.write(b"7 :1700000001.M1P1.other\n")
    assert not stamp.unchanged("INBOX")


def test_recent_messages_that_nobody_has_claimed_are_not_settled(account, other):
    """Another process claims them without a trace on disk where they lie in cur/ already."""
    put(account, flags=["\\Seen"])
    age(account)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    stamp = mailbox.load().stamp
    assert not stamp.settled
    other.mailbox("INBOX").claim_recent()
    assert mailbox.changes_since(0).stamp.settled
    assert mailbox.status().recent == 0


def test_fresh_times_are_not_settled(account):
    put(account)
    mailbox = account.mailbox("INBOX")
    mailbox.claim_recent()
    mailbox.refresh()
    assert not mailbox.load().stamp.settled


def test_a_mailbox_deleted_renamed_or_made_anew_is_another(account, other):
    account.create("a")
    account.create("b")
    put(account, "a")
    put(account, "b")
    first, second = settled(account, "a"), settled(account, "b")
    assert not first.unchanged("b")
    other.rename("a", "c")
    assert not first.unchanged("a")
    assert not first.unchanged("c"), "the stamp knows it by its old name only"
    other.rename("b", "a")
    assert not first.unchanged("a")
    assert not second.unchanged("b")
    renamed = settled(account, "a")
    other.delete("a")
    assert not renamed.unchanged("a")
    other.create("a")
    assert not renamed.unchanged("a")


def test_an_intent_that_waits_is_no_time_to_answer_from_memory(account):
    put(account)
    stamp = settled(account)
    account._home.something_due = True
    assert not stamp.unchanged("INBOX")


def test_what_was_read_before_the_machine_started_anew_is_not_settled(account, monkeypatch):
    put(account)
    settled(account)
    mailbox = account.mailbox("INBOX")
    monkeypatch.setattr(account._home, "boot", "another")
    assert not mailbox.load().stamp.settled
