"""The text index's file: ranges of what is indexed, and needles that are always found."""

from __future__ import annotations

import os
import sqlite3
from itertools import pairwise

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.text import fold
from mailserver.store.index import schema
from mailserver.store.index.fulltext import FullText, query_of
from mailserver.store.search_source import Where
from tests.store.disk import scratch

GUID, OTHER = b"a" * 16, b"b" * 16
EVERYTHING = (0, 0xFFFFFFFF)


def opened(path: str) -> tuple[FullText, int, int]:
    index = FullText.open(path, create=True)
    with index.writing():
        index.add_mailbox(GUID, 7)
        index.add_mailbox(OTHER, 7)
    first, second = [row[0] for row in index.mailboxes()]
    return index, first, second


uids = st.sets(st.integers(1, 40), min_size=1, max_size=12).map(sorted)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), uids), max_size=20), st.integers(1, 40), st.integers(1, 40))
def test_ranges_hold_what_is_indexed(steps, low, high):
    low, high = sorted((low, high))
    with scratch() as directory:
        index, *keys = opened(f"{directory}/text")
        there: dict[int, set[int]] = {key: set() for key in keys}
        for second, cover, some in steps:
            key = keys[second]
            with index.writing():
                if cover:
                    index.cover(key, some)
                    there[key].update(some)
                else:
                    index.remove(key, some)
                    there[key].difference_update(some)
        for key in keys:
            ranges = index.ranges(key, *EVERYTHING)
            assert [uid for first, last in ranges for uid in range(first, last + 1)] == sorted(there[key])
            assert all(end + 1 < start for (_, end), (start, _) in pairwise(ranges))
            assert index.ranges(key, low, high) == [pair for pair in ranges if pair[0] <= high and pair[1] >= low]
            assert index.highest(key) == max(there[key], default=0)
            assert index.indexed(key) == len(there[key])
        index.close()


LETTERS = "ab\"'*\0\n ßİ\u0301\ud800\ufffe\U0001f600é\u3042"
texts = st.text(st.sampled_from(LETTERS), max_size=12)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(texts, texts), min_size=1, max_size=5),
    st.integers(0, 4),
    st.booleans(),
    st.integers(0, 9),
    st.integers(3, 9),
)
def test_whoever_has_the_needle_is_found(messages, number, body, start, length):
    folded = [(fold(header), fold(text)) for header, text in messages]
    needle = folded[number % len(folded)][body][start : start + length]
    query = query_of(needle)
    if query is None:
        assert len(needle) < 3 or "\0" in needle or "\ud800" in needle
        return
    with scratch() as directory:
        index, key, other = opened(f"{directory}/text")
        with index.writing():
            for uid, (header, text) in enumerate(folded, 1):
                index.put(key, uid, header, text)
                index.put(other, uid, text, header)
            index.cover(key, range(1, len(folded) + 1))
        for where, halves in ((Where.HEADER, (0,)), (Where.BODY, (1,)), (Where.ANYWHERE, (0, 1))):
            found = index.find(GUID, 7, EVERYTHING, query, where)
            assert found is not None
            ranges, hits, highest = found
            assert ranges == [(1, len(folded))]
            assert highest == len(folded)
            having = {uid for uid, halved in enumerate(folded, 1) if any(needle in halved[half] for half in halves)}
            assert having <= set(hits) <= set(range(1, len(folded) + 1))
        index.close()


def test_a_long_needle_is_asked_for_in_a_few_places():
    query = query_of("".join(map(chr, range(0x400, 0x2400))))
    assert query is not None
    assert query.count(" AND ") == 15
    assert query_of("ab") is None
    assert query_of("") is None


def test_only_that_mailbox_and_those_uids_are_found(tmp_path):
    index, key, other = opened(str(tmp_path / "text"))
    with index.writing():
        for uid in (1, 5, 9):
            index.put(key, uid, "header", "needle")
            index.put(other, uid, "header", "needle")
        index.cover(key, [1, 5, 9])
        index.cover(other, [5])
    query = query_of("needle")
    assert index.find(GUID, 7, (2, 9), query, Where.BODY) == ([(5, 5), (9, 9)], [5, 9], 9)
    assert index.find(GUID, 7, (2, 9), query, Where.HEADER) == ([(5, 5), (9, 9)], [], 9)
    assert index.find(GUID, 7, (10, 20), query, Where.BODY) == ([], [], 0)
    assert index.find(GUID, 8, (1, 9), query, Where.BODY) is None
    assert index.find(b"c" * 16, 7, (1, 9), query, Where.BODY) is None
    with index.writing():
        index.remove(key, [5])
    assert index.find(GUID, 7, (2, 9), query, Where.BODY) == ([(9, 9)], [9], 9)
    with index.writing():
        index.cover(key, [5])
    for text, where in (("needle", Where.BODY), ("header", Where.HEADER)):
        found = index.find(GUID, 7, (2, 9), query_of(text), where)
        assert found is not None
        assert found[1] == [9], "nothing of it is left"


def test_a_mailbox_is_removed_in_parts(tmp_path):
    index, key, other = opened(str(tmp_path / "text"))
    with index.writing():
        for uid in range(1, 8):
            index.put(key, uid, "header", "needle")
        index.cover(key, [1, 2, 3, 5, 6, 7])
    done = []
    for _ in range(3):
        with index.writing():
            done.append(index.remove_mailbox(key, 3))
    assert done == [False, False, True]
    assert [row[0] for row in index.mailboxes()] == [other]
    assert index.ranges(key, *EVERYTHING) == []
    with index.writing():
        index.add_mailbox(GUID, 8)
    assert index.find(GUID, 8, EVERYTHING, query_of("needle"), Where.BODY) == ([], [], 0)
    assert index.mailboxes()[-1][0] > other, "no key is used again"


def test_merging_comes_to_an_end_and_loses_nothing(tmp_path):
    index, key, _other = opened(str(tmp_path / "text"))
    for uid in range(1, 60):
        with index.writing():
            index.put(key, uid, f"header {uid}", "needle" if uid % 7 else "something else")
            index.cover(key, [uid])
    with index.writing():
        index.remove(key, range(20, 30))
    steps = 0
    while True:
        with index.writing():
            more = index.merge()
        steps += 1
        if not more:
            break
        assert steps < 1000
    found = index.find(GUID, 7, EVERYTHING, query_of("needle"), Where.BODY)
    assert found is not None
    assert found[1] == [uid for uid in range(1, 60) if uid % 7 and not 20 <= uid < 30]


def test_one_process_writes(tmp_path):
    path = str(tmp_path / "text")
    index, key, _other = opened(path)
    second = FullText.open(path)
    with index.writing():
        index.put(key, 1, "header", "needle")
        index.cover(key, [1])
        with pytest.raises(schema.Busy), second.writing():
            pass
        assert second.find(GUID, 7, EVERYTHING, query_of("needle"), Where.BODY) == ([], [], 0)
    assert second.find(GUID, 7, EVERYTHING, query_of("needle"), Where.BODY) == ([(1, 1)], [1], 1)


def test_what_is_not_committed_is_not_there(tmp_path):
    index, key, _other = opened(str(tmp_path / "text"))

    def fail() -> None:
        with index.writing():
            index.put(key, 1, "header", "needle")
            index.cover(key, [1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert index.find(GUID, 7, EVERYTHING, query_of("needle"), Where.BODY) == ([], [], 0)


def test_another_version_is_not_ours(tmp_path):
    path = str(tmp_path / "text")
    index, *_keys = opened(path)
    index.close()
    assert os.stat(path).st_mode & 0o077 == 0
    FullText.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(schema.NotOurs):
        FullText.open(path)
    with pytest.raises(apsw.CantOpenError):
        FullText.open(str(tmp_path / "none"))
