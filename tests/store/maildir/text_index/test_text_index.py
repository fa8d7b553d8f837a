"""The text index of an account: searches find what they find by reading, whatever happens to the index."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.render import summarise
from mailserver.store.maildir.account import text_index
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.mailbox.mailbox import MaildirMailbox
from mailserver.store.query import And, Body, Header, Not, Or, Query, Text
from tests import sweeps
from tests.store.disk import USER, account_root, open_store, scratch
from tests.store.maildir.text_index.searches import NEEDLES, WORDS, Opened, build, indexed, read, search
from tests.store.samples import message, put, uids


def test_who_is_indexed_is_not_read(account, monkeypatch):
    for number in range(12):
        put(account, data=message(body="needle in hay" if number == 7 else f"hay {number}"))
    opened = Opened(monkeypatch)
    assert not account.has_maintenance
    assert build(account) is None
    assert search(account, Body("needle")) == [8]
    assert opened.take() == list(range(1, 13)), "nobody had asked before"
    assert account.has_maintenance
    assert build(account) is None
    # A slice that ends early opens the rest of what it had read ahead once more.
    assert sorted(set(opened.take())) == list(range(1, 13))
    assert search(account, Body("Needle")) == [8]
    assert search(account, Text("NEEDLE IN")) == [8]
    assert opened.take() == [8, 8]
    assert search(account, Body("subject")) == []
    assert search(account, Header("x-odd", "strange")) == list(range(1, 13))
    assert opened.take() == list(range(1, 13)), "the header may have it"
    assert search(account, Header("x-odd", "needle")) == []
    assert opened.take() == []
    put(account, data=message(body="a needle"))
    assert search(account, Body("needle")) == [8, 13]
    assert opened.take() == [8, 13], "the new one is read"
    build(account)
    assert opened.take() == [13]
    put(account, data=message(body="nothing"))
    build(account)
    opened.take()
    assert search(account, Not(Body("needle"))) == [uid for uid in range(1, 15) if uid not in (8, 13)]
    assert opened.take() == [8, 13]


def test_a_mailbox_is_indexed_once_that_saves_work(account, monkeypatch):
    monkeypatch.setattr(text_index, "WORTH", 10)
    account.create("Other")
    for _ in range(4):
        put(account)
    put(account, "Other")
    for _ in range(2):
        search(account, Text("some"))
        search(account, Body("some"), "Other")
        assert not account.has_maintenance, "eight messages have been read"
    search(account, Header("x-odd", "strange"))
    assert not account.has_maintenance, "a header is no text"
    search(account, Text("some"))
    assert account.has_maintenance
    build(account)
    assert indexed(account) == [4]


def test_a_message_is_read_once_for_the_index(account, monkeypatch):
    for number in range(60):
        put(account, data=message(body=f"needle {number} " + "x" * 20_000))
    search(account, Body("needle"))
    read: list[int] = []
    original = MaildirMailbox.read_whole

    def record(mailbox, some, limit):
        found = original(mailbox, some, limit)
        read.extend(uid for uid, _data in found)
        return found

    monkeypatch.setattr(MaildirMailbox, "read_whole", record)
    assert build(account) is None
    assert set(read) == set(range(1, 61))
    assert len(read) <= 60 * 4, "a slice ends before all that it has read ahead"


def test_other_mailboxes_are_left_alone(account):
    account.create("Other")
    put(account)
    put(account, "Other")
    search(account, Text("some"))
    build(account)
    assert indexed(account) == [1]
    search(account, Header("x-odd", "strange"), "Other")
    build(account)
    assert indexed(account) == [1], "a header is no text"
    search(account, Text("ab"), "Other")
    build(account)
    assert indexed(account) == [1, 1]


def test_short_needles_are_looked_for_in_the_messages(account, monkeypatch):
    put(account, data=message(body="xy"))
    search(account, Text("some"))
    build(account)
    opened = Opened(monkeypatch)
    assert search(account, Body("xy")) == [1]
    assert opened.take() == [1]


def test_what_is_expunged_is_taken_out(account):
    for number in range(9):
        put(account, data=message(body=f"needle {number}"))
    search(account, Body("needle"))
    build(account)
    mailbox = account.mailbox("INBOX")
    mailbox.expunge([2, 3, 9], only_deleted=False)
    assert search(account, Body("needle")) == [1, 4, 5, 6, 7, 8]
    assert indexed(account) == [9]
    build(account)
    assert indexed(account) == [6]
    assert search(account, Body("needle")) == [1, 4, 5, 6, 7, 8]


def test_so_is_it_where_the_history_is_lost(root, account):
    for number in range(9):
        put(account, data=message(body=f"needle {number}"))
    search(account, Body("needle"))
    build(account)
    account.mailbox("INBOX").expunge([1, 4, 5], only_deleted=False)
    account.close()
    for end in ("", "-wal", "-shm"):
        os.unlink(os.path.join(account_root(root), "mailserver-index.sqlite" + end))
    account = open_store(root).account(USER)
    put(account, data=message(body="needle 10"))
    assert search(account, Body("needle")) == [2, 3, 6, 7, 8, 9, 10]
    build(account)
    assert indexed(account) == [7]
    assert search(account, Body("needle")) == [2, 3, 6, 7, 8, 9, 10]
    account.close()


def test_deleted_and_renewed_mailboxes_go(account):
    for name in ("A", "B", "C"):
        account.create(name)
        put(account, name, message(body="needle old"))
        search(account, Body("needle"), name)
    build(account)
    assert len(indexed(account)) == 3
    account.delete("A")
    account.delete("B")
    account.create("B")
    put(account, "B", message(body="needle new"))
    account.rename("C", "D")
    build(account)
    assert indexed(account) == [1], "a renamed mailbox is the same"
    assert search(account, Body("old"), "B") == []
    assert search(account, Body("new"), "B") == [1]
    assert search(account, Body("old"), "D") == [1]
    build(account)
    assert indexed(account) == [1, 1]


def test_an_index_of_a_mailbox_that_was_put_back_is_not_believed(account):
    for number in range(4):
        put(account, data=message(body=f"needle {number}"))
    search(account, Body("needle"))
    build(account)
    index = account._home.text_index._index
    with index.writing():
        # As if it had been made when there were more messages, with other ones under these UIDs.
        [key] = [row[0] for row in index.mailboxes()]
        for uid in range(1, 9):
            index.put(key, uid, "", "other")
        index.cover(key, range(1, 9))
    assert search(account, Body("needle")) == [1, 2, 3, 4]
    build(account)
    assert search(account, Body("needle")) == [1, 2, 3, 4]
    build(account)
    assert indexed(account) == [4]
    assert search(account, Body("needle")) == [1, 2, 3, 4]


def test_a_slice_ends_when_it_is_told_to(account):
    for number in range(20):
        put(account, data=message(body=f"needle {number}"))
    search(account, Body("needle"))
    account.maintain(lambda: True)  # takes the mailbox up
    counts = []
    while account.maintain(lambda: True) is not None:
        counts.append(sum(indexed(account)))
    assert sorted(set(counts)) == list(range(1, 21)), "one message a slice"


def test_transactions_are_small(account, monkeypatch):
    monkeypatch.setattr(text_index, "STEP", 60.0)  # a busy machine ends none by the clock
    for _number in range(6):
        put(account, data=message(body="word " * 8000))
    search(account, Body("needle"))
    counts = []
    while account.maintain(lambda: False) is not None:
        counts.append(sum(indexed(account)))
    assert sorted(set(counts)) == [0, 2, 4, 6], "64 KiB or a little more"


def test_a_message_with_much_text_is_read(account, monkeypatch):
    put(account, data=message(body="word " * 60_000 + "needle"))
    put(account, data=message(body="nothing"))
    assert search(account, Body("needle")) == [1]
    build(account)
    opened = Opened(monkeypatch)
    assert search(account, Body("needle")) == [1]
    assert opened.take() == [1]
    assert build(account) is None
    assert indexed(account) == [1]


def test_what_cannot_be_read_is_not_indexed(root, account):
    put(account, data=message(body="needle"))
    put(account, data=message(body="needle"))
    directory = os.path.join(account_root(root), "cur")
    account.mailbox("INBOX").claim_recent()
    [path, _other] = sorted(entry.path for entry in os.scandir(directory))
    data = Path(path).read_bytes()
    os.unlink(path)
    os.mkdir(path)
    found = search(account, Body("needle"))
    assert len(found) == 1
    build(account)
    os.rmdir(path)
    Path(path).write_bytes(data)
    assert len(search(account, Body("needle"))) == 2


def test_switched_off_nothing_is_made_and_what_is_there_goes(root, account):
    put(account, data=message(body="needle"))
    search(account, Body("needle"))
    build(account)
    account.close()
    path = os.path.join(account_root(root), text_index.FILE_NAME)
    assert os.path.exists(path)
    off = MaildirStore(root, summarise, special_use={}, search_index=False).account(USER)
    assert not os.path.exists(path)
    assert search(off, Body("needle")) == [1]
    assert not off.has_maintenance
    assert off.maintain(lambda: False) is None
    assert not os.path.exists(path)
    off.close()


bodies = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)

steps = st.one_of(
    st.tuples(st.just("put"), bodies, bodies),
    st.tuples(st.just("expunge"), st.integers(0, 30), st.just("")),
    st.tuples(st.just("build"), st.integers(1, 12), st.just("")),
    st.tuples(st.just("stop"), st.integers(1, 6), st.just("")),
    st.tuples(st.just("close"), st.just(0), st.just("")),
    st.tuples(st.just("move"), st.integers(0, 30), st.just("")),
)


@settings(max_examples=sweeps.choose(20, whole=200), deadline=None)
@given(
    st.lists(steps, min_size=3, max_size=25), st.lists(st.sampled_from(NEEDLES), min_size=1, max_size=4, unique=True)
)
def test_searches_find_what_they_find_by_reading(history, needles):
    queries: list[Query] = [kind(needle) for needle in needles for kind in (Body, Text)]
    queries += [Header("x-odd", needle) for needle in needles] + [Header("subject", needle) for needle in needles]
    queries += [Not(queries[0]), Or((queries[0], Header("x-odd", needles[-1]))), And((queries[1], Not(queries[-1])))]
    with scratch() as root:
        account = open_store(root).account(USER)
        account.create("Other")
        put(account)
        search(account, Text("some"))
        for kind, value, more in history:
            there = uids(account.mailbox("INBOX"))
            if kind == "put":
                put(account, data=message(subject=more.encode("ascii", "ignore").decode(), body=value))
            elif kind == "expunge" and there:
                account.mailbox("INBOX").expunge([there[value % len(there)]], only_deleted=False)
            elif kind == "move" and there:
                account.mailbox("INBOX").move([there[value % len(there)]], "Other")
            elif kind == "build":
                build(account, value)
            elif kind == "stop":
                for _ in range(value):
                    account.maintain(lambda: True)
            elif kind == "close":
                account.close()
            for query in queries:
                assert search(account, query) == read(account, query), query
        search(account, queries[0], "Other")
        build(account)
        for query in queries:
            for name in ("INBOX", "Other"):
                assert search(account, query, name) == read(account, query, name), query
        account.close()
