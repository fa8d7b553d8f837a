"""Hostile messages of a benchmark run, and the table that compares both kinds of mail."""

from __future__ import annotations

from benchmarks import corpus, hostile
from benchmarks.measurement import compare
from benchmarks.report import Row


def test_one_of_a_hundred_is_hostile() -> None:
    found = [seed for seed in range(1000) if hostile.message(seed) != corpus.message(seed)]
    assert found == list(range(50, 1000, 100))


def test_every_kind_is_there_and_the_same_in_each_run() -> None:
    messages = [hostile.message(seed) for seed in range(50, 2050, 100)]
    assert messages == [hostile.message(seed) for seed in range(50, 2050, 100)]
    assert len(set(messages)) == 20
    for kind in hostile.KINDS:
        assert sum(f"Subject: {kind}\n".encode() in each for each in messages) >= 2
    for each in messages:
        assert 50_000 < len(each) < 250_000
        assert b"\r" not in each
        assert b"\0" not in each


def test_growth_is_beside_the_ratios() -> None:
    section = compare([(Row("a", 10.0, 20.0, "us", 1.0, 1.0), Row("a", 30.0, 40.0, "us", 1.0, 1.0))], 100)
    assert section.lines == [["a", "10.0", "20.0", "0.50", "30.0", "40.0", "0.75", "3.00", "2.00"]]
