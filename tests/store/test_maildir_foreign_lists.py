"""dovecot-uidlist and dovecot-keywords as other programs write them: taken up, mended, never believed too far."""

from __future__ import annotations

import os
import re

import pytest

from mailserver.errors import MailboxChanged, NoSpace
from mailserver.store.flags import FlagChange
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist as uidlist_module
from mailserver.store.query import HasFlag
from tests.store.maildirs import append, deliver, files, name_of, open_account, uidlist, uids


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


def test_letters_of_others_stay(account):
    deliver(account, "1700000001.M1P1.other:2,PS", place="cur")
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    mailbox.store_flags(uids(mailbox), FlagChange.REPLACE, ["\\Flagged"])
    assert files(account) == ["1700000001.M1P1.other:2,FP"]
    account.create("other")
    mailbox.copy(uids(mailbox), "other")
    [name] = files(account, "other")
    assert name.endswith(":2,FP")


def test_keywords_of_dovecot_are_read(account):
    with open(os.path.join(account.root, "dovecot-keywords"), "w") as file:
        file.write("0 $Forwarded\n3 work\n")
    deliver(account, "1700000001.M1P1.other:2,ad", place="cur")
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    snapshot = mailbox.load()
    assert snapshot.keywords == ("$Forwarded", "", "", "work")
    assert snapshot.rows[0].flags == 1 << 5 | 1 << 8
    assert mailbox.search(HasFlag("WORK"), uids(mailbox)) == uids(mailbox)


def test_uids_that_dovecot_gives_are_taken(account):
    append(account)
    mailbox = account.mailbox("INBOX")
    deliver(account)
    with open(os.path.join(account.root, "dovecot-uidlist"), "a") as file:
        file.write("70 :1700000001.M1P1.other\n")
    mailbox.refresh()
    assert uids(mailbox) == [1, 70]
    assert append(account) == 71


def test_of_a_list_that_grew_only_the_end_is_read(account, monkeypatch):
    append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    deliver(account)
    with open(os.path.join(account.root, "dovecot-uidlist"), "a") as file:
        file.write("70 :1700000001.M1P1.other\n71 :never-came\n")
    deliver(account, "1700000002.M1P1.other")
    monkeypatch.setattr(uidlist_module, "read", lambda path: pytest.fail("the whole list was read"))
    mailbox.refresh()
    assert uids(mailbox) == [1, 70, 72]
    assert append(account) == 73


def test_a_known_message_that_the_end_of_the_list_gives_another_uid(account):
    one, _two = append(account), append(account)
    mailbox = account.mailbox("INBOX")
    since = mailbox.load().modseq
    base = name_of(account, one)
    with open(os.path.join(account.root, "dovecot-uidlist"), "a") as file:
        file.write(f"9 :{base}\n")
    mailbox.refresh()
    assert uids(mailbox) == [2, 9]
    assert mailbox.changes_since(since).expunged == [1]


def test_a_replaced_list_is_read_whole_though_it_is_longer(account):
    for _ in range(3):
        append(account)
    mailbox = account.mailbox("INBOX")
    header, *lines = uidlist(account).splitlines(keepends=True)
    # Dovecot writes its list anew and gives the second message another UID; the file may get the same inode
    changed = [lines[0], lines[2], lines[1].replace("2 :", "40 :", 1)]
    with open(os.path.join(account.root, "dovecot-uidlist"), "r+") as file:
        file.write(header + "".join(changed) + "50 :more\n")
    mailbox.refresh()
    assert uids(mailbox) == [1, 3, 40]
    assert append(account) == 51


def test_a_uid_below_what_was_told_is_not_taken(account):
    for _ in range(5):
        append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.expunge([4], only_deleted=False)
    lines = uidlist(account).splitlines()
    old = lines[4].split(":", 1)[1]
    deliver(account, old)
    mailbox.refresh()
    assert uids(mailbox) == [1, 2, 3, 5, 6]


def test_a_list_that_was_cut_back_is_mended_from_the_index(account):
    for _ in range(3):
        append(account)
    mailbox = account.mailbox("INBOX")
    validity = mailbox.load().uid_validity
    before = uidlist(account)
    with open(os.path.join(account.root, "dovecot-uidlist"), "w") as file:
        file.write("".join(before.splitlines(keepends=True)[:2]))
    mailbox.refresh()
    assert uids(mailbox) == [1, 2, 3]
    assert [line.split()[0] for line in uidlist(account).splitlines()[1:]] == ["1", "2", "3"]
    assert mailbox.load().uid_validity == validity
    assert append(account) == 4


def test_a_list_that_was_removed_is_made_from_the_index(account):
    for _ in range(3):
        append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.expunge([2, 3], only_deleted=False)
    before = mailbox.load()
    os.unlink(os.path.join(account.root, "dovecot-uidlist"))
    mailbox.refresh()
    after = mailbox.load()
    assert (after.uid_validity, after.uid_next, uids(mailbox)) == (before.uid_validity, before.uid_next, [1])
    assert append(account) == 4


@pytest.mark.parametrize("more", ["", "70 :more\n"])
def test_a_list_with_another_uidvalidity_is_another_mailbox(account, more):
    append(account)
    mailbox = account.mailbox("INBOX")
    validity = mailbox.load().uid_validity
    text = uidlist(account)
    with open(os.path.join(account.root, "dovecot-uidlist"), "w") as file:
        file.write(text.replace(f" V{validity} ", f" V{validity + 5} ") + more)
    with pytest.raises(MailboxChanged):
        mailbox.refresh()
    assert account.status("INBOX").uid_validity == validity + 5
    assert account.status("INBOX").messages == 1


def cut_back(account, lines):
    """As an old copy that somebody restores: the header of the first message's time, and so many lines."""
    header, *entries = uidlist(account).splitlines(keepends=True)
    header = re.sub(r" N\d+", " N1", header)
    with open(os.path.join(account.root, "dovecot-uidlist"), "w") as file:
        file.write(header + "".join(entries[:lines]))


@pytest.mark.parametrize("lost", [False, True])
def test_a_list_that_was_cut_back_has_all_that_was_told_and_what_is_new(account, lost):
    kept, gone = append(account), append(account)
    base = name_of(account, kept).partition(":")[0]
    unlisted = next(name for name in files(account) if not name.startswith(base))
    cut_back(account, 0)
    if lost:
        os.unlink(os.path.join(account.root, "dovecot-uidlist"))
    [place] = [part for part in ("new", "cur") if unlisted in os.listdir(os.path.join(account.root, part))]
    os.unlink(os.path.join(account.root, place, unlisted))
    deliver(account)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert uids(mailbox) == [kept, gone + 1]
    lines = uidlist(account).splitlines()[1:]
    assert [line for line in lines if not line.startswith(f"{gone} ")] == [
        f"{kept} :{base}",
        f"{gone + 1} :1700000001.M1P1.other",
    ]
    assert lost or len(lines) == 2, "of what is gone as well nothing is listed"


def test_uids_that_only_the_index_remembers_stay_burnt_in_a_list_that_was_cut_back(account):
    append(account)
    burnt = append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.expunge([burnt], only_deleted=False)
    cut_back(account, 1)
    mailbox.refresh()
    assert f" N{burnt + 1} " in uidlist(account).splitlines()[0]


def test_a_new_mailbox_is_listed_in_one_write_that_is_not_read_again(account, monkeypatch):
    os.unlink(os.path.join(account.root, "dovecot-uidlist"))
    for number in range(3):
        deliver(account, f"170000000{number}.M1P1.other:2,S", place="cur")
    replace, written = safeio.replace, []
    monkeypatch.setattr(safeio, "replace", lambda path, *more: written.append(path) or replace(path, *more))
    mailbox = account.mailbox("INBOX")
    assert [os.path.basename(path) for path in written] == ["dovecot-uidlist"]
    assert [line.split()[0] for line in uidlist(account).splitlines()[1:]] == ["1", "2", "3"]
    monkeypatch.setattr(uidlist_module, "read", lambda path: pytest.fail("the list was read"))
    mailbox.refresh()
    assert uids(mailbox) == [1, 2, 3]


def test_where_there_is_no_room_for_the_lines_a_new_mailbox_has_its_list_all_the_same(account, monkeypatch):
    os.unlink(os.path.join(account.root, "dovecot-uidlist"))
    deliver(account)
    create = uidlist_module.create_with

    def full(listed, lines):
        if lines:
            raise NoSpace
        return create(listed, lines)

    with monkeypatch.context() as patch:
        patch.setattr(uidlist_module, "create_with", full)
        mailbox = account.mailbox("INBOX")
        assert uids(mailbox) == []
        header = uidlist(account)
        assert header.count("\n") == 1
    mailbox.refresh()
    assert uids(mailbox) == [1]
    assert uidlist(account).split()[1] == header.split()[1], "the same UIDVALIDITY"
