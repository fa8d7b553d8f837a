"""What other programs do to a Maildir behind our back is taken up, and never ends or confuses a session."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from mailserver.errors import MailboxChanged, MessageExpunged, NoSpace, StoreUnavailable
from mailserver.store.flags import DELETED, FLAGGED, SEEN, FlagChange
from mailserver.store.maildir.disk import lock, safeio
from mailserver.store.maildir.format import uidlist as uidlist_module
from mailserver.store.maildir.home import local_changes
from mailserver.store.maildir.mailbox import summary_reader
from mailserver.store.maildir.sync import scan
from mailserver.store.query import All, Larger, Text
from mailserver.types import UNKNOWN_SIZE
from tests.store.maildirs import TEXT, append, deliver, files, name_of, open_account, read, settle, uidlist, uids


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


def test_a_delivery_by_another_program_gets_the_next_uid(account):
    first = append(account)
    mailbox = account.mailbox("INBOX")
    since = mailbox.load().modseq
    deliver(account)
    mailbox.refresh()
    assert uids(mailbox) == [first, first + 1]
    changes = mailbox.changes_since(since)
    assert [row.uid for row in changes.rows] == [first + 1]
    assert changes.rows[0].size == UNKNOWN_SIZE
    assert f"\n{first + 1} :1700000001.M1P1.other\n" in uidlist(account)
    assert read(mailbox, first + 1) == TEXT


def test_deliveries_found_together_are_ordered_by_the_time_in_their_names(account):
    mailbox = account.mailbox("INBOX")
    for name in ("1700000300.b", "1700000100.c:2,S", "999.a"):
        deliver(account, name, name.encode())
    mailbox.refresh()
    assert [read(mailbox, uid) for uid in uids(mailbox)] == [b"999.a", b"1700000100.c:2,S", b"1700000300.b"]


def test_nothing_is_read_while_the_directories_have_not_moved(account, monkeypatch):
    append(account)
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    monkeypatch.setattr("os.scandir", lambda path: pytest.fail(f"{path} was read"))
    mailbox.refresh()
    assert account.status("INBOX").messages == 1


def test_a_change_in_new_does_not_cost_a_reading_of_cur(account, monkeypatch):
    append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    deliver(account)
    scandir = os.scandir
    scanned = []
    monkeypatch.setattr("os.scandir", lambda path: scanned.append(path) or scandir(path))
    mailbox.refresh()
    assert len(uids(mailbox)) == 2
    assert scanned == [os.path.join(account.root, "new")]


def test_flags_that_another_program_sets_are_taken_up(account):
    uid = append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    since = mailbox.load().modseq
    [name] = files(account)
    os.rename(os.path.join(account.root, "cur", name), os.path.join(account.root, "cur", name.replace(":2,S", ":2,FS")))
    mailbox.refresh()
    [row] = mailbox.changes_since(since).rows
    assert (row.uid, row.flags) == (uid, FLAGGED | SEEN)
    assert mailbox.changes_since(since).expunged == []


def test_a_move_from_new_to_cur_is_no_change_of_flags(account):
    uid = append(account)
    mailbox = account.mailbox("INBOX")
    since = mailbox.load().modseq
    [name] = files(account)
    os.rename(os.path.join(account.root, "new", name), os.path.join(account.root, "cur", name + ":2,"))
    mailbox.refresh()
    assert mailbox.changes_since(since).rows == []
    assert read(mailbox, uid) == TEXT


def test_a_message_renamed_since_the_index_knew_is_still_opened(account):
    uid = append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    [name] = files(account)
    os.rename(os.path.join(account.root, "cur", name), os.path.join(account.root, "cur", name + "T"))
    assert read(mailbox, uid) == TEXT


def test_a_message_removed_by_another_program_is_expunged(account):
    gone, stays = append(account), append(account)
    mailbox = account.mailbox("INBOX")
    since = mailbox.load().modseq
    os.unlink(os.path.join(account.root, "new", name_of(account, gone)))
    with pytest.raises(MessageExpunged):
        mailbox.open_message(gone)
    assert uids(mailbox) == [stays]
    assert mailbox.changes_since(since).expunged == [gone]
    assert [uid for uid, _row, _summary in mailbox.summaries([gone, stays])] == [stays]


def test_messages_opened_one_after_the_other_are_the_right_ones(account):
    want = {append(account, data=TEXT + b"%d" % number): TEXT + b"%d" % number for number in range(40)}
    mailbox = account.mailbox("INBOX")
    mailbox.expunge([5, 17], only_deleted=False)
    for uid in (5, 17):
        del want[uid]
        with pytest.raises(MessageExpunged):
            mailbox.open_message(uid)
    for uid in [*want, *reversed(want), 3, 40, 4]:
        if uid == 20:
            mailbox.store_flags(list(want), FlagChange.ADD, ["\\Seen"])
        if uid == 38:
            mailbox.expunge([39], only_deleted=False)
            want[39] = b""
        if want[uid]:
            assert read(mailbox, uid) == want[uid]
        else:
            with pytest.raises(MessageExpunged):
                mailbox.open_message(uid)


@pytest.mark.parametrize("known", [True, False])
def test_messages_read_whole_are_what_the_files_hold(account, known):
    deliver(account, "1700000001.a")
    deliver(account, "1700000002.b")
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    if known:
        mailbox.summaries([1, 2])
    path = os.path.join(account.root, "new", name_of(account, 1))
    with open(path, "ab") as file:
        file.write(b"more\r\n")
    # A file that is not what the index knows goes the careful way.
    assert list(mailbox.read_whole([1, 2], 1000)) == ([] if known else [(1, TEXT + b"more\r\n"), (2, TEXT)])
    assert read(mailbox, 1) == TEXT + b"more\r\n"
    os.rename(path, path + "x")
    assert list(mailbox.read_whole([1, 2], 1000)) == []
    os.unlink(path + "x")
    assert list(mailbox.read_whole([1, 2], 1000)) == []
    assert list(mailbox.read_whole([2], 1000)) == [(2, TEXT)]


def test_store_finds_messages_that_were_renamed_and_tells_those_that_are_gone(account):
    one, two, three = append(account, flags=["\\Seen"]), append(account, flags=["\\Seen"]), append(account)
    mailbox = account.mailbox("INBOX")
    cur = os.path.join(account.root, "cur")
    names = [name_of(account, one), name_of(account, two)]
    os.rename(os.path.join(cur, names[0]), os.path.join(cur, names[0].replace(":2,S", ":2,RS")))
    os.unlink(os.path.join(cur, names[1]))
    stored = mailbox.store_flags([one, two, three], FlagChange.ADD, ["\\Flagged"])
    assert stored.gone == [two]
    assert {row.uid: row.flags & FLAGGED for row in mailbox.load().rows} == {one: FLAGGED, three: FLAGGED}
    assert any(name.endswith(":2,FRS") for name in os.listdir(cur))


def test_expunge_finds_messages_that_were_renamed(account):
    uid = append(account, flags=["\\Deleted"])
    mailbox = account.mailbox("INBOX")
    [name] = files(account)
    os.rename(os.path.join(account.root, "cur", name), os.path.join(account.root, "cur", name.replace("T", "ST")))
    assert mailbox.expunge([uid]) == [uid]
    assert files(account) == []


def test_expunge_spares_a_message_that_another_program_undeleted(account):
    uid = append(account, flags=["\\Deleted"])
    mailbox = account.mailbox("INBOX")
    [name] = files(account)
    os.rename(os.path.join(account.root, "cur", name), os.path.join(account.root, "cur", name.replace("T", "S")))
    assert mailbox.expunge([uid]) == []
    assert len(files(account)) == 1


def test_a_restored_message_gets_a_new_uid(account):
    uid = append(account)
    mailbox = account.mailbox("INBOX")
    [name] = files(account)
    path = os.path.join(account.root, "new", name)
    os.rename(path, path + ".away")
    os.rename(path + ".away", os.path.join(account.root, "away"))
    mailbox.refresh()
    assert uids(mailbox) == []
    told = mailbox.load().uid_next
    os.rename(os.path.join(account.root, "away"), path)
    mailbox.refresh()
    assert uids(mailbox) == [told]
    assert told > uid
    # and so it stays, whoever reads the list
    os.unlink(os.path.join(account.root, "mailserver-index.sqlite"))
    again = account.mailbox("INBOX")
    again.refresh()
    assert uids(again) == [told]


def test_names_that_a_watcher_saw_are_taken_up_alone(account, monkeypatch):
    one = append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    since = mailbox.load().modseq
    [name] = files(account)
    os.rename(os.path.join(account.root, "cur", name), os.path.join(account.root, "cur", name.replace(":2,S", ":2,FS")))
    deliver(account, "1700000001.M1P1.other")
    monkeypatch.setattr("os.scandir", lambda path: pytest.fail(f"{path} was read"))
    mailbox.refresh({name, name.replace(":2,S", ":2,FS"), "1700000001.M1P1.other", "never-there"})
    assert {row.uid: row.flags for row in mailbox.changes_since(since).rows} == {one: FLAGGED | SEEN, one + 1: 0}


def test_a_delivery_that_a_session_reports_at_once_is_claimed_in_the_transaction_that_takes_it_up(account, monkeypatch):
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    since = mailbox.load().modseq
    name = "1700000001.M1P1.other"
    deliver(account, name)
    statements = []
    account._home.index()._connection.exec_trace = lambda _cursor, statement, _values: (
        statements.append(statement) or True
    )
    taken = lock.AccountLock.__enter__
    monkeypatch.setattr(lock.AccountLock, "__enter__", lambda self: statements.append("lock") or taken(self))
    assert mailbox.refresh({name}, claims=True) == range(1, 2)
    assert (statements.count("lock"), statements.count("COMMIT")) == (1, 1)
    statements.clear()
    changes = mailbox.changes_since(since)
    assert len(statements) == 1, "the state of the mailbox; the change itself is known"
    account._home.index()._connection.exec_trace = None
    assert [(row.uid, row.flags) for row in changes.rows] == [(1, 0)]
    assert files(account) == [name + ":2,"]
    assert os.path.exists(os.path.join(account.root, "cur", name + ":2,"))
    assert mailbox.claim_recent() == range(2, 2), "no other session gets it as recent"
    settle(mailbox)
    assert uids(mailbox) == [1]


def test_a_delivery_after_unclaimed_messages_is_left_to_a_claim_of_all(account):
    append(account)
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    deliver(account, "1700000001.M1P1.other")
    assert mailbox.refresh({"1700000001.M1P1.other"}, claims=True) == range(0)
    assert mailbox.claim_recent() == range(1, 3)


def test_a_delivery_whose_file_cannot_leave_new_is_claimed_where_it_is(account, monkeypatch):
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    deliver(account, "1700000001.M1P1.other")

    def fail(_old, _new):
        raise NoSpace

    with monkeypatch.context() as patch:
        patch.setattr(safeio, "rename", fail)
        assert mailbox.refresh({"1700000001.M1P1.other"}, claims=True) == range(1, 2)
    assert os.listdir(os.path.join(account.root, "new")) == ["1700000001.M1P1.other"]
    assert mailbox.claim_recent() == range(2, 2)
    assert os.listdir(os.path.join(account.root, "new")) == []


def test_very_many_names_are_as_good_as_none(account):
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    names = [f"17000{number:05}.M1P1.other" for number in range(1500)]
    for name in names:
        deliver(account, name, b"x")
    mailbox.refresh(names)
    assert len(uids(mailbox)) == 1500


def test_a_name_that_went_is_looked_for_before_it_is_called_expunged(account):
    one, two = append(account, flags=["\\Seen"]), append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    first, second = name_of(account, one), name_of(account, two)
    cur = os.path.join(account.root, "cur")
    os.rename(os.path.join(cur, first), os.path.join(cur, first.replace(":2,S", ":2,RS")))
    os.unlink(os.path.join(cur, second))
    mailbox.refresh({first, second})
    assert uids(mailbox) == [one]
    assert two not in uids(mailbox)


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: os.symlink("/etc/passwd", path),
        lambda path: os.symlink("nowhere", path),
        lambda path: os.mknod(path, 0o140600),
    ],
    ids=["fifo", "directory", "link", "dangling link", "socket"],
)
def test_what_is_no_regular_file_is_no_message(account, make):
    append(account)
    for place in ("new", "cur"):
        make(os.path.join(account.root, place, "1700000001.M1P1.odd"))
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert len(uids(mailbox)) == 1
    mailbox.refresh({"1700000001.M1P1.odd"})
    assert len(uids(mailbox)) == 1


@pytest.mark.parametrize("place", ["new", "cur"])
@pytest.mark.parametrize("seen", ["scan", "names"])
def test_a_name_that_no_list_can_hold_is_no_message(account, place, seen, caplog):
    mailbox = account.mailbox("INBOX")
    deliver(account, "1700000001.M1P1.before")
    settle(mailbox)
    known = uids(mailbox)
    names = ["1700000002.M1P1.a\n9 :b", "1700000003.M1P1.a\n"]
    for name in names:
        deliver(account, name, place=place)
    deliver(account, "1700000004.M1P1.c:2,S\n", place="cur")
    mailbox.refresh(None if seen == "scan" else [*names, "1700000004.M1P1.c:2,S\n"])
    assert uids(mailbox) == [*known, known[-1] + 1]
    listed = [line.partition(" :")[2] for line in uidlist(account).splitlines()[1:]]
    assert listed == ["1700000001.M1P1.before", "1700000004.M1P1.c"]
    assert not uidlist_module.read(os.path.join(account.root, "dovecot-uidlist")).damaged
    if seen == "scan":
        assert "line feed" in caplog.text


def test_a_message_that_became_a_fifo_does_not_hang_a_reader(account):
    bad, good = append(account), append(account)
    mailbox = account.mailbox("INBOX")
    path = os.path.join(account.root, "new", name_of(account, bad))
    os.unlink(path)
    os.mkfifo(path)
    assert list(mailbox.read_whole([bad, good], 1000)) == []
    with pytest.raises((MessageExpunged, StoreUnavailable)):
        mailbox.open_message(bad)
    # rendered at delivery, so still answered, but the text is not to be had
    assert mailbox.search(Text("body"), [bad, good]) == [good]


def test_an_unreadable_message_spoils_no_other(account, monkeypatch):
    for name in ("1700000001.a", "1700000002.b", "1700000003.c"):
        deliver(account, name)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    open_with_status = safeio.open_with_status

    def refuse(path, flags=os.O_RDONLY):
        # root may read everything
        if path.endswith("1700000002.b"):
            raise StoreUnavailable
        return open_with_status(path, flags)

    monkeypatch.setattr(safeio, "open_with_status", refuse)
    assert [uid for uid, _row, _summary in mailbox.summaries([1, 2, 3])] == [1, 3]
    assert mailbox.search(Text("body"), [1, 2, 3]) == [1, 3]
    assert [(row.uid, row.size) for row in mailbox.measure([1, 2, 3])] == [(1, len(TEXT)), (3, len(TEXT))]
    with pytest.raises(StoreUnavailable):
        mailbox.open_message(2)
    assert read(mailbox, 3) == TEXT
    mailbox.store_flags([2], FlagChange.ADD, ["\\Deleted"])
    assert mailbox.expunge([1, 2, 3]) == [2]


def test_keywords_that_come_alone_are_told(account):
    append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    snapshot = mailbox.load()
    with open(os.path.join(account.root, "dovecot-keywords"), "w") as file:
        file.write("0 work\n")
    deliver(account)
    mailbox.refresh({"1700000001.M1P1.other"})
    changes = mailbox.changes_since(snapshot.modseq)
    assert changes.keywords == ("work",)
    assert changes.upto > snapshot.modseq


def test_sizes_in_names_are_not_believed(account):
    deliver(account, "1700000001.M1P1.other,S=1,W=1:2,S", b"A: b\n\nx\ny\n", "cur")
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    [uid] = uids(mailbox)
    assert mailbox.load().rows[0].size == UNKNOWN_SIZE
    assert mailbox.search(Larger(13), [uid]) == [uid]
    assert mailbox.search(Larger(14), [uid]) == []
    assert read(mailbox, uid) == b"A: b\r\n\r\nx\r\ny\r\n"
    assert mailbox.load().rows[0].size == 14


LF_TEXT = b"Subject: a\n\nb\n"
"""14 octets, 17 as sent."""


def test_no_message_is_read_for_a_size_that_its_name_has(account, tmp_path, monkeypatch):
    names = [f"17000000{number:02}.M1P1.other,S=14,W=17" for number in range(60)]
    for name in names[:50]:
        os.utime(deliver(account, name, LF_TEXT), (1_234_567, 1_234_567))
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    for name in names[50:]:
        os.utime(deliver(account, name + ":2,S", LF_TEXT, "cur"), (1_234_567, 1_234_567))
    mailbox.refresh()
    monkeypatch.setattr(summary_reader, "open_file", lambda path, size=None: pytest.fail(f"{path} was opened"))
    assert set(mailbox.load().sizes) == {17}
    mailbox.store_flags([uids(mailbox)[3]], FlagChange.ADD, ["\\Flagged"])  # a block becomes rows
    assert set(mailbox.load().sizes) == {17}
    assert {(row.size, row.date) for row in mailbox.measure(uids(mailbox))} == {(17, 1_234_567)}
    assert set(open_account(tmp_path).mailbox("INBOX").load().sizes) == {17}


@pytest.mark.parametrize("many", [1, 300])
def test_a_message_whose_name_has_a_wrong_size_is_read_whole_and_the_size_learnt(account, many):
    for number in range(many):
        deliver(account, f"1700000{number:03}.M1P1.other,S=10,W=12", LF_TEXT)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    uid = uids(mailbox)[-1]
    assert mailbox.load().sizes[-1] == 12
    assert mailbox.read_whole([uid], 1000) == []
    sent = LF_TEXT.replace(b"\n", b"\r\n")
    assert read(mailbox, uid) == sent
    assert mailbox.load().sizes[-1] == 17
    assert mailbox.read_whole([uid], 1000) == [(uid, sent)]


def test_the_date_of_a_foreign_message_is_its_mtime(account):
    path = deliver(account)
    os.utime(path, (1_234_567, 1_234_567))
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    [(_uid, row, summary)] = mailbox.summaries(uids(mailbox))
    assert (row.date, row.size) == (1_234_567, len(TEXT))
    assert b"hello" in summary.envelope


def test_names_that_are_no_utf8_are_served(account):
    with open(os.path.join(os.fsencode(account.root), b"new", b"1700000001.\xff\xfe.host"), "wb") as file:
        file.write(TEXT)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    [uid] = uids(mailbox)
    mailbox.store_flags([uid], FlagChange.ADD, ["\\Seen"])
    assert read(mailbox, uid) == TEXT
    assert os.listdir(os.path.join(os.fsencode(account.root), b"cur")) == [b"1700000001.\xff\xfe.host:2,S"]


def test_a_mailbox_renamed_by_another_program_stays_open(account):
    account.create("old")
    uid = append(account, "old", flags=["\\Seen"])
    mailbox = account.mailbox("old")
    os.rename(os.path.join(account.root, ".old"), os.path.join(account.root, ".new"))
    mailbox.refresh()
    assert mailbox.name == "new"
    assert read(mailbox, uid) == TEXT
    assert [info.name for info in account.mailboxes()] == ["INBOX", "new"]
    assert account.mailbox("new").id == mailbox.id


def test_a_mailbox_removed_by_another_program_is_told(account):
    account.create("old")
    append(account, "old")
    mailbox = account.mailbox("old")
    shutil.rmtree(os.path.join(account.root, ".old"))
    with pytest.raises(MailboxChanged):
        mailbox.refresh()
    with pytest.raises(MailboxChanged):
        mailbox.load()
    assert [info.name for info in account.mailboxes()] == ["INBOX"]


def test_a_mailbox_removed_and_made_anew_by_another_program_is_told(account):
    account.create("old")
    append(account, "old")
    mailbox = account.mailbox("old")
    shutil.rmtree(os.path.join(account.root, ".old"))
    for part in ("cur", "new", "tmp"):
        os.makedirs(os.path.join(account.root, ".old", part))
    with open(os.path.join(account.root, ".old", "dovecot-uidlist"), "w") as file:
        file.write("3 V7 N1 G0123456789abcdef0123456789abcdef\n")
    with pytest.raises(MailboxChanged):
        mailbox.refresh()
    assert account.status("old").uid_validity == 7


def test_a_copied_directory_is_a_mailbox_of_its_own(account):
    account.create("one")
    append(account, "one", flags=["\\Seen"])
    shutil.copytree(os.path.join(account.root, ".one"), os.path.join(account.root, ".two"))
    one, two = account.mailbox("one"), account.mailbox("two")
    assert one.id != two.id
    for mailbox in (one, two):
        mailbox.refresh()
        assert uids(mailbox) == [1]
    assert [info.name for info in account.mailboxes()] == ["INBOX", "one", "two"]


def test_missing_new_and_tmp_are_made(account):
    account.create("one")
    for part in ("new", "tmp"):
        os.rmdir(os.path.join(account.root, ".one", part))
    mailbox = account.mailbox("one")
    mailbox.refresh()
    append(account, "one")
    assert mailbox.search(All(), [1]) == [1]


def test_two_account_objects_see_each_other(tmp_path):
    one, two = open_account(tmp_path), open_account(tmp_path)
    uid = append(one)
    there = two.mailbox("INBOX")
    since = there.load().modseq
    one.mailbox("INBOX").store_flags([uid], FlagChange.ADD, ["\\Seen", "mine"])
    [row] = there.changes_since(since).rows
    assert row.flags == SEEN | 1 << 5
    assert there.changes_since(since).keywords == ("mine",)
    one.mailbox("INBOX").expunge([uid], only_deleted=False)
    assert there.changes_since(since).expunged == [uid]
    one.create("x")
    gone = two.mailbox("x")
    one.delete("x")
    with pytest.raises(MailboxChanged):
        gone.load()


# --- our own changes


def test_after_a_change_of_ours_the_directories_are_read_once_and_later(account, monkeypatch):
    """Reading 100,000 names after each STORE would prove nothing: the next change may come within the same tick."""
    uid = append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    read = []
    read_directory = scan.read_directory
    monkeypatch.setattr(scan, "read_directory", lambda path, most=None: read.append(path) or read_directory(path, most))
    for how in (FlagChange.ADD, FlagChange.REMOVE):
        mailbox.store_flags([uid], how, ["\\Flagged"])
        mailbox.refresh()
        assert account.status("INBOX").messages == 1
    assert not read
    later = time.time_ns() + 2 * scan.RACY_NS
    monkeypatch.setattr(time, "time_ns", lambda: later)
    mailbox.refresh()
    assert len(read) == 2
    mailbox.refresh()
    assert len(read) == 2


def test_a_foreign_change_within_the_tick_of_ours_is_seen_later(account, monkeypatch):
    uid = append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    mailbox.store_flags([uid], FlagChange.ADD, ["\\Flagged"])
    cur = os.path.join(account.root, "cur")
    mtime = os.stat(cur).st_mtime_ns
    os.rename(os.path.join(cur, name_of(account, uid)), os.path.join(cur, name_of(account, uid) + "T"))
    os.utime(cur, ns=(mtime, mtime))
    later = time.time_ns() + 2 * scan.RACY_NS
    monkeypatch.setattr(time, "time_ns", lambda: later)
    mailbox.refresh()
    assert mailbox.load().rows[0].flags == SEEN | FLAGGED | DELETED


def test_a_foreign_change_after_ours_is_seen_at_once(account):
    uid = append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    mailbox.store_flags([uid], FlagChange.ADD, ["\\Flagged"])
    cur = os.path.join(account.root, "cur")
    mtime = os.stat(cur).st_mtime_ns
    os.rename(os.path.join(cur, name_of(account, uid)), os.path.join(cur, name_of(account, uid) + "T"))
    os.utime(cur, ns=(mtime + 1, mtime + 1))
    mailbox.refresh()
    assert mailbox.load().rows[0].flags == SEEN | FLAGGED | DELETED


def test_a_watcher_is_told_what_we_did_ourselves_once(account):
    uid = append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    before = name_of(account, uid)
    mailbox.store_flags([uid], FlagChange.ADD, ["\\Flagged"])
    after = name_of(account, uid)
    assert list(mailbox.foreign_names([before, "other", after])) == ["other"]
    assert list(mailbox.foreign_names([before, after])) == [before, after]
    mailbox.store_flags([uid], FlagChange.ADD, ["\\Deleted"])
    mailbox.foreign_names([after, name_of(account, uid)])
    [removed] = files(account)
    mailbox.expunge([uid])
    assert not mailbox.foreign_names([removed])
    assert list(mailbox.foreign_names([removed])) == [removed]


def test_own_names_that_nobody_asks_for_are_bounded():
    names = local_changes.ExpectedNames()
    for number in range(3 * local_changes.MAX_EXPECTED_NAMES):
        names.expect([str(number)])
    assert len(names._names) <= local_changes.MAX_EXPECTED_NAMES + 1
