"""Sorting, against a naive implementation; and its steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.order import stable_sort as stable_sort_module
from mailserver.store.order.insertion import insert_messages
from mailserver.store.order.sorting import (
    FIELDS,
    KEYS,
    RELEVANCY,
    Criterion,
    Program,
    needs,
    sort_messages,
    without_repeats,
)
from mailserver.store.order.stable_sort import stable_sort
from mailserver.store.order.steps import Steps, Work
from mailserver.store.order.values import Source
from mailserver.store.rows import Row
from mailserver.types import UID, ModSeq


def run(work: Work[list[int]]) -> list[int]:
    steps = Steps(work)
    while not steps.step():
        pass
    return steps.result


ROW = st.fixed_dictionaries(
    {name: st.sampled_from(["", "A", "B", "Ä"]) for name in FIELDS.values() if name != "sent"}
    | {
        "sent": st.none() | st.integers(0, 3),
        "arrival": st.integers(0, 3),
        "size": st.integers(0, 2),
        "score": st.integers(1, 3),
    }
)
ALL_PROGRAMS = st.lists(st.builds(Criterion, st.sampled_from(sorted(KEYS)), st.booleans()), min_size=1, max_size=4).map(
    tuple
)
PROGRAMS = ALL_PROGRAMS.filter(lambda program: not needs(program, RELEVANCY))
"""Of orders that are kept."""


class Rows:
    """A mailbox of rows whose UIDs are 1, 3, 5 and so on; some messages are gone."""

    def __init__(self, rows: Sequence[dict[str, Any]], gone: set[int]) -> None:
        self.rows = rows
        self.gone = gone
        self.uids = [UID(2 * number + 1) for number in range(len(rows))]
        self.read = 0

    def sort_keys(self, part: Sequence[UID], names: Sequence[str]) -> list[tuple[Any, ...]]:
        self.read += len(part)
        return [
            (uid, *[self.rows[uid // 2][name] for name in names]) for uid in reversed(part) if uid // 2 not in self.gone
        ]

    def measure(self, part: Sequence[UID], *, only_dates: bool) -> list[Row]:
        assert only_dates
        return [Row(uid, 0, ModSeq(1), 0, self.rows[uid // 2]["arrival"]) for uid in part if uid // 2 not in self.gone]

    def value(self, at: int, key: str) -> Any:
        row = self.rows[at]
        if key == RELEVANCY:
            return -row["score"]
        if key in {"ARRIVAL", "SIZE"}:
            # These are known of a message that is gone.
            return row["arrival"] if key == "ARRIVAL" else row["size"]
        if at in self.gone:
            return 0 if key == "DATE" else ""
        return row["arrival"] if key == "DATE" and row["sent"] is None else row[FIELDS[key]]

    def sorted(self, program: Sequence[Criterion]) -> list[int]:
        order = list(range(len(self.rows)))
        for each in reversed(program):
            order.sort(key=partial(self.value, key=each.key), reverse=each.reverse)
        return order

    def columns(self) -> tuple[list[int], list[int]]:
        return [row["arrival"] for row in self.rows], [row["size"] for row in self.rows]


@given(st.lists(ROW, max_size=12), ALL_PROGRAMS, st.sets(st.integers(0, 11)))
def test_sorting_is_as_a_naive_one(rows: list[dict[str, Any]], program: Program, gone: set[int]) -> None:
    mailbox = Rows(rows, gone)
    source = Source(mailbox)
    scores = [row["score"] for row in mailbox.rows]
    work = sort_messages(source, mailbox.uids, program, *mailbox.columns(), relevancies=scores)
    assert run(work) == mailbox.sorted(program)
    read = any(each.key in FIELDS for each in program)
    assert source.is_complete == (not read or not gone & set(range(len(rows))))


@given(st.lists(ROW, max_size=12), PROGRAMS, st.integers(0, 12))
def test_insertion_is_as_sorting_anew(rows: list[dict[str, Any]], program: Program, known: int) -> None:
    mailbox = Rows(rows, set())
    old = Rows(rows[:known], set()).sorted(program)
    arrivals, sizes = mailbox.columns()
    program = without_repeats(program)
    work = insert_messages(Source(mailbox), mailbox.uids, old, program, arrivals=arrivals, sizes=sizes)
    assert run(work) == mailbox.sorted(program)


def test_insertion_reads_few_messages() -> None:
    row = {"sent": 0, "arrival": 0, "size": 0, "subject": "x"}
    mailbox = Rows([row | {"subject": f"{number * 7919 % 10_007:05}"} for number in range(10_000)], set())
    program = (Criterion("SUBJECT"),)
    old = Rows(mailbox.rows[:-3], set()).sorted(program)
    assert run(insert_messages(Source(mailbox), mailbox.uids, old, program, arrivals=(), sizes=())) == mailbox.sorted(
        program
    )
    assert mailbox.read <= 3 * 15


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 31, 32, 33, 100])
def test_a_sort_in_steps_is_stable(count: int, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stable_sort_module, "CHUNK", 4)
    monkeypatch.setattr(stable_sort_module, "MERGED", 16)
    column = [number * 7 % 5 for number in range(count)]
    work = stable_sort(list(range(count)), column, reverse=reverse)
    steps = Steps(work, clock=iter(range(10_000)).__next__)
    number = 1
    while not steps.step():
        number += 1
    assert steps.result == sorted(range(count), key=column.__getitem__, reverse=reverse)
    assert number >= count // 4
