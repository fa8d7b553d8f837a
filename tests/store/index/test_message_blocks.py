"""What is in blocks is told as if each message had its row, whatever has happened to them since."""

from array import array
from random import Random

import pytest

from mailserver.store.flags import DELETED, SEEN
from mailserver.store.index.database import Index
from mailserver.store.index.message_blocks import MessageBlock
from mailserver.store.index.records import Entry, MailboxState
from mailserver.types import UNKNOWN_SIZE

KEYS = 1, 2, 3
"""Of mailboxes; what happens happens in the second: its neighbours in the tables must not change or show."""
MODSEQS = range(10, 14)


def entry(uid, modseq, flags=0, place=1, size=None, date=None):
    # A base that is no UTF-8, as a file system may have.
    return Entry(uid, modseq, flags, size, date, f"{1000 + uid * 7 % 50}.\udcff{uid}", ":2," if place else "", place)


def block_of(entries):
    return MessageBlock(
        entries[0].modseq,
        array("I", [each.uid for each in entries]),
        array("I", [each.flags for each in entries]),
        [each.base.encode("utf-8", "surrogateescape") for each in entries],
        [each.suffix.encode() for each in entries],
        bytes([each.place for each in entries]),
    )


def add_blocks(index, key, entries_of_each):
    """Add blocks of messages, none of whose names claims a size."""
    sizes = array("I", [UNKNOWN_SIZE]) * sum(map(len, entries_of_each))
    index.messages.add_blocks(key, map(block_of, entries_of_each), sizes)


def blocks(random):
    """Of rising UIDs with gaps, each with its modseq."""
    uids = sorted(random.sample(range(1, 41), random.randint(0, 25)))
    parts = []
    for modseq in MODSEQS:
        size = random.randint(1, 12)
        part, uids = uids[:size], uids[size:]
        if part:
            flags = [random.choice([0, SEEN, DELETED, SEEN | DELETED]) for _uid in part]
            parts.append(
                [entry(uid, modseq, mask, random.randint(0, 1)) for uid, mask in zip(part, flags, strict=True)]
            )
    return parts


def some_uids(random):
    return sorted(random.sample(range(1, 46), random.randint(1, 8)))


def steps_of(random):
    """Each kind of change, in any order."""
    steps = [
        ("change", some_uids(random), random.choice([0, SEEN, DELETED])),
        ("learn", some_uids(random), random.randint(1, 9)),
        ("expunge", some_uids(random), 0),
        ("add", [], 0),
    ]
    random.shuffle(steps)
    return steps


def take(index, step, modseq):
    kind, uids, value = step
    with index.transaction():
        match kind:
            case "change":
                known = index.messages.entries_of(2, uids)
                index.messages.change(2, [entry(each.uid, modseq, value) for each in known])
            case "learn":
                index.messages.learn(2, [(uid, 100 + value, value) for uid in uids])
            case "expunge":
                index.expunge(2, uids, modseq)
            case "add":
                index.messages.add(2, [entry(modseq + 30, modseq, size=3)])


READS = {
    "columns": lambda messages, key, _uids: [list(column) for column in messages.columns(key)],
    "rows_of": lambda messages, key, uids: messages.rows_of(key, uids),
    "entries_of": lambda messages, key, uids: messages.entries_of(key, uids),
    "files_of": lambda messages, key, uids: messages.files_of(key, uids),
    "entries": lambda messages, key, _uids: messages.entries(key),
    "entries_in_new": lambda messages, key, _uids: messages.entries_in_new(key),
    "names in new": lambda messages, key, _uids: messages.file_names(key, 0),
    "names in cur": lambda messages, key, _uids: messages.file_names(key, 1),
    "by_base": lambda messages, key, uids: [messages.by_base(key, entry(uid, 0).base) for uid in uids],
    "changed_since": lambda messages, key, _uids: [messages.changed_since(key, modseq) for modseq in range(9, 20)],
    "has_changes": lambda messages, key, _uids: [
        messages.has_changes(key, modseq, count) for modseq in range(9, 20) for count in range(8)
    ],
    "uids": lambda messages, key, _uids: list(messages.uids(key)),
    "present": lambda messages, key, uids: messages.present(key, uids),
    "counts": lambda messages, key, _uids: messages.counts(key),
    "count_from": lambda messages, key, uids: [messages.count_from(key, uid) for uid in uids],
}


def all_told(index, uids):
    return {(name, key): read(index.messages, key, uids) for name, read in READS.items() for key in KEYS}


@pytest.mark.parametrize("seed", range(24))
def test_nobody_can_tell_whether_a_message_is_in_a_block(seed):
    random = Random(seed)
    neighbours, parts, steps, uids = blocks(random), blocks(random), steps_of(random), some_uids(random)
    with_blocks, plain = (Index.make_in_memory("") for _ in range(2))
    for index in (with_blocks, plain):
        with index.transaction():
            for key in KEYS:
                index.mailboxes.save(MailboxState(0, bytes([key]) * 16, str(key), 7, 50, 1, 1, 1))
    with with_blocks.transaction(), plain.transaction():
        for key, its in zip(KEYS, (neighbours, parts, neighbours), strict=True):
            add_blocks(with_blocks, key, its)
            for part in its:
                plain.messages.add(key, part)
    assert all_told(with_blocks, uids) == all_told(plain, uids)
    for modseq, step in enumerate(steps, start=15):
        for index in (with_blocks, plain):
            take(index, step, modseq)
        assert all_told(with_blocks, uids) == all_told(plain, uids)
    with with_blocks.transaction():
        with_blocks.mailboxes.remove(2)
    assert with_blocks.messages.counts(2) == (0, 0, 0)
    with plain.transaction():
        plain.mailboxes.remove(2)
    assert all_told(with_blocks, uids) == all_told(plain, uids)
    with_blocks.close()
    plain.close()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_message_that_gets_its_row_meanwhile_is_told_once(tmp_path, monkeypatch, read, before):
    path = str(tmp_path / "index.sqlite")
    other, index = Index.remake(path), Index.remake(path)
    parts = [[entry(uid, 10, place=uid % 2) for uid in range(start, start + 5)] for start in (1, 6, 11)]
    with other.transaction():
        other.mailboxes.save(MailboxState(0, b"g" * 16, "INBOX", 7, 50, 1, 1, 1))
        add_blocks(other, 1, parts)
    expected = read(index.messages, 1, [3, 5, 7])

    def open_all():
        monkeypatch.undo()
        with other.transaction():
            other.messages.change(1, [entry(uid, 10, place=uid % 2) for uid in range(1, 16)])

    def while_another_process_opens(asked):
        def ask(*arguments):
            if before:
                open_all()
                return asked(*arguments)
            found = asked(*arguments)
            open_all()
            return found

        return ask

    for name in ("touching", "of", "in_new", "since", "around", "count_since"):
        monkeypatch.setattr(
            index.messages._blocks, name, while_another_process_opens(getattr(index.messages._blocks, name))
        )
    told = read(index.messages, 1, [3, 5, 7])
    index.close()
    other.close()
    assert told == expected


def test_a_bundle_looks_at_no_more_uids_than_may_be_in_it():
    """Each of four thousand would else look at all of half a million."""
    looked_at = []

    class Counted(list):
        def __iter__(self):
            looked_at.append(len(self))
            return super().__iter__()

        def __getitem__(self, where):
            found = super().__getitem__(where)
            return Counted(found) if isinstance(where, slice) else found

    block = block_of([entry(uid, 10) for uid in (501, 503, 504)])
    assert list(block.among(Counted(range(1, 2000, 2)))) == [0, 1]
    assert looked_at == [2]


def test_a_change_opens_the_blocks_of_what_it_changes_alone():
    index = Index.make_in_memory("")
    with index.transaction():
        add_blocks(index, 1, [[entry(uid, 10), entry(uid + 5, 10)] for uid in (1, 11, 21, 31)])
        index.messages.change(1, [entry(31, 11), entry(6, 11)])
        index.messages.learn(1, [(8, 5, 5), (18, 5, 5), (99, 5, 5)])
        index.messages.learn(1, [(36, 7, 9)])
    assert index._connection.execute("SELECT id & 255, last & 255 FROM bundles").fetchall() == [(11, 16), (21, 26)]
    assert [row.uid for row in index.messages.changed_since(1, 10)] == [6, 31]
    with index.transaction():
        index.messages.learn(1, [(21, 5, 8)])
    known = {
        row.uid: (row.size, row.date) for row in index.messages.rows_of(1, range(1, 40)) if row.size != UNKNOWN_SIZE
    }
    assert known == {21: (5, 8), 36: (7, 9)}
    index.close()
