"""The index is a cache: lost, spoilt or not to be opened, the client sees the same mailbox."""

from __future__ import annotations

import os
import re

import pytest

from mailserver.errors import MailboxChanged
from mailserver.store import search as search_module
from mailserver.store.columns import Columns
from mailserver.store.flags import SEEN, FlagChange
from mailserver.store.index import database
from mailserver.store.maildir.home import home as home_module
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox import summary_reader
from mailserver.store.query import And, Header, Larger
from mailserver.types import UNKNOWN_SIZE
from tests.store.maildirs import append, deliver, open_account, read, settle, uids

INDEX = "mailserver-index.sqlite"


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


def index_path(account):
    return os.path.join(account.root, INDEX)


def remove_index(account):
    for end in ("", "-wal", "-shm"):
        if os.path.exists(index_path(account) + end):
            os.unlink(index_path(account) + end)


def spoil_with(data):
    def spoil(account):
        account.close()
        remove_index(account)
        with open(index_path(account), "wb") as file:
            file.write(data)

    return spoil


def damage_pages(account):
    """The header is right, what follows is not."""
    account._home.index()._connection.pragma("wal_checkpoint(TRUNCATE)")
    account.close()
    size = os.path.getsize(index_path(account))
    with open(index_path(account), "r+b") as file:
        file.seek(200)
        file.write(b"\xa5" * (size - 200))


def damage_pages_while_open(account):
    account._home.index()._connection.pragma("wal_checkpoint(TRUNCATE)")
    account._home.index()._connection.execute("PRAGMA shrink_memory")
    size = os.path.getsize(index_path(account))
    with open(index_path(account), "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


DAMAGE = {
    "empty": lambda _packed: b"",
    "cut in a number": lambda packed: packed[:5],
    "cut in a name": lambda packed: packed[:-1],
    "zeros": lambda packed: bytes(len(packed)),
    "one bit": lambda packed: bytes([packed[0] ^ 1]) + packed[1:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("use", ["refresh", "hear of a name", "store", "expunge", "load"])
def test_a_mailbox_whose_blocks_are_damaged_is_the_same(account, damage, use):
    """SQLite has no checksums, and most of the index of a mailbox that has moved in is octets that mean nothing to it."""
    for number in range(9):
        append(account, flags=["\\Seen"] if number % 2 else [])
    account.close()
    remove_index(account)
    before = picture(account)
    mailbox = account.mailbox("INBOX")
    mailbox.load()
    connection = account._home.index()._connection
    ((packed,),) = connection.execute("SELECT data FROM bundles").fetchall()
    connection.execute("UPDATE bundles SET data = ?", (damage(packed),))
    connection.execute("DELETE FROM packed_columns")
    match use:
        case "hear of a name":
            mailbox.refresh(os.listdir(os.path.join(account.root, "cur"))[:1])
        case "store":
            mailbox.store_flags([1], FlagChange.REMOVE, ["\\Seen"])
        case "expunge":
            mailbox.expunge([9], only_deleted=True)
        case "load":
            mailbox.load()
    assert picture(account) == before
    assert not account._home.index().in_memory


def picture(account):
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    snapshot = mailbox.load()
    return (
        mailbox.id,
        snapshot.uid_validity,
        snapshot.uid_next,
        snapshot.keywords,
        [(row.uid, row.flags) for row in snapshot.rows],
        [read(mailbox, row.uid) for row in snapshot.rows],
    )


@pytest.mark.parametrize(
    "spoil",
    [
        remove_index,
        lambda account: (account.close(), remove_index(account)),
        spoil_with(b""),
        spoil_with(b"no database" * 1000),
        damage_pages,
        damage_pages_while_open,
    ],
    ids=["removed while open", "removed", "empty", "garbage", "damaged", "damaged while open"],
)
def test_without_its_index_the_mailbox_is_the_same(account, spoil):
    for number in range(50):
        append(account, flags=["\\Seen", "work"] if number % 2 else [])
    mailbox = account.mailbox("INBOX")
    mailbox.expunge([3, 50], only_deleted=False)
    before = picture(account)
    spoil(account)
    assert picture(account) == before
    assert append(account) == 51
    assert not account._home.index().in_memory


def test_who_is_behind_a_lost_index_is_told_all(account):
    for _ in range(4):
        append(account)
    mailbox = account.mailbox("INBOX")
    since = mailbox.load().modseq
    mailbox.store_flags([1], FlagChange.ADD, ["\\Seen"])
    mailbox.expunge([2, 4], only_deleted=False)
    remove_index(account)
    changes = mailbox.changes_since(since)
    assert [(row.uid, row.flags) for row in changes.rows] == [(1, SEEN), (3, 0)]
    assert list(changes.present) == [1, 3]
    assert changes.upto > since


def test_being_told_all_does_not_depend_on_the_uids_used_up(account):
    append(account)
    mailbox = account.mailbox("INBOX")
    since = mailbox.load().modseq
    path = os.path.join(account.root, "dovecot-uidlist")
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(re.sub(r" N[0-9]+", " N4000000000", text))
    remove_index(account)
    mailbox.refresh()
    changes = mailbox.changes_since(since)
    assert changes.uid_next == 4_000_000_000
    assert len(changes.expunged) + len(changes.present) <= 1


@pytest.mark.parametrize("how", ["expunge", "move", "foreign"])
def test_the_history_of_expunges_is_bounded_in_a_running_server(account, monkeypatch, how):
    account._home.index().history = 4
    monkeypatch.setattr(database, "_LOOK_EVERY", 3)
    account.create("there")
    mailbox = account.mailbox("INBOX")
    for _ in range(30):
        append(account)
    mailbox.refresh()
    columns = Columns(mailbox.load())
    begin = columns.modseq
    key = account._home.read(lambda index: index.mailboxes.by_name("INBOX")).key
    for uid in range(1, 26):
        if how == "expunge":
            mailbox.expunge([uid], only_deleted=False)
        elif how == "move":
            mailbox.move([uid], "there")
        else:
            os.unlink(os.path.join(account.root, "new", min(os.listdir(os.path.join(account.root, "new")))))
            mailbox.refresh()
        kept = account._home.read(lambda index: index.messages.expunged_since(key, 0))
        assert len(kept) <= 2 * 4 + 3
        # who follows, and who comes late, see the same
        columns.apply(mailbox.changes_since(columns.modseq))
        assert list(columns.uids) == uids(mailbox)
        assert len(columns.uids) == 30 - uid
    assert list(mailbox.changes_since(begin).present) == uids(mailbox)


def test_recent_messages_are_those_in_new_when_the_index_is_lost(account):
    append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    mailbox.claim_recent()
    new = append(account)
    remove_index(account)
    assert account.status("INBOX").recent == 1
    assert account.mailbox("INBOX").claim_recent().start == new
    assert account.status("INBOX").recent == 0


def test_claimed_messages_leave_new(account):
    append(account)
    mailbox = account.mailbox("INBOX")
    since = mailbox.load().modseq
    assert mailbox.claim_recent().start == 1
    assert os.listdir(os.path.join(account.root, "new")) == []
    assert [name[-3:] for name in os.listdir(os.path.join(account.root, "cur"))] == [":2,"]
    assert mailbox.changes_since(since).rows == []
    assert mailbox.claim_recent().start == 2


def test_another_boot_makes_it_look_at_the_disk(account, monkeypatch):
    """The last commits may be missing, while the directories' times are the ones recorded."""
    uid = append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    settle(mailbox)
    cur = os.path.join(account.root, "cur")
    status = os.stat(cur)
    [name] = os.listdir(cur)
    os.rename(os.path.join(cur, name), os.path.join(cur, name.replace(":2,S", ":2,FS")))
    os.utime(cur, ns=(status.st_atime_ns, status.st_mtime_ns))
    mailbox.refresh()
    assert [row.flags for row in mailbox.load().rows] == [SEEN]
    account._home.boot = "another"
    mailbox = account.mailbox("INBOX")
    assert [(row.uid, row.flags) for row in mailbox.load().rows] == [(uid, SEEN | 2)]


def test_an_index_that_cannot_be_opened_is_kept_in_memory(account, monkeypatch):
    for _ in range(3):
        append(account)
    before = picture(account)
    account.close()
    remove_index(account)
    # root may write anywhere: only a directory in its place cannot be opened
    os.mkdir(index_path(account))
    assert picture(account) == before
    assert account._home.index().in_memory
    assert append(account) == 4
    account.mailbox("INBOX").expunge([1], only_deleted=False)
    held = account.mailbox("INBOX")
    since = held.load().modseq
    deliver(account)
    # later it can be again
    os.rmdir(index_path(account))
    monkeypatch.setattr(home_module.time, "monotonic", lambda: 1e12)
    held.refresh()
    assert not account._home.index().in_memory
    assert uids(held) == [2, 3, 4, 5]
    assert 5 in [row.uid for row in held.changes_since(since).rows]


def test_an_index_that_fails_while_it_is_written_does_not_fail_the_command(account, monkeypatch):
    append(account)
    mailbox = account.mailbox("INBOX")
    connection = account._home.index()._connection
    connection.execute("PRAGMA max_page_count = 1")  # every growth is SQLITE_FULL now
    stored = mailbox.store_flags([1], FlagChange.ADD, ["\\Seen", *(f"long-keyword-{n}" for n in range(20))])
    assert (stored.modified, stored.gone) == ([], [])
    for _ in range(200):
        append(account)
    assert uids(account.mailbox("INBOX")) == list(range(1, 202))
    assert account.status("INBOX").unseen == 200


def test_the_index_comes_back_to_disk_between_two_commands(account, monkeypatch):
    append(account)
    home = account._home
    home.index()._connection.execute("PRAGMA max_page_count = 1")
    while not home.index().in_memory:
        assert append(account) < 100
    home._disk_again = float("inf")
    append(account)

    def update_late(*arguments):
        home._disk_again = 0.0  # the time for it comes while a command is at work
        type(home).update(home, *arguments)

    monkeypatch.setattr(home, "update", update_late)
    last = append(account)
    monkeypatch.undo()
    assert uids(account.mailbox("INBOX")) == list(range(1, last + 1))
    assert not home.index().in_memory
    append(account)
    assert uids(account.mailbox("INBOX")) == list(range(1, last + 2))


def test_one_rebuilds_while_another_holds_the_old_file(tmp_path):
    one, two = open_account(tmp_path), open_account(tmp_path)
    append(one)
    held = two.mailbox("INBOX")
    remove_index(one)
    append(one)
    held.refresh()
    assert uids(held) == [1, 2]
    append(two)
    assert uids(one.mailbox("INBOX")) == [1, 2, 3]


def test_a_foreign_guid_in_the_place_of_ours_is_told_though_the_index_was_lost(account):
    append(account)
    mailbox = account.mailbox("INBOX")
    remove_index(account)
    with open(os.path.join(account.root, "dovecot-uidlist"), "w") as file:
        file.write("3 V7 N1 G0123456789abcdef0123456789abcdef\n")
    with pytest.raises(MailboxChanged):
        mailbox.load()


def test_dead_lines_of_the_uidlist_are_written_off(account):
    for _ in range(200):
        append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.expunge(list(range(1, 191)), only_deleted=False)
    with open(os.path.join(account.root, "dovecot-uidlist")) as file:
        header, *lines = file.read().splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(191, 201))
    assert " N201 " in header
    mailbox.refresh()
    assert append(account) == 201


def test_uids_stay_when_the_index_is_lost_during_a_delivery(tmp_path, account, monkeypatch):
    """The mailbox is written into the new index, which has told no UID: the others are those of the list."""
    for _ in range(3):
        append(account)
    before = uids(account.mailbox("INBOX"))
    check = Home.check_messages

    def lose(home, state, more):
        check(home, state, more)
        home.index_is_damaged()

    monkeypatch.setattr(Home, "check_messages", lose)
    new = append(account)
    monkeypatch.undo()
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert uids(mailbox) == [*before, new]
    other = open_account(tmp_path).mailbox("INBOX")
    other.refresh()
    assert uids(other) == [*before, new]


def two_mailboxes(account):
    """Two messages in INBOX and one in "there", of which the index knows no more than that they are there."""
    account.create("there")
    for name, number, subject in (("INBOX", 1, b"garden"), ("INBOX", 2, b"gardener"), ("there", 3, b"pond")):
        at = os.path.join(account.mailbox(name).watched_paths[0], f"170000000{number}.M1.other:2,")
        with open(at, "wb") as file:
            file.write(b"Subject: " + subject + b"\r\n\r\n" + subject * 10)
        account.mailbox(name).refresh()


def lose_the_index(account, other):
    """Another process makes it anew, and gives its mailboxes the keys the other way round."""
    keys = {state.name: state.key for state in account._home.index().mailboxes.all()}
    remove_index(account)
    for name in sorted(keys, key=lambda name: -keys[name]):
        other.mailbox(name).refresh()
    again = {state.name: state.key for state in other._home.index().mailboxes.all()}
    assert again["there"] == keys["INBOX"]


@pytest.mark.parametrize("only_head", [False, True])
def test_what_is_read_while_the_index_is_lost_is_kept_of_no_other_mailbox(tmp_path, account, monkeypatch, only_head):
    two_mailboxes(account)
    other = open_account(tmp_path)
    opener = "read_header" if only_head else "read_dated"
    plain = getattr(summary_reader, opener)

    def lose(*arguments):
        monkeypatch.setattr(summary_reader, opener, plain)
        lose_the_index(account, other)
        return plain(*arguments)

    monkeypatch.setattr(summary_reader, opener, lose)
    [(_uid, _row, summary)] = account.mailbox("INBOX").summaries([1], only_head=only_head)
    assert b"garden" in summary.envelope
    [(_uid, row, summary)] = other.mailbox("there").summaries([1], only_head=only_head)
    assert b"pond" in summary.envelope
    assert row.size == (UNKNOWN_SIZE if only_head else len(b"Subject: pond\r\n\r\n") + 40)


def test_a_search_goes_on_when_the_index_is_lost(tmp_path, account, monkeypatch):
    two_mailboxes(account)
    search = account.mailbox("INBOX").start_search(And((Larger(10), Header("Subject", "gardener"))), [1, 2])
    monkeypatch.setattr(search_module, "STEP", 0.0)
    assert search.step() is None
    lose_the_index(account, open_account(tmp_path))
    while (found := search.step()) is None:
        pass
    assert found == [2]
