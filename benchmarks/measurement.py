"""The measurement of scenarios: all servers in turn, round after round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from benchmarks.accounts import Accounts
from benchmarks.report import Row, Section
from benchmarks.scenarios.scenario import Scenario
from benchmarks.servers import TestedServer

LEAST = 0.05
"""Least seconds of CPU of the costlier server in a round; the work is repeated until then, as less says little."""
MOST_WORK = 10.0
"""Seconds after which the work of a round is not repeated any more."""


def work_once(scenario: Scenario, side: TestedServer, accounts: Accounts) -> tuple[int, float]:
    """Run a scenario once; return the number of operations and seconds of server CPU."""
    work = scenario.work(side, accounts)
    next(work)
    before = side.cpu()
    operations = next(work)
    spent = side.cpu() - before
    assert operations
    for _ in work:
        raise AssertionError("a scenario yields twice")
    return operations, spent


def measure(scenario: Scenario, sides: Sequence[TestedServer], accounts: Accounts, first: int) -> list[float]:
    """Return microseconds of server CPU per operation in one round: all servers in turn, until there is enough to compare."""
    operations, spent = [0] * len(sides), [0.0] * len(sides)
    start = time.monotonic()
    while max(spent) < LEAST and time.monotonic() - start < MOST_WORK:
        for number in range(len(sides)):
            at = (first + number) % len(sides)
            more, cost = work_once(scenario, sides[at], accounts)
            operations[at] += more
            spent[at] += cost
    return [cost / count * 1e6 for cost, count in zip(spent, operations, strict=True)]


def run(scenario: Scenario, sides: Sequence[TestedServer], accounts: Accounts, rounds: int | None) -> Row:
    """Return the medians, and the spread of the ratios; `sides` are ours, Dovecot, and perhaps ours with stock transports."""
    figures = [measure(scenario, sides, accounts, number) for number in range(rounds or scenario.rounds)]
    ours, theirs, *stock = (statistics.median(each) for each in zip(*figures, strict=True))
    ratios = [each[0] / each[1] for each in figures if each[1]]
    spread = max(ratios) / max(min(ratios), 1e-9) if ratios else float("inf")
    return Row(scenario.name, ours, theirs, "us", scenario.target, spread, *stock)


def compare(pairs: Sequence[tuple[Row, Row]], one_of: int) -> Section:
    """Return the table of scenarios on two kinds of mail; the second has a hostile message among so many."""
    lines = [
        [
            mild.name,
            f"{mild.ours:,.1f}",
            f"{mild.theirs:,.1f}",
            f"{mild.ratio:.2f}",
            f"{hostile.ours:,.1f}",
            f"{hostile.theirs:,.1f}",
            f"{hostile.ratio:.2f}",
            f"{hostile.ours / mild.ours:.2f}",
            f"{hostile.theirs / mild.theirs:.2f}",
        ]
        for mild, hostile in pairs
        if mild.ours and mild.theirs
    ]
    heads = [
        "scenario", "ours", "Dovecot", "ratio", "ours, hostile", "Dovecot, hostile", "ratio, hostile", "ours grows",
        "Dovecot grows",
    ]  # fmt: skip
    note = "Microseconds of CPU. Growth is the cost with hostile messages divided by that without."
    return Section(f"One of {one_of} messages is hostile", heads, lines, [note])
