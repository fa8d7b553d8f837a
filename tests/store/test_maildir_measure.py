"""Sizes and dates of mail that another program delivered: files are read, and nothing is rendered."""

from __future__ import annotations

import os

import pytest

from mailserver.imap.commands.fetch import ITEMS
from mailserver.imap.fetch.plan import FetchPlan, Rows
from mailserver.imap.fetch.work import Work
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import safeio
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE

USER = "anna@example.test"
BARE = b"Subject: x\n\none\ntwo\n"


@pytest.fixture
def mailbox(tmp_path):
    store = MaildirStore(
        tmp_path / "mail", lambda _source: pytest.fail("nothing need be rendered"), hostname="host.example.test"
    )
    account = store.account(USER)
    for number in range(3):
        name = os.path.join(account.root, "new", f"170000000{number}.a.host")
        with open(name, "wb") as file:
            file.write(BARE)
        os.utime(name, (1_600_000_000 + number, 1_600_000_000 + number))
    found = account.mailbox("INBOX")
    found.refresh()
    return found


def test_nothing_is_rendered_for_sizes(mailbox):
    rows = mailbox.load().rows
    assert {(row.size, row.date) for row in rows} == {(UNKNOWN_SIZE, UNKNOWN_DATE)}
    measured = mailbox.measure([row.uid for row in rows])
    assert [(row.size, row.date) for row in measured] == [(len(BARE) + 4, 1_600_000_000 + at) for at in range(3)]
    assert mailbox.load().rows == measured


@pytest.mark.parametrize("later", ["measure", "summaries"])
def test_a_date_that_was_told_stays_whoever_touches_the_file(tmp_path, later):
    """RFC 3501 2.3.1.1: the internal date of a UID must never change, as a backup without times would have it do."""
    account = MaildirStore(tmp_path / "mail", summarise, hostname="host.example.test").account(USER)
    name = os.path.join(account.root, "new", "1700000000.a.host")
    with open(name, "wb") as file:
        file.write(BARE)
    os.utime(name, (1_600_000_000,) * 2)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    (told,) = mailbox.measure([1], only_dates=True)
    assert told.date == 1_600_000_000
    os.utime(name, (1_700_000_000,) * 2)
    measured = later == "measure"
    rows = mailbox.measure([1]) if measured else [row for _uid, row, _summary in mailbox.summaries([1])]
    for row in [*rows, *mailbox.load().rows]:
        assert (row.size, row.date) == (len(BARE) + 4, told.date)


def test_a_fetch_of_sizes_alone_renders_nothing(mailbox):
    rows = mailbox.load().rows
    uids = [row.uid for row in rows]
    unknown = Rows([1, 2, 3], uids, [0] * 3, [row.size for row in rows], [row.date for row in rows], gone=False)
    work = Work((USER,), FetchPlan((ITEMS["UID"], ITEMS["RFC822.SIZE"])), unknown, flags=[b"()"] * 3, seen=frozenset())
    ready = work.run(0, mailbox)
    size = len(BARE) + 4
    assert ready.data == b"".join(
        b"* %d FETCH (UID %d RFC822.SIZE %d)\r\n" % (number, uid, size) for number, uid in enumerate(uids, 1)
    )
    assert [(row.uid, row.size) for row in ready.learned] == [(uid, size) for uid in uids]


@pytest.mark.parametrize(
    "names", [("ENVELOPE",), ("UID", "FLAGS", "ENVELOPE"), ("ENVELOPE", "RFC822.SIZE", "INTERNALDATE")]
)
def test_kept_envelopes_are_told_as_rendered_ones(tmp_path, names, monkeypatch):
    store = MaildirStore(tmp_path / "mail", summarise, hostname="host.example.test")
    account = store.account(USER)
    for number in range(4):
        with open(os.path.join(account.root, "new", f"170000000{number}.a.host"), "wb") as file:
            file.write(b"Subject: %d %%d\n\nx\n" % number)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()

    def answer(wanted=range(4)):
        rows = mailbox.load().rows
        uids, sizes, dates = ([getattr(rows[at], name) for at in wanted] for name in ("uid", "size", "date"))
        told = Rows([at + 1 for at in wanted], uids, [0] * len(uids), sizes, dates, gone=False)
        work = Work(
            (USER,), FetchPlan(tuple(ITEMS[name] for name in names)), told, flags=[b"()"] * len(uids), seen=frozenset()
        )
        return work.run(0, mailbox)

    assert b"0 %d" in answer([0]).data, "it is rendered"
    rendered = answer()
    assert rendered.data.count(b" FETCH (") == rendered.done == 4
    monkeypatch.setattr(type(mailbox), "summaries", lambda *_, **__: pytest.fail("envelopes are kept"))
    assert answer().data == rendered.data
    assert answer([0, 3]).data == b"".join(rendered.data.splitlines(keepends=True)[at] for at in (0, 3))


def test_one_that_is_gone_is_left_out(mailbox):
    uids = [row.uid for row in mailbox.load().rows]
    os.unlink(os.path.join(mailbox.watched_paths[1], "1700000001.a.host"))
    assert [row.uid for row in mailbox.measure(uids)] == [uids[0], uids[2]]


def test_files_of_known_size_are_read_without_asking_for_their_status(mailbox, monkeypatch):
    uids = [row.uid for row in mailbox.load().rows]
    mailbox.measure(uids)
    monkeypatch.setattr(safeio, "open_with_status", lambda *_: pytest.fail("the size is known"))
    text = BARE.replace(b"\n", b"\r\n")
    assert mailbox.read_whole(uids, 10_000) == [(uid, text) for uid in uids]


@pytest.mark.parametrize("other", [b"", BARE + b"x", BARE[:-1]])
def test_a_file_that_is_not_what_it_was_is_not_believed(mailbox, other):
    uids = [row.uid for row in mailbox.load().rows]
    mailbox.measure(uids)
    with open(os.path.join(mailbox.watched_paths[1], "1700000001.a.host"), "wb") as file:
        file.write(other)
    assert [uid for uid, _text in mailbox.read_whole(uids, 10_000)] == uids[:1]


def test_what_stands_in_a_message_s_place_is_not_read(mailbox):
    uids = [row.uid for row in mailbox.load().rows]
    mailbox.measure(uids)
    for number, make in enumerate((os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path))):
        path = os.path.join(mailbox.watched_paths[1], f"170000000{number}.a.host")
        os.unlink(path)
        make(path)
        assert mailbox.read_whole(uids[number:], 10_000) == []


def test_dates_are_told_without_opening_a_file(mailbox, monkeypatch):
    uids = [row.uid for row in mailbox.load().rows]
    mailbox.measure(uids[:1])
    os.utime(os.path.join(mailbox.watched_paths[1], "1700000002.a.host"), (-5, -5))
    monkeypatch.setattr(safeio, "open_unasked", lambda *_: pytest.fail("a date needs no reading"))
    rows = mailbox.measure(uids, only_dates=True)
    size = len(BARE) + 4
    expected = [(size, 1_600_000_000), (UNKNOWN_SIZE, 1_600_000_001), (UNKNOWN_SIZE, -5)]
    assert [(row.size, row.date) for row in rows] == expected
    assert [(row.size, row.date) for row in mailbox.load().rows] == expected
    monkeypatch.undo()
    assert [row.size for row in mailbox.measure(uids)] == [size] * 3, "sizes can still be found out"


def test_a_date_of_what_is_gone_or_no_file_is_not_told(mailbox):
    uids = [row.uid for row in mailbox.load().rows]
    new = mailbox.watched_paths[1]
    os.unlink(os.path.join(new, "1700000001.a.host"))
    os.rename(os.path.join(new, "1700000002.a.host"), os.path.join(new, "other"))
    os.symlink("other", os.path.join(new, "1700000002.a.host"))
    assert [row.uid for row in mailbox.measure(uids, only_dates=True)] == uids[:1]


def test_a_date_is_found_where_another_program_put_the_file(mailbox):
    uids = [row.uid for row in mailbox.load().rows]
    cur, new = mailbox.watched_paths
    os.rename(os.path.join(new, "1700000001.a.host"), os.path.join(cur, "1700000001.a.host:2,S"))
    assert [row.date for row in mailbox.measure(uids, only_dates=True)] == [1_600_000_000 + at for at in range(3)]
