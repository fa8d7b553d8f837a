"""A disk that fails at each of the calls of each operation of the store: see `failing` for what must hold.

Each call fails once, many also in one of the other ways, which take turns; with MAILSERVER_RUNS over the usual 25 (`make soak`)
in all of them, and after each power cut the index is there as well as not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.store.disk import scratch
from tests.store.failing import Run
from tests.store.faults import KINDS, Kind, Plan, failing_disk
from tests.store.operations import OPERATIONS, make_base

EXHAUSTIVE = int(os.environ.get("MAILSERVER_RUNS", "25")) > 25


@pytest.fixture(scope="module")
def bases():
    with scratch() as directory:
        found = {}
        for which in {operation.base for operation in OPERATIONS}:
            found[which] = os.path.join(directory, which)
            make_base(found[which], which)
        yield found


def ways(calls: list[tuple[str, str]], nth: int) -> Iterator[Kind]:
    """How that call goes wrong."""
    if EXHAUSTIVE:
        yield from KINDS
        return
    if [alike(call) for call in calls[:nth]].count(alike(calls[nth])) > 1:
        # One of many messages, or of several mailboxes.
        return
    yield KINDS[0]
    if calls[nth][0].startswith("sync"):
        yield KINDS[-1 - nth % 2]
    elif nth % 4 == 0:
        yield KINDS[1 + nth // 4 % (len(KINDS) - 1)]


def alike(call: tuple[str, str]) -> tuple[str, str]:
    """What one call has in common with that for another message or mailbox."""
    operation, path = call
    return operation, re.sub(r"[0-9a-f]*[0-9][0-9a-zA-Z]*|^\..*", "", os.path.basename(path))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_disk_that_fails(bases, operation):
    broken = []
    with scratch() as directory, failing_disk() as faults:
        run = Run(bases[operation.base], os.path.join(directory, "run"), operation, faults, exhaustive=EXHAUSTIVE)
        calls = run.calls()
        assert calls
        for nth, (name, path) in enumerate(calls):
            for kind in ways(calls, nth):
                broken += [f"{kind} at {nth} ({name} {path[-50:]}): {what}" for what in run.fail(Plan(kind, nth))]
    assert not broken, f"{len(broken)} broken promises in {len(calls)} calls\n" + "\n".join(broken)
