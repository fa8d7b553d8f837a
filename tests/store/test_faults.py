"""A disk that fails at each of the calls of each operation of the store: see `failing` for what must hold.

Each call fails once, many also in one of the other ways, which take turns. Of these faults every fifth is tried, in
turns with the four operations before, which make many of the same calls. A whole sweep (`make soak`) tries each call in all
ways, and after each power cut the index is there as well as not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests import sweeps
from tests.store.disk import scratch
from tests.store.failing import Run
from tests.store.faults import KINDS, Kind, Plan, failing_disk, failing_index
from tests.store.operations import OPERATIONS, Operation, make_base

TURNS = 5
"""Operations among which the faults are divided."""


@pytest.fixture(scope="module")
def bases():
    with scratch() as directory:
        found = {}
        for which in {operation.base for operation in OPERATIONS}:
            found[which] = os.path.join(directory, which)
            make_base(found[which], which)
        yield found


def broken_promises(run: Run, operation: Operation) -> list[str]:
    """One line for each."""
    calls = run.calls()
    assert calls
    plans = [Plan(kind, nth) for nth in range(len(calls)) for kind in ways(calls, nth)]
    chosen = plans if sweeps.WHOLE else plans[OPERATIONS.index(operation) % min(TURNS, len(plans)) :: TURNS]
    assert chosen
    return [
        f"{plan.kind} at {plan.nth} ({calls[plan.nth][0]} {calls[plan.nth][1][-50:]}): {what}"
        for plan in chosen
        for what in run.fail(plan)
    ]


def ways(calls: list[tuple[str, str]], nth: int) -> Iterator[Kind]:
    """How that call goes wrong."""
    if sweeps.WHOLE:
        yield from KINDS
        return
    if [alike(call) for call in calls[:nth]].count(alike(calls[nth])) > 0:
        # One of many messages, or of several mailboxes.
        return
    yield KINDS[0]
    if calls[nth][0].startswith("sync"):
        yield KINDS[-1 - nth % 2]
    elif nth % 8 == 0:
        yield KINDS[1 + nth // 8 % (len(KINDS) - 1)]


def alike(call: tuple[str, str]) -> tuple[str, str]:
    """What one call has in common with that for another message or mailbox."""
    operation, path = call
    return operation, re.sub(r"[0-9a-f]*[0-9][0-9a-zA-Z]*|^\..*", "", os.path.basename(path))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_disk_that_fails(bases, operation):
    with scratch() as directory, failing_disk() as faults:
        run = Run(bases[operation.base], os.path.join(directory, "run"), operation, faults, exhaustive=sweeps.WHOLE)
        broken = broken_promises(run, operation)
    assert not broken, f"{len(broken)} broken promises\n" + "\n".join(broken)


INDEXED = (
    "append one",
    "deliver several",
    "store",
    "expunge",
    "copy",
    "move",
    "replace",
    "rename",
    "delete",
    "new account",
)


@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS] if sweeps.WHOLE else INDEXED)
def test_an_index_that_fails(bases, name):
    """Files first, index after: whatever becomes of the index, the operation is whole."""
    [operation] = [each for each in OPERATIONS if each.name == name]
    with scratch() as directory, failing_index() as faults:
        run = Run(bases[operation.base], os.path.join(directory, "run"), operation, faults, exhaustive=sweeps.WHOLE)
        broken = broken_promises(run, operation)
    assert not broken, f"{len(broken)} broken promises\n" + "\n".join(broken)
