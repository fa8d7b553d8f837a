"""Columns: taking up changes, and what sharing promises."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store import columns as columns_module
from mailserver.store.columns import Columns, find_all, rising
from mailserver.store.flags import DELETED, SEEN, FlagChange
from mailserver.store.rows import LARGEST_SIZE, Changes, Row, Run, Snapshot
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq, UIDValidity


def row(uid: int, modseq: int, flags: int = 0, size: int = 10) -> Row:
    return Row(UID(uid), flags, ModSeq(modseq), size, 0)


def make(*uids: int, modseq: int = 10) -> Columns:
    rows = [row(uid, modseq) for uid in uids]
    return Columns(Snapshot.of(rows, ModSeq(modseq), (), UID(max(uids, default=0) + 1), UIDValidity(1)))


def changes(
    upto: int,
    rows: Sequence[Row] = (),
    expunged: Sequence[int] = (),
    keywords: tuple[str, ...] = (),
    uid_next: int = 100,
) -> Changes:
    return Changes(ModSeq(0), ModSeq(upto), rows, [UID(uid) for uid in expunged], keywords, UID(uid_next))


def test_positions():
    columns = make(2, 5, 9)
    assert [columns.position(uid) for uid in (1, 2, 5, 6, 9, 10)] == [-1, 0, 1, -1, 2, -1]
    assert make().position(1) == -1


def test_new_changed_and_gone():
    columns = make(1, 2, 3)
    assert columns.apply(changes(12, [row(1, 11, flags=8), row(4, 12)], [2]))
    assert list(columns.uids) == [1, 3, 4]
    assert list(columns.flags) == [8, 0, 0]
    assert list(columns.modseqs) == [11, 10, 12]
    assert columns.modseq == 12
    assert columns.uid_next == 100
    assert list(columns.changed) == [1]
    assert list(columns.expunged) == [2]


def test_older_and_repeated_changes_do_no_harm():
    columns = make(1, 2)
    old = changes(11, [row(1, 11, flags=1), row(3, 11)])
    new = changes(13, [row(1, 12, flags=2)], [3])
    assert columns.apply(new)
    for again in (old, new, old):
        assert not columns.apply(again)
    assert list(columns.uids) == [1, 2]
    assert list(columns.flags) == [2, 0]


def test_keywords_beyond_the_letters_before_and_after_an_expunge():
    for first in (0, 1 << 40):
        columns = Columns(Snapshot.of([row(1, 10, flags=first), row(2, 10)], ModSeq(10), (), UID(9), UIDValidity(1)))
        columns.apply(changes(11, [row(2, 11, flags=1 << 400 | SEEN)], expunged=[1]))
        columns.apply(changes(12, expunged=[2]))
        assert columns.expunged_flags(0) == {1: first, 2: 1 << 400 | SEEN}


def test_keywords_beyond_the_letters_for_expunged_messages():
    columns = make(1, 2)
    columns.apply(changes(11, expunged=[1]))
    columns.flag_expunged(0, [1], FlagChange.ADD, 1 << 40)
    assert columns.expunged_flags(0) == {1: 1 << 40}
    columns.apply(changes(12, expunged=[2]))
    assert columns.expunged_flags(0) == {1: 1 << 40, 2: 0}


def test_a_keyword_can_come_without_a_message():
    """Another program may write dovecot-keywords, and a UID may be burnt: no message changes by it."""
    columns = make(1)
    assert columns.apply(changes(10, keywords=("work",), uid_next=7))
    assert columns.keywords == ("work",)
    assert columns.uid_next == 7
    assert not columns.apply(changes(10, keywords=("work",), uid_next=5))
    assert columns.uid_next == 7


def test_appending_leaves_the_array_and_expunging_replaces_it():
    """Views rely on it: one that is behind keeps the array it has."""
    columns = make(1, 2, 3)
    array = columns.uids
    columns.apply(changes(11, [row(4, 11)]))
    assert columns.uids is array
    columns.apply(changes(12, expunged=[2]))
    assert columns.uids is not array
    assert list(array) == [1, 2, 3, 4]


@pytest.mark.parametrize("gone", [[1], [3], [1, 2, 3], [2, 3], [3, 1, 1], [99], [99, 2]])
def test_expunged_uids_in_any_order_and_unknown_ones(gone):
    columns = make(1, 2, 3)
    columns.apply(changes(11, expunged=gone))
    left = [uid for uid in (1, 2, 3) if uid not in gone]
    assert list(columns.uids) == left
    assert {len(getattr(columns, name)) for name in ("uids", "flags", "modseqs", "sizes", "dates")} == {len(left)}
    assert sorted(columns.expunged) == sorted({1, 2, 3} & set(gone))


@pytest.mark.parametrize("there", [[], [2], [1, 2, 3], [1, 3, 4], [2, 4]])
def test_those_that_are_not_there_are_expunged(there):
    columns = make(1, 2, 3)
    told = Changes(ModSeq(0), ModSeq(11), [row(4, 11)] if 4 in there else [], [], (), UID(100), array("I", there))
    for _ in range(2):
        columns.apply(told)
        assert list(columns.uids) == there
        assert {len(getattr(columns, name)) for name in ("flags", "modseqs", "sizes", "dates")} == {len(there)}
        assert list(columns.expunged) == [uid for uid in (1, 2, 3) if uid not in there]


def test_new_messages_after_all_are_gone():
    columns = make(1, 2)
    columns.apply(changes(11, expunged=[1, 2]))
    columns.apply(changes(12, [row(3, 12)]))
    assert list(columns.uids) == [3]


def test_an_unchanged_flag_is_not_logged():
    columns = make(1)
    columns.apply(changes(11, [row(1, 11, flags=0, size=99)]))
    assert not columns.changed
    assert columns.modseqs[0] == 11
    assert columns.sizes[0] == 99


def test_learning_a_size_is_no_change():
    columns = Columns(
        Snapshot.of([Row(UID(1), 0, ModSeq(1), UNKNOWN_SIZE, UNKNOWN_DATE)], ModSeq(1), (), UID(2), UIDValidity(1))
    )
    assert columns.sizes[0] == UNKNOWN_SIZE
    columns.learn(1, 77, 5)
    columns.learn(9, 77, 5)
    assert (columns.sizes[0], columns.dates[0]) == (77, 5)
    columns.learn(1, 77, 6)
    assert columns.dates[0] == 5, "RFC 3501 2.3.1.1: it must never change"
    assert not columns.changed


def test_a_file_beyond_32_bits_does_not_break_the_mailbox():
    """RFC 3501 9: number is 32 bits."""
    columns = make(1)
    columns.apply(changes(11, [row(2, 11, size=2**33), row(3, 11, size=UNKNOWN_SIZE)]))
    assert list(columns.sizes) == [10, LARGEST_SIZE, UNKNOWN_SIZE]


def test_the_change_log_is_bounded(monkeypatch):
    monkeypatch.setattr(columns_module, "LOG_LIMIT", 4)
    columns = make(1)
    for modseq in range(11, 100):
        columns.apply(changes(modseq, [row(1, modseq, flags=modseq % 2)]))
        assert len(columns.changed) <= 8
    assert columns.changed_end == 89 - (0 if 11 % 2 else 1)


def test_forgetting_expunges_that_all_have_told():
    columns = make(1, 2, 3)
    columns.apply(changes(11, expunged=[1, 2]))
    columns.forget_expunged(1)
    assert (columns.expunged_start, list(columns.expunged), columns.expunged_end) == (1, [2], 2)
    columns.forget_expunged(0)
    columns.forget_expunged(2)
    assert (columns.expunged_start, list(columns.expunged)) == (2, [])


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("flags"), st.integers(1, 40), st.sampled_from([0, SEEN, DELETED, SEEN | DELETED, 1 << 9])
            ),
            st.tuples(st.just("gone"), st.sets(st.integers(1, 40), max_size=9), st.none()),
            st.tuples(st.just("new"), st.integers(0, 3), st.sampled_from([0, SEEN, DELETED])),
            st.tuples(st.just("ask"), st.none(), st.none()),
        )
    )
)
@settings(max_examples=200)
def test_unseen_and_deleted_messages_are_known_without_a_look_at_all(steps):
    columns = make(*range(1, 100, 3))
    for modseq, (kind, what, flags) in enumerate(steps, 11):
        if kind == "flags":
            columns.apply(changes(modseq, [row(what, modseq, flags=flags)]))
        elif kind == "gone":
            columns.apply(changes(modseq, expunged=sorted(what)))
        elif kind == "new":
            last = columns.uid_next
            columns.apply(
                changes(modseq, [row(last + n, modseq, flags=flags) for n in range(what)], uid_next=last + what)
            )
        else:
            unseen = [at for at, mask in enumerate(columns.flags) if not mask & SEEN]
            assert columns.first_unseen() == (unseen[0] if unseen else -1)
        marked = [uid for uid, mask in zip(columns.uids, columns.flags, strict=True) if mask & DELETED]
        assert columns.deleted == len(marked)
        assert columns.deleted_uids() == marked


def test_the_first_unseen_message_of_many_seen_ones():
    columns = make(*range(1, 5001))
    columns.apply(changes(11, [row(uid, 11, flags=SEEN) for uid in range(1, 5000)]))
    assert columns.first_unseen() == 4999
    columns.apply(changes(12, [row(5000, 12, flags=SEEN)]))
    assert columns.first_unseen() == -1
    columns.apply(changes(13, [row(4000, 13)]))
    assert columns.first_unseen() == 3999


def facts(columns):
    return {
        name: list(getattr(columns, name))
        for name in ("uids", "flags", "modseqs", "sizes", "dates", "changed", "expunged", "keywords")
    } | {"deleted": columns.deleted, "unseen": columns.first_unseen(), "modseq": columns.modseq}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(
                st.tuples(
                    st.integers(1, 40),
                    st.sampled_from([0, SEEN, DELETED, SEEN | DELETED, SEEN | 1 << 40, DELETED | 1 << 500]),
                ),
                max_size=30,
            ),
            st.lists(st.integers(1, 40), max_size=20),
            st.integers(0, 2),
        ),
        max_size=6,
    )
)
def test_a_run_is_applied_as_its_rows_are_one_by_one(steps):
    """The bulk way, in steps of which some overlap what is known already, against the plain one."""
    one, other = (Columns(Snapshot.of([], 1, (), 1, 1)) for _ in range(2))
    expunged: set[int] = set()
    for number, (rows, gone, overlap) in enumerate(steps, 2):
        masks = dict(rows)
        changed = [Row(uid, masks[uid], number, 10 + uid, 20 + uid) for uid in sorted(masks) if uid not in expunged]
        # A UID that was not seen below one that was stays unknown, as it would be a message that came and went.
        expunged.update(gone)
        changes = Changes(max(one.modseq - overlap, 0), number, changed, gone, (), 41)
        one.apply(changes)
        other.apply(evolve(changes, run=Run.of(changed)))
        assert facts(one) == facts(other)


@given(st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)), st.integers(0, 60))
def test_finding_many_is_finding_each(there, wanted, count):
    uids, numbers = array("I", sorted(there)), array("I", sorted(wanted))
    count = min(count, len(uids))
    expected = [uids.index(uid) if uid in uids[:count] else -1 for uid in numbers]
    assert list(find_all(uids, numbers, count)) == expected


@given(st.lists(st.integers(1, 9)))
def test_rising_is_in_order_each_once(numbers):
    assert list(rising(array("I", numbers))) == sorted(set(numbers))


def test_many_gaps_are_closed_as_few_are():
    columns = Columns(
        Snapshot.of([Row(uid, DELETED if uid % 3 else 0, 1, uid, uid) for uid in range(1, 2001)], 1, (), 2001, 1)
    )
    columns.apply(Changes(1, 2, [], list(range(1, 2001, 2)), (), 2001))
    assert list(columns.uids) == list(columns.sizes) == list(columns.dates) == list(range(2, 2001, 2))
    assert columns.deleted == sum(bool(uid % 3) for uid in range(2, 2001, 2))


def test_only_many_rows_make_a_run(monkeypatch):
    monkeypatch.setattr("mailserver.store.rows.MANY_ROWS", 2)
    rows = [Row(1, SEEN, 5, 10, 20), Row(2, 0, 5, 10, 20)]
    assert Changes(1, 5, rows[:1], [], (), 3).packed().run is None
    packed = Changes(1, 5, rows, [], (), 3).packed()
    assert packed.run is not None
    assert list(packed.run.flags) == [SEEN, 0]


@pytest.mark.parametrize("in_a_run", [False, True])
def test_a_message_that_came_back_below_others_is_not_put_between_but_known_to_be_missing(in_a_run):
    columns = make(1, 3, 4)
    assert columns.apply(changes(11, [row(5, 11)], [3]))
    assert columns.whole
    rows = [row(1, 12, flags=1), row(3, 13), row(5, 14)]
    given = evolve(changes(14, rows), since=ModSeq(11))
    columns.apply(evolve(given, run=Run.of(rows)) if in_a_run else given)
    assert list(columns.uids) == [1, 4, 5]
    assert list(columns.flags) == [1, 0, 0]
    assert not columns.whole
