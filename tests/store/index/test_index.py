"""The index of an account: what is kept is read back, and an unusable file never stays one."""

import os
import sqlite3
from functools import partial
from pathlib import Path

import attrs
import pytest

from mailserver.message.summary import INCOMPLETE, Summary
from mailserver.store.flags import DELETED, SEEN
from mailserver.store.index.database import Index, next_modseq
from mailserver.store.index.fulltext import FullText
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.rows import Row
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "index.sqlite")


def open_index(path):
    return Index.remake(path)


def state(name="INBOX", guid=b"g" * 16, **changes):
    return attrs.evolve(MailboxState(0, guid, name, 7, 1, 1, 1, 1), **changes)


def entry(uid, modseq=5, flags=0, size=10, date=100, suffix=":2,", place=1):
    return Entry(uid, modseq, flags, size, date, f"base{uid}", suffix, place)


def add(index, uids, **facts):
    box = state()
    with index.transaction():
        index.mailboxes.save(box)
        index.messages.add(box.key, [entry(uid, **facts) for uid in uids])
    return box.key


def test_a_mailbox_is_read_back_as_it_was_written(path):
    index = open_index(path)
    box = state(keywords=("$Forwarded", "Ärger"), uidlist_signature=(1, 2, 3, 4), cur_mtime=9, cur_racy=False, boot="b")
    with index.transaction():
        index.mailboxes.save(box)
    index.close()
    again = open_index(path)
    assert again.mailboxes.by_name("INBOX") == box
    assert again.mailboxes.by_guid(b"g" * 16) == box
    assert again.mailboxes.by_name("other") is None
    box.uid_next = 40
    with again.transaction():
        again.mailboxes.save(box)
    assert [kept.uid_next for kept in again.mailboxes.all()] == [40]


def test_whoever_has_the_name_of_a_new_mailbox_goes(path):
    index = open_index(path)
    key = add(index, [1, 2])
    with index.transaction():
        index.mailboxes.save(state(guid=b"h" * 16))
    assert [kept.guid for kept in index.mailboxes.all()] == [b"h" * 16]
    assert index.messages.rows_of(key, range(1, 100)) == []


def test_names_can_be_exchanged(path):
    index = open_index(path)
    with index.transaction():
        index.mailboxes.save(state("a", b"a" * 16))
        index.mailboxes.save(state("b", b"b" * 16))
        index.mailboxes.rename({"a": "b", "b": "a"})
    assert index.mailboxes.by_name("a").guid == b"b" * 16
    assert index.mailboxes.by_name("b").guid == b"a" * 16


def test_unknown_sizes_and_dates_are_told_as_such(path):
    index = open_index(path)
    key = add(index, [3], size=None, date=None)
    assert index.messages.rows_of(key, range(1, 100)) == [Row(3, 0, 5, UNKNOWN_SIZE, UNKNOWN_DATE)]
    with index.transaction():
        index.messages.learn(key, [(3, 12, 34)])
    assert index.messages.rows_of(key, range(1, 100)) == [Row(3, 0, 5, 12, 34)]


@pytest.mark.parametrize("uids", [[1], [2, 3, 4], [1, 9], [5, 400, 999], list(range(1, 1000, 5)), [1000, 2000], []])
def test_some_messages_are_found_by_uid(path, uids):
    index = open_index(path)
    there = set(range(1, 1001)) - {3, 400}
    key = add(index, sorted(there))
    expected = [uid for uid in uids if uid in there]
    assert [row.uid for row in index.messages.rows_of(key, uids)] == expected
    assert [found.uid for found in index.messages.entries_of(key, uids)] == expected


def test_thousands_of_scattered_messages_are_found(path):
    index = open_index(path)
    key = add(index, range(1, 20001))
    uids = list(range(7, 20001, 13))
    assert [row.uid for row in index.messages.rows_of(key, uids)] == uids


def test_changes_and_expunges_after_a_modseq(path):
    index = open_index(path)
    key = add(index, [1, 2, 3, 4])
    with index.transaction():
        index.messages.change(key, [entry(2, modseq=6, flags=SEEN, suffix=":2,S")])
        index.messages.expunge(key, [1, 4], 7)
    assert [(row.uid, row.flags) for row in index.messages.changed_since(key, 5)] == [(2, SEEN)]
    assert index.messages.expunged_since(key, 6) == [1, 4]
    assert index.messages.expunged_since(key, 7) == []
    assert list(index.messages.uids(key)) == [2, 3]
    assert index.messages.by_base(key, "base2").suffix == ":2,S"
    assert index.messages.by_base(key, "base1") is None


def test_counts(path):
    index = open_index(path)
    key = add(index, [1, 2, 3])
    with index.transaction():
        index.messages.change(key, [entry(2, flags=SEEN), entry(3, flags=SEEN | DELETED)])
    assert index.messages.counts(key) == (3, 1, 1)
    assert index.messages.counts(key + 1) == (0, 0, 0)
    assert index.messages.count_from(key, 2) == 2


def test_file_names_that_are_no_utf8_are_kept(path):
    index = open_index(path)
    name = os.fsdecode(b"1.\xff.host")
    box = state()
    with index.transaction():
        index.mailboxes.save(box)
        index.messages.add(box.key, [entry(1)._replace(base=name)])
    assert index.messages.by_base(box.key, name).base == name


def test_summaries_are_kept_copied_and_go_with_their_message(path):
    index = open_index(path)
    key = add(index, [1, 2])
    summary = Summary(b"(env)", b"(body)", b"(structure)", b"A: b\r\n")
    with index.transaction():
        index.summaries.put(key, [(1, summary), (2, summary)])
        index.header_texts.put(key, [(1, "\na:\ud800b", -3), (2, "\na: b", None)])
        index.summaries.copy(key, key + 1, [(1, 9)])
        index.header_texts.copy(key, key + 1, [(1, 9)])
        index.field_texts.put(key, ["subject"], [(1, "\nsubject: a"), (2, "\nsubject: b")])
        index.messages.expunge(key, [1], 8)
    assert index.field_texts.get(key, [1, 2], ["subject"]) == [(2, "\nsubject: b")]
    assert set(index.summaries.get(key, [1, 2])) == {2}
    # a lone surrogate cannot be stored, nor be searched for
    assert index.header_texts.get(key + 1, [9]) == [(9, "\na:?b", -3)]
    assert [uid for uid, _text, _sent in index.header_texts.get(key, [1, 2])] == [2]
    assert index.summaries.get(key + 1, [9])[9].envelope == b"(env)"


def test_a_failed_transaction_changes_nothing(path):
    index = open_index(path)
    key = add(index, [1])

    def fail():
        with index.transaction():
            index.messages.expunge(key, [1], 8)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(index.messages.uids(key)) == [1]


def make_foreign(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def make_other_version(path):
    open_index(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: None,
        lambda path: Path(path).touch(),
        lambda path: Path(path).write_bytes(b"no database at all" * 100),
        make_foreign,
        make_other_version,
    ],
    ids=["absent", "empty", "garbage", "foreign", "other version"],
)
def test_what_cannot_be_used_is_made_anew_by_the_lock_holder_only(path, spoil):
    spoil(path)
    assert Index.open(path) is None
    index = Index.remake(path)
    assert index.mailboxes.all() == []
    assert not index.in_memory
    index.close()
    assert Index.open(path) is not None


def test_summaries_of_another_rendering_are_forgotten_alone(path):
    index = Index.remake(path)
    summary = Summary(b"(env)", b"(body)", b"(structure)", b"A: b\r\n")
    key = add(index, [1])
    with index.transaction():
        index.summaries.put(key, [(1, summary)])
        index.header_texts.put(key, [(1, "\na: b", -3)])
    index.close()
    index = Index.open(path)
    assert index.summaries.get(key, [1]) == {1: Summary(b"(env)", b"(body)", b"(structure)", b"A: b\r\n")}
    assert index.header_texts.get(key, [1]) == [(1, "\na: b", -3)]
    index.close()
    with sqlite3.connect(path) as connection:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version + 0x10000}")
    for _again in range(2):
        index = Index.open(path)
        assert index.summaries.get(key, [1]) == {}
        assert index.header_texts.get(key, [1]) == []
        assert list(index.messages.uids(key)) == [1]
        index.close()


def test_a_removed_file_is_noticed(path):
    index = open_index(path)
    assert index.is_current()
    os.unlink(path)
    assert not index.is_current()
    open_index(path)
    assert not index.is_current()


@pytest.mark.parametrize("opened", [Index.remake, partial(FullText.open, create=True)])
def test_its_files_are_private(path, opened):
    """Those beside it too, which SQLite makes with the rights of the first: also where that was made by others."""
    files = [path, path + "-wal", path + "-shm"]
    umask = os.umask(0o022)
    try:
        opened(path).close()
        assert [os.stat(file).st_mode & 0o777 for file in files[:2]] == [0o600] * 2
        for file in files[:2]:
            os.chmod(file, 0o644)
        index = opened(path)
    finally:
        os.umask(umask)
    assert [os.stat(file).st_mode & 0o777 for file in files] == [0o600] * 3
    index.close()


def test_in_memory_nothing_is_written(path):
    index = Index.make_in_memory(path)
    assert index.in_memory
    assert index.is_current()
    assert add(index, [1]) == 1
    assert not os.path.exists(path)


def test_modseqs_grow_past_the_clock_and_past_the_last():
    first = next_modseq(0)
    assert first > 1_600_000_000_000_000
    assert next_modseq(2**62) == 2**62 + 1
    assert next_modseq(first) > first


def test_the_history_of_expunges_is_bounded(path):
    index = open_index(path)
    key = add(index, range(1, 11))
    with index.transaction():
        for uid in range(1, 9):
            index.messages.expunge(key, [uid], 100 + uid)
        index.prune(key, 100)
    assert index.messages.expunged_since(key, 0) == list(range(1, 9))
    with index.transaction():
        index.prune(key, 3)
    assert index.messages.expunged_since(key, 0) == [6, 7, 8]
    # from there on, and not before, nothing is missing
    assert index.mailboxes.by_name("INBOX").floor == 105


@pytest.mark.parametrize("uids", [range(1, 9), [1, 2, 4, 5, 8], [1, 4, 8], [1, 300, 9000]])
@pytest.mark.parametrize("needle", ["a", "*", "?", "[", "]", "[a]", "\nsubject: a", "ß", "a" * 30 + "b", "[^x]", "é*"])
def test_texts_with_a_needle_are_found(path, uids, needle):
    texts = {
        1: "\nsubject: a*b?[a]",
        2: "\nsubject: straße",
        4: INCOMPLETE,
        5: "\nto: x]\nsubject: [^x] é*",
        8: "\nsubject: " + "a" * 30 + "b",
        300: "\nfrom: *",
    }
    index = open_index(path)
    key = add(index, [1])
    with index.transaction():
        index.header_texts.put(key, [(uid, text, None) for uid, text in texts.items()])
        index.header_texts.put(key + 1, [(3, needle, None)])
    hits, missing = index.header_texts.find_needles(key, list(uids), [needle, "never"])
    there = [uid for uid in uids if uid in texts]
    assert missing == [uid for uid in uids if uid not in texts]
    assert [uid for uid, _text in hits] == [uid for uid in there if needle in texts[uid] or texts[uid] == INCOMPLETE]
    assert all(text == texts[uid] for uid, text in hits)


@pytest.mark.parametrize("uids", [range(1, 7), [1, 3, 6], [2, 9], [1, 4000]])
@pytest.mark.parametrize("days", [(None, None), (10, None), (None, 10), (10, 20), (10, 11), (-5, 1), (20, 10)])
def test_days_of_the_date_field_are_found(path, uids, days):
    first, end = days
    sent = {1: 10, 2: None, 3: 0, 4: 19, 6: 20, 4000: -3}
    index = open_index(path)
    key = add(index, [1])
    with index.transaction():
        index.header_texts.put(key, [(uid, "x", day) for uid, day in sent.items()])
        index.header_texts.put(key + 1, [(5, "x", 10)])
    hits, missing = index.header_texts.sent_within(key, list(uids), first, end)
    assert missing == [uid for uid in uids if uid not in sent]
    assert hits == [
        uid for uid in uids
        if (day := sent.get(uid)) is not None and (first is None or first <= day) and (end is None or day < end)
    ]  # fmt: skip


def test_a_text_that_the_database_would_end_early_is_not_kept(path):
    index = open_index(path)
    key = add(index, [1])
    with index.transaction():
        index.header_texts.put(key, [(1, "\nsubject: a\0b", None)])
    assert index.header_texts.get(key, [1]) == [(1, INCOMPLETE, None)]


@pytest.mark.parametrize("gone", [(), (1,), (300,), (700,)])
def test_which_of_very_many_messages_are_there(path, gone):
    index = open_index(path)
    key = add(index, [uid for uid in range(1, 701) if uid not in gone])
    assert index.messages.present(key, range(1, 701)) == [uid for uid in range(1, 701) if uid not in gone]
    assert index.messages.present(key, range(1, 1401, 2)) == [uid for uid in range(1, 701, 2) if uid not in gone]


@pytest.mark.parametrize("uids", [range(1, 6), [1, 2, 5], [2, 1000], []])
def test_texts_of_some_fields_are_found_of_these_fields_alone(path, uids):
    index = open_index(path)
    key = add(index, [1, 2, 3, 4, 5, 1000])
    with index.transaction():
        index.field_texts.put(key, ["subject"], [(1, "\nsubject: x"), (2, "\nsubject: a*b"), (5, INCOMPLETE)])
        index.field_texts.put(key, ["to", "from"], [(3, "\nto: a*b")])
        index.field_texts.put(key + 1, ["subject"], [(4, "\nsubject: a*b")])
    hits, missing = index.field_texts.find_needles(key, list(uids), ["a*b"], {"subject"})
    assert hits == [row for row in [(2, "\nsubject: a*b"), (5, INCOMPLETE)] if row[0] in uids]
    assert missing == [uid for uid in uids if uid not in (1, 2, 5)]
    assert index.field_texts.find_needles(key, [3], ["a*b"], {"from", "to"}) == ([(3, "\nto: a*b")], [])
    assert index.field_texts.is_used(key, [3, 4])
    assert not index.field_texts.is_used(key, [4])


def test_an_index_from_before_there_were_texts_of_some_fields_is_used_further(path):
    index = open_index(path)
    key = add(index, [1])
    index.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE field_texts")
    index = Index.open(path)
    assert list(index.messages.uids(key)) == [1]
    assert index.field_texts.get(key, [1], ["subject"]) == []
    index.close()
