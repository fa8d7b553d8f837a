"""REPLACE on a Maildir: files, other programs that come between, and what the next process makes of an interrupted one."""

from __future__ import annotations

import os

import pytest

from mailserver.errors import MessageExpunged, StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.home import intent
from tests.store.maildirs import append, files, name_of, open_account, uidlist, uids
from tests.store.test_maildir_delivery import leftovers, staged

NEW = b"Subject: new\r\n\r\nnew\r\n"


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


class Interrupted(BaseException):
    """The process is gone."""


def at(point, act):
    def hook(name):
        if name == point:
            act()

    return hook


def path_of(account, name):
    [place] = [place for place in ("new", "cur") if name in os.listdir(os.path.join(account.root, place))]
    return os.path.join(account.root, place, name)


def test_one_file_takes_the_place_of_the_other(account):
    old = append(account, flags=["\\Draft"])
    append(account)
    inbox = account.mailbox("INBOX")
    name = name_of(account, old)
    appended = inbox.replace(old, "INBOX", staged(account, NEW, ["\\Draft"]))
    assert len(files(account)) == 2
    assert name not in files(account)
    assert leftovers(account) == []
    # A rebuilt index sees the same, with the same UIDs.
    seen = uids(inbox)
    account.close()
    os.unlink(os.path.join(account.root, "mailserver-index.sqlite"))
    assert uids(account.mailbox("INBOX")) == seen == [2, *appended.uids]


@pytest.mark.parametrize("target", ["INBOX", "sent"])
def test_a_flag_that_another_program_sets_meanwhile_saves_nothing(account, monkeypatch, target):
    account.create("sent")
    old = append(account)
    name = name_of(account, old)
    seen = os.path.join(account.root, "cur", name + ":2,S")
    monkeypatch.setattr(safeio, "hook", at("replace.before-unlink", lambda: os.rename(path_of(account, name), seen)))
    inbox = account.mailbox("INBOX")
    [uid] = inbox.replace(old, target, staged(account, NEW)).uids
    monkeypatch.undo()
    inbox.refresh()
    assert not os.path.exists(seen)
    assert uids(inbox) == ([uid] if target == "INBOX" else [])
    assert uids(account.mailbox(target)) == [uid]
    assert leftovers(account) == []


def test_a_message_that_another_program_removes_meanwhile_is_replaced_all_the_same(account, monkeypatch):
    old = append(account)
    name = name_of(account, old)
    monkeypatch.setattr(safeio, "hook", at("replace.before-unlink", lambda: os.unlink(path_of(account, name))))
    inbox = account.mailbox("INBOX")
    [uid] = inbox.replace(old, "INBOX", staged(account, NEW)).uids
    monkeypatch.undo()
    inbox.refresh()
    assert uids(inbox) == [uid]


def test_a_message_that_another_program_has_removed_is_not_replaced(account):
    old = append(account)
    os.unlink(path_of(account, name_of(account, old)))
    new = staged(account, NEW)
    with pytest.raises(MessageExpunged):
        account.mailbox("INBOX").replace(old, "INBOX", new)
    new.staged.abort()
    assert files(account) == []
    assert leftovers(account) == []


def test_a_file_that_cannot_be_removed_leaves_all_as_it_was(account, monkeypatch):
    old = append(account)
    [name] = files(account)
    unlink = safeio.unlink

    def refuse(path):
        if os.path.basename(path) == name:
            raise StoreUnavailable
        unlink(path)

    monkeypatch.setattr(safeio, "unlink", refuse)
    new = staged(account, NEW)
    with pytest.raises(StoreUnavailable):
        account.mailbox("INBOX").replace(old, "INBOX", new)
    new.staged.abort()
    monkeypatch.undo()
    inbox = account.mailbox("INBOX")
    inbox.refresh()
    assert files(account) == [name]
    assert uids(inbox) == [old]
    assert leftovers(account) == []


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_an_interrupted_one_keeps_the_old_message_if_the_new_one_is_not_where_it_was_put(account, monkeypatch, how):
    """Both are better than none."""
    old = append(account)
    name = name_of(account, old)

    def die():
        raise Interrupted

    monkeypatch.setattr(safeio, "hook", at("replace.before-unlink", die))
    # A dead process takes nothing back.
    monkeypatch.setattr("mailserver.store.maildir.mailbox.replacement.take_back", lambda *_: None)
    with pytest.raises(Interrupted):
        account.mailbox("INBOX").replace(old, "INBOX", staged(account, NEW))
    monkeypatch.undo()
    account.close()
    assert len(os.listdir(os.path.join(account.root, intent.DIRECTORY))) == 1
    [new] = [each for each in files(account) if each != name]
    if how == "renamed":
        os.rename(path_of(account, new), os.path.join(account.root, "cur", new + ":2,S"))
    else:
        os.unlink(path_of(account, new))
    account.append("INBOX", [staged(account)])
    inbox = account.mailbox("INBOX")
    inbox.refresh()
    assert name in files(account)
    assert len(uids(inbox)) == (3 if how == "renamed" else 2)
    assert old in uids(inbox)
    assert leftovers(account) == []


def test_many_replacements_keep_the_uidlist_short(account):
    uid = append(account, flags=["\\Draft"])
    inbox = account.mailbox("INBOX")
    for _ in range(250):
        [uid] = inbox.replace(uid, "INBOX", staged(account, NEW, ["\\Draft"])).uids
    assert uidlist(account).count("\n") < 200
    assert uids(inbox) == [uid]
