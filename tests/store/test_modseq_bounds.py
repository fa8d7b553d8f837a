"""The messages that are newer than a modseq, found by blocks: the same ones as by looking at all."""

from __future__ import annotations

import itertools
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store import modseq_bounds
from mailserver.store.columns import Columns
from mailserver.store.modseq_bounds import ModSeqBounds
from mailserver.store.rows import Changes, Row, Snapshot
from mailserver.types import UID, ModSeq, UIDValidity


def positions(ranges: list[tuple[int, int]]) -> list[int]:
    assert all(low < high for low, high in ranges)
    assert all(high < low for (_low, high), (low, _high) in itertools.pairwise(ranges)), "they do not touch"
    return [at for low, high in ranges for at in range(low, high)]


STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 9), st.none()),
    st.tuples(st.just("change"), st.lists(st.integers(0, 40), min_size=1, max_size=6), st.booleans()),
    st.tuples(st.just("expunge"), st.lists(st.integers(0, 40), min_size=1, max_size=6), st.none()),
    st.tuples(st.just("find"), st.integers(0, 14), st.tuples(st.integers(0, 40), st.integers(0, 40))),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_newer_messages_are_those_with_a_higher_modseq(steps: list[tuple[str, object, object]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modseq_bounds, "BLOCK", 4)
        columns = Columns(Snapshot.of([], ModSeq(1), (), UID(1), UIDValidity(1)))
        for kind, what, more in steps:
            modseq = ModSeq(columns.modseq + 1)
            rows: list[Row] = []
            gone: list[UID] = []
            match kind, what:
                case "add", int():
                    rows = [Row(UID(columns.uid_next + at), 0, modseq, 1, 1) for at in range(what)]
                case "change", list():
                    uids = sorted({columns.uids[at % len(columns)] for at in what}) if len(columns) else []
                    rows = [Row(UID(uid), columns.flags[columns.position(uid)] ^ 1, modseq, 1, 1) for uid in uids]
                case "expunge", list():
                    gone = sorted({UID(columns.uids[at % len(columns)]) for at in what}) if len(columns) else []
                case "find", int():
                    low, high = more  # type: ignore[misc]
                    found = positions(columns.newer(ModSeq(max(0, columns.modseq - what)), low, high))
                    wanted = range(low, min(high, len(columns)))
                    assert found == [at for at in wanted if columns.modseqs[at] > columns.modseq - what]
                    continue
            uid_next = UID(max([columns.uid_next, *(row.uid + 1 for row in rows)]))
            changes = Changes(columns.modseq, modseq, rows, gone, (), uid_next)
            columns.apply(changes.packed() if more else changes)
        assert positions(columns.newer(ModSeq(0), 0, len(columns))) == list(range(len(columns)))


def test_a_second_call_reads_only_blocks_with_newer_messages() -> None:
    read: list[int] = []

    class Counting(array):  # type: ignore[type-arg]
        def __getitem__(self, at: object) -> object:
            if isinstance(at, slice):
                read.append(at.start)
            return super().__getitem__(at)

    modseqs = Counting("Q", range(1, 100_001))
    bounds = ModSeqBounds()
    assert bounds.newer(modseqs, 99_990, 0, 100_000) == [(99_990, 100_000)]
    read.clear()
    modseqs[5] = 200_000
    bounds.raised(5, 6, 200_000)
    assert bounds.newer(modseqs, 150_000, 0, 100_000) == [(5, 6)]
    assert read == [0, 1562 * 64]
    assert bounds.newer(modseqs, 200_000, 0, 90_000) == []
