"""Commands over ten thousand messages are set operations: what each asks of the disk and of the index is counted."""

from __future__ import annotations

import os
from collections import Counter

import apsw
import pytest

from mailserver.errors import MailboxFull
from mailserver.store.flags import FlagChange
from mailserver.store.index import database
from mailserver.store.interfaces import Bounds
from mailserver.store.maildir.disk import lock, safeio
from mailserver.store.receiving import Appended, Delivery
from tests.store.disk import account_root, open_store, scratch
from tests.store.samples import USER, content, flags, message, put, staged, uids

MANY = 10_000


class Counts(Counter):
    """Durable operations by name, locks taken, transactions, and statements (one that runs over many rows is one)."""

    def record(self, change):
        self[change.operation] += 1

    def watch(self, connection):
        def trace(_cursor, statement, _bindings):
            self["transactions"] += statement == "COMMIT"
            self["statements"] += 1
            return True

        connection.exec_trace = trace


@pytest.fixture(scope="module")
def filled():
    """A directory of ten thousand messages, made as another program would."""
    with scratch() as root:
        cur = os.path.join(account_root(root), "cur")
        for name in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(account_root(root), name))
        for number in range(MANY):
            with open(os.path.join(cur, f"{number:05}.host:2,"), "wb") as file:
                file.write(b"Subject: x\n\nx\n")
        yield root


@pytest.fixture
def box(filled):
    account = open_store(filled).account(USER)
    if "there" not in [info.name for info in account.mailboxes()]:
        account.create("there")
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    account.mailbox("there").refresh()
    yield account, mailbox
    account.close()


def count(account, operation, monkeypatch):
    counts = Counts()
    taken = lock.AccountLock.__enter__

    def take(self):
        counts["locks"] += 1
        return taken(self)

    monkeypatch.setattr(lock.AccountLock, "__enter__", take)
    monkeypatch.setattr(safeio, "recorder", counts)
    counts.watch(account._home.index()._connection)
    operation()
    monkeypatch.undo()
    account._home.index()._connection.exec_trace = None
    return counts


def test_a_first_look(tmp_path, monkeypatch):
    account = open_store(tmp_path).account(USER)
    for number in range(100):
        with open(os.path.join(account.root, "cur", f"17000000{number:02}.a.host:2,"), "wb") as file:
            file.write(b"Subject: x\n\nx\n")
    lists = os.path.join(account.root, "dovecot-uidlist")
    os.unlink(lists)
    account.close()
    os.unlink(os.path.join(account.root, "mailserver-index.sqlite"))
    account = open_store(tmp_path).account(USER)
    counts = count(account, lambda: account.mailbox("INBOX").refresh(), monkeypatch)
    assert counts["sync"] == 1, "the uidlist, once"
    assert counts["sync_directory"] == 2, "the counter of UIDVALIDITY before the list that has its value"
    with open(lists, "rb") as file:
        assert file.read().count(b"\n") == 101
    account.close()


def test_store(box, monkeypatch):
    account, mailbox = box
    uids = list(mailbox.load().uids)
    counts = count(account, lambda: mailbox.store_flags(uids, FlagChange.ADD, ["\\Flagged"]), monkeypatch)
    assert counts.pop("rename") == MANY
    assert counts.pop("statements") < 20
    assert counts == {"locks": 1, "transactions": 1, "sync_directory": 1}
    again = count(account, lambda: mailbox.store_flags(uids, FlagChange.ADD, ["\\Flagged"]), monkeypatch)
    assert again["rename"] == again["sync_directory"] == 0


@pytest.mark.parametrize("left_out", [(), (70,), (10, 20, 30)], ids=str)
def test_messages_in_different_states_change_by_a_statement_for_each_state(tmp_path, monkeypatch, left_out):
    """Or for each run of UIDs, where messages between them are left out; the index has what the files say in any case."""
    account = open_store(str(tmp_path)).account(USER)
    mailbox = account.mailbox("INBOX")
    every = [put(account, data=message(str(at)), flags=["\\Seen"] if at % 3 else []) for at in range(120)]
    mailbox.store_flags(every[::2], FlagChange.ADD, ["\\Draft", "word"])
    wanted = [uid for at, uid in enumerate(every) if at not in left_out]
    before = dict(flags(mailbox))
    since = mailbox.status().highest_modseq
    counts = count(account, lambda: mailbox.store_flags(wanted, FlagChange.REMOVE, ["\\Seen"]), monkeypatch)
    changed = [uid for uid in wanted if "\\Seen" in before[uid]]
    assert counts["rename"] == len(changed)
    assert counts["statements"] < 16 if not left_out else 16 <= counts["statements"] < 140
    assert [row.uid for row in mailbox.changes_since(since).rows] == changed
    expected = {uid: names - {"\\Seen"} if uid in wanted else names for uid, names in before.items()}
    assert flags(mailbox) == expected
    account.close()
    for end in ("", "-wal", "-shm"):
        os.unlink(os.path.join(account.root, "mailserver-index.sqlite" + end))
    fresh = open_store(str(tmp_path)).account(USER)
    assert flags(fresh.mailbox("INBOX")) == expected
    fresh.close()


def test_a_flag_of_one_message_writes_three_pages_of_the_index(box):
    """The message's, the mailbox's, and one of the index by modseq, at whose end it is already."""
    account, mailbox = box
    last = mailbox.load().uids[-1]
    mailbox.store_flags([last], FlagChange.ADD, ["\\Deleted"])
    pages = []
    for flag in ("\\Answered", "\\Draft", "\\Seen"):
        account._home.checkpoint()
        mailbox.store_flags([last], FlagChange.ADD, [flag])
        pages.append(account._home.index()._wal_pages)
    assert pages == [3, 3, 3]


def test_a_flag_of_one_message_takes_five_statements(box, monkeypatch):
    """Its row, the transaction's begin and end, the mailbox's row, and the message's: no search for a block that has it."""
    account, mailbox = box
    last = mailbox.load().uids[-1]
    mailbox.store_flags([last], FlagChange.ADD, ["\\Deleted"])
    counts = count(account, lambda: mailbox.store_flags([last], FlagChange.REMOVE, ["\\Deleted"]), monkeypatch)
    assert counts == {"statements": 5, "locks": 1, "transactions": 1, "rename": 1, "sync_directory": 1}


def test_copy_move_and_expunge(box, monkeypatch):
    account, mailbox = box
    uids = list(mailbox.load().uids)
    copied = []
    counts = count(account, lambda: copied.append(mailbox.copy(uids, "there")), monkeypatch)
    assert counts.pop("link") == MANY + 1, "hard links, and the dotlock"
    assert counts.pop("statements") < MANY // 20
    # The intent's file and its directory, twice; the uidlist; cur/ of the target.
    assert counts.pop("sync_directory") + counts.pop("sync") <= 6
    assert (counts["locks"], counts["transactions"], counts["rename"]) == (1, 1, 1)
    here, target = os.path.join(account.root, "cur"), os.path.join(account.root, ".there", "cur")
    inodes = [{entry.inode() for entry in os.scandir(directory)} for directory in (here, target)]
    assert inodes[0] == inodes[1]
    there = account.mailbox("there")
    counts = count(account, lambda: there.expunge(copied[0].target, only_deleted=False), monkeypatch)
    assert counts.pop("unlink") <= MANY + 4
    assert counts["statements"] < 30
    assert (counts["locks"], counts["sync_directory"]) == (1, 2), "cur/, and the uidlist that is written anew"
    counts = count(account, lambda: mailbox.move(uids, "there"), monkeypatch)
    assert counts["rename"] == MANY + 1, "each message, and the intent"
    assert counts["link"] == 1, "the dotlock"
    assert counts["sync_directory"] + counts["sync"] <= 7
    assert (counts["locks"], counts["transactions"]) == (1, 1)
    assert counts["statements"] < MANY // 20
    assert len(there.load().uids) == MANY


def test_deliveries_that_meet_share_all_but_their_files(tmp_path, monkeypatch):
    account = open_store(str(tmp_path)).account(USER)
    account.create("there")
    put(account)
    put(account, "there")
    names = ["INBOX", "there", "INBOX", "INBOX", "there", "INBOX"]
    wanted = [Delivery(name, [staged(account, message(str(at)))]) for at, name in enumerate(names)]
    outcomes = []
    counts = count(account, lambda: outcomes.extend(account.deliver(wanted)), monkeypatch)
    assert [outcome.uids for outcome in outcomes] == [[2], [2], [3], [4], [3], [5]]
    assert (counts["locks"], counts["rename"], counts["link"]) == (1, 6, 2), "a dotlock for each mailbox"
    assert counts["sync"] == 6 + 2, "each file, and each uidlist once"
    assert counts["sync_directory"] == 2
    assert counts["transactions"] == 2


def test_what_hinders_one_delivery_of_a_group_does_not_hinder_the_others(tmp_path, monkeypatch):
    account = open_store(str(tmp_path)).account(USER)
    wanted = [Delivery("INBOX", [staged(account, message(str(at)))]) for at in range(4)]
    lost = wanted[1].messages[0].staged.path
    renamed = safeio.rename

    def rename(old, new):
        if old == lost:
            raise FileNotFoundError(old)  # somebody swept tmp/
        renamed(old, new)

    monkeypatch.setattr(safeio, "rename", rename)
    outcomes = account.deliver(wanted)
    assert [isinstance(outcome, Appended) for outcome in outcomes] == [True, False, True, True]
    mailbox = account.mailbox("INBOX")
    kept = {content(mailbox, uid) for uid in uids(mailbox)}
    assert kept == {message("0"), message("2"), message("3")}
    assert {uid for at in (0, 2, 3) for uid in outcomes[at].uids} == set(uids(mailbox))
    assert os.listdir(os.path.join(account.root, "tmp")) == []


def test_a_full_mailbox_takes_what_has_room(tmp_path):
    account = open_store(str(tmp_path), Bounds(messages=3)).account(USER)
    put(account)
    outcomes = account.deliver([Delivery("INBOX", [staged(account, message(str(at)))]) for at in range(4)])
    assert [type(outcome) for outcome in outcomes] == [Appended, Appended, MailboxFull, MailboxFull]


def test_checkpoints_come_when_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "CHECKPOINT_DUE", 20)
    account = open_store(str(tmp_path)).account(USER)
    main = os.path.join(account.root, "mailserver-index.sqlite")
    before = os.stat(main).st_mtime_ns
    for number in range(20):
        account.create(f"box{number}")
    assert os.stat(main).st_mtime_ns == before, "no request put the WAL into the database"
    assert account.has_maintenance
    assert account.maintain(lambda: False) == 0
    assert os.stat(main).st_mtime_ns > before
    assert not account.has_maintenance
    assert account.maintain(lambda: False) is None


def test_a_wal_that_is_never_left_alone_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "CHECKPOINT_AT_ONCE", 40)
    account = open_store(str(tmp_path)).account(USER)
    for number in range(30):
        account.create(f"box{number}")
    wal = os.stat(os.path.join(account.root, "mailserver-index.sqlite-wal")).st_size
    assert wal < 100 * 4200
    names = [info.name for info in account.mailboxes()]
    account.close()
    assert apsw.Connection(os.path.join(account.root, "mailserver-index.sqlite")).pragma("integrity_check") == "ok"
    assert len(names) == 31
