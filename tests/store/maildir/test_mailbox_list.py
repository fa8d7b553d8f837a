"""The list of an account's mailboxes is used again only while nobody, in this process or another, has changed it."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from mailserver.errors import NoSuchMailbox
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.home.folders import Layout
from tests.store.samples import USER, put

OURS = ("mailserver-special-use", "subscriptions")


@pytest.fixture
def account(tmp_path):
    account = open_account(tmp_path)
    account.create("a/b")
    return account


@pytest.fixture
def other(tmp_path, account):
    """Another process of ours."""
    return open_account(tmp_path)


def open_account(path):
    return MaildirStore(path, summarise, hostname="host.example.test").account(USER)


def age(account):
    """Let the root and the files in it be as they are since long ago."""
    past = time.time_ns() - 60 * 10**9
    for path in (*(os.path.join(account.root, name) for name in OURS), account.root):
        if os.path.exists(path):
            os.utime(path, ns=(past, past))


def settled(account):
    """The list, read when nothing was fresh."""
    age(account)
    listed = account.mailbox_list()
    assert listed.is_current()
    return listed


def names(account):
    return [info.name for info in account.mailbox_list().infos]


def test_a_list_of_an_account_that_nobody_touches_is_used_again_without_reading_it(account, other, monkeypatch):
    listed = settled(account)
    other.mailboxes()
    other.status("INBOX")
    monkeypatch.setattr(Layout, "directories", lambda _self, _known: pytest.fail("it was read"))
    assert account.mailbox_list() is listed


def test_a_fresh_root_proves_nothing(account):
    account.create("new")
    assert not account.mailbox_list().is_current()


def test_a_list_whose_parts_are_the_same_stays_the_same_though_the_root_has_changed(account):
    listed = settled(account)
    put(account)
    assert not listed.is_current(), "Dovecot's lock was in the root"
    assert account.mailbox_list() is listed
    age(account)
    assert account.mailbox_list() is listed
    assert listed.is_current()


@pytest.mark.parametrize("by", ["us", "another process"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda account: account.create("c"), id="create"),
        pytest.param(lambda account: account.delete("a/b"), id="delete"),
        pytest.param(lambda account: account.rename("a", "z"), id="rename"),
        pytest.param(lambda account: account.set_subscribed("a/b", subscribed=True), id="subscribe"),
        pytest.param(lambda account: account.set_subscribed("Sent", subscribed=False), id="unsubscribe"),
        pytest.param(lambda account: account.give_special_use("\\Sent", "a/b"), id="special use"),
    ],
)
def test_every_change_shows(account, other, change, by):
    listed = settled(account)
    change(account if by == "us" else other)
    assert not listed.is_current()
    now = account.mailbox_list()
    fresh = other.mailbox_list()
    assert (now.infos, now.subscribed) == (fresh.infos, fresh.subscribed)
    assert (now.infos, now.subscribed) != (listed.infos, listed.subscribed)


def test_a_directory_becomes_a_mailbox_once_it_has_cur_though_the_root_does_not_change(account):
    os.makedirs(os.path.join(account.root, ".foreign"))
    listed = settled(account)
    assert "foreign" not in names(account)
    for part in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(account.root, ".foreign", part))
    assert not listed.is_current()
    assert "foreign" in names(account)


def test_a_mailbox_without_cur_is_dropped_once_somebody_tries_to_open_it(account):
    settled(account)
    shutil.rmtree(os.path.join(account.root, ".a.b", "cur"))
    with pytest.raises(NoSuchMailbox):
        account.status("a/b")
    assert "a/b" not in names(account)


def test_many_directories_without_cur_are_not_examined_on_the_reactors_thread(account):
    for number in range(20):
        os.makedirs(os.path.join(account.root, f".x{number}"))
    age(account)
    assert not account.mailbox_list().is_current()


def test_a_special_use_goes_with_its_mailbox_that_another_program_replaces(account):
    settled(account)
    sent, other = (os.path.join(account.root, name) for name in (".Sent", ".a.b"))
    listed = account.mailbox_list()
    # The uidlists have the GUIDs: now a/b is the mailbox that was given \\Sent. The root stays as it was.
    name = "dovecot-uidlist"
    os.rename(os.path.join(sent, name), os.path.join(sent, "kept"))
    os.rename(os.path.join(other, name), os.path.join(sent, name))
    os.rename(os.path.join(sent, "kept"), os.path.join(other, name))
    assert not listed.is_current()
    uses = {info.name: set(info.special_use) for info in account.mailboxes()}
    assert (uses["Sent"], uses["a/b"]) == (set(), {"\\Sent"})


def test_files_that_another_program_writes_in_place_show(account):
    listed = settled(account)
    with open(os.path.join(account.root, "subscriptions"), "ab") as file:
        file.write(b"more\n")
    assert not listed.is_current()
    assert "more" in account.mailbox_list().subscribed


def test_an_account_that_is_closed_keeps_no_list(account):
    listed = settled(account)
    account.close()
    assert account.mailbox_list() is not listed
