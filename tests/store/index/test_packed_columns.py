"""What is packed says what the rows say, whatever has happened since."""

from __future__ import annotations

import sqlite3
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.render import summarise
from mailserver.store.index import packed_columns
from mailserver.store.index.database import Index
from mailserver.store.index.packed_columns import Arrays, pack, unpack
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.maildir.account.store import MaildirStore
from tests.store.index.test_index import state

UINT, LONG = st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1)


@st.composite
def arrays(draw: st.DrawFn) -> Arrays:
    uids = draw(st.one_of(st.builds(range, st.integers(1, 9), st.integers(9, 40)), st.sets(UINT, max_size=40)))
    count = len(uids)

    def column(values: st.SearchStrategy[int]) -> list[int]:
        return draw(
            st.one_of(st.lists(values, min_size=count, max_size=count), values.map(lambda value: [value] * count))
        )

    return Arrays(
        array("I", sorted(uids)),
        array("I", column(UINT)),
        array("Q", column(LONG)),
        array("I", column(UINT)),
        array("q", column(LONG)),
    )


@given(arrays())
def test_what_is_packed_is_unpacked(columns: Arrays) -> None:
    data = pack(columns)
    assert unpack(data) == columns
    assert len(data) <= 28 * len(columns.uids) + 64


@given(arrays(), st.integers(0, 200))
def test_other_octets_are_not_taken(columns: Arrays, length: int) -> None:
    data = pack(columns)
    if length < len(data):
        assert unpack(data[:length]) is None
    assert unpack(b"\1" * 8 + data[8:]) is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "change", "expunge", "learn", "prune", "pack", "load", "many"]), st.integers(0, 30)
    ),
    max_size=30,
)


@given(STEPS)
def test_it_is_level_with_the_rows(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_columns, "FEW", 5)
        patch.setattr(packed_columns, "WORTH", 1)
        index = Index.make_in_memory("none")
        box = state()
        with index.transaction():
            index.mailboxes.save(box)
        for step, number in steps:
            with index.transaction():
                carry_out(index, box, step, number)
                index.mailboxes.save(box)
            again = index.mailboxes.by_name("INBOX")
            assert again is not None
            columns, _ = index.packed_columns.load(again)
            assert tuple(columns) == index.messages.columns(box.key)
        index.close()


def carry_out(index: Index, box: MailboxState, step: str, number: int) -> None:
    key = box.key
    uids = list(index.messages.uids(key))
    some = uids[number % (len(uids) or 1) :][: 1 + number % 4]
    match step:
        case "add" | "many":
            box.modseq += 1
            count = 20 if step == "many" else 1 + number % 3
            new = range(box.uid_next, box.uid_next + count)
            size = None if number % 2 else 2**32 + number
            index.messages.add(key, [Entry(uid, box.modseq, number, size, None, f"base{uid}", ":2,", 1) for uid in new])
            box.uid_next += count
        case "change":
            box.modseq += 1
            entries = index.messages.entries_of(key, some)
            index.messages.change(key, [entry._replace(modseq=box.modseq, flags=number) for entry in entries])
        case "expunge":
            box.modseq += 1
            index.expunge(key, some, box.modseq)
        case "learn":
            index.messages.learn(key, [(uid, number, number) for uid in some])
        case "prune":
            index.prune(key, number % 3)
            box.floor = max(box.floor, index.mailboxes.by_guid(box.guid).floor)
        case "pack":
            index.packed_columns.put(key, box.modseq, Arrays(*index.messages.columns(key)))
        case "load":
            # As one who read the state first, and the rows when others had gone on.
            columns = Arrays(*index.messages.columns(key))
            index.packed_columns.put(key, max(box.floor, box.modseq - 1), columns)


def fill(store, count):
    account = store.account("anna@example.test")
    for number in range(count):
        with open(f"{account.root}/cur/17000{number:05}.a:2,S", "wb") as file:
            file.write(b"Subject: x\r\n\r\n")
    return account


def test_a_mailbox_that_is_loaded_again_costs_no_rows(tmp_path, monkeypatch):
    store = MaildirStore(str(tmp_path), summarise, location="{root}/{local}/Maildir")
    account = fill(store, packed_columns.WORTH)
    first = account.mailbox("INBOX").load()
    assert list(first.uids) == list(range(1, packed_columns.WORTH + 1))
    # What is learnt makes what was packed too old; the next one who loads the mailbox packs it.
    account.mailbox("INBOX").summaries([1])
    assert account.mailbox("INBOX").load().rows[0].size == len(b"Subject: x\r\n\r\n")
    account.close()

    def read(*_arguments):
        raise AssertionError

    again = store.account("anna@example.test")
    monkeypatch.setattr("mailserver.store.index.messages.Messages.columns", read)
    mailbox = again.mailbox("INBOX")
    mailbox.expunge([3], only_deleted=False)
    loaded = mailbox.load()
    assert [row.uid for row in loaded.rows][:4] == [1, 2, 4, 5]
    assert loaded.rows[0].size == len(b"Subject: x\r\n\r\n")
    again.close()


def test_reading_headers_alone_leaves_what_was_packed(tmp_path, monkeypatch):
    store = MaildirStore(str(tmp_path), summarise, location="{root}/{local}/Maildir")
    account = fill(store, packed_columns.WORTH)
    mailbox = account.mailbox("INBOX")
    before = mailbox.load()
    assert len(mailbox.summaries([1, 2], only_head=True)) == 2
    with monkeypatch.context() as patch:
        patch.setattr("mailserver.store.index.messages.Messages.columns", None)
        assert mailbox.load().rows == before.rows
    account.close()


def test_who_loads_a_mailbox_does_not_wait_for_one_who_writes(tmp_path):
    store = MaildirStore(str(tmp_path), summarise, location="{root}/{local}/Maildir")
    account = fill(store, packed_columns.WORTH)
    mailbox = account.mailbox("INBOX")
    mailbox.summaries([1])
    writer = sqlite3.connect(f"{account.root}/mailserver-index.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert len(mailbox.load().uids) == packed_columns.WORTH
    assert writer.execute("SELECT count(*) FROM packed_columns").fetchone() == (0,)
    writer.execute("COMMIT")
    writer.close()
    assert len(mailbox.load().uids) == packed_columns.WORTH
    account.close()
