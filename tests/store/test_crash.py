"""A process is killed at every named point of every step; the next one finds what it must (DESIGN: no acknowledged
change is lost, none is half done, no UID is used twice, nothing deleted comes back, no dead lock is waited for).
"""

from __future__ import annotations

import os
import shutil

import pytest

from tests.store.aftermath import check_aftermath
from tests.store.crash import Visit, run_workload, worth_killing
from tests.store.disk import scratch
from tests.store.workload import STEPS, Violation, expectations

MUST_BE_VISITED = {
    "append one": "delivery.",
    "store": "store.",
    "copy": "copy.",
    "move": "move.",
    "expunge": "expunge.",
    "rename": "rename.",
    "delete": "delete.",
    "publish": "delivery.",
}


@pytest.fixture(scope="module")
def expected():
    return expectations()


@pytest.fixture(scope="module")
def visits(expected):
    with scratch() as base:
        log = run_workload(os.path.join(base, "mail"), os.path.join(base, "log"))
    assert not log.error, log.error
    assert len(log.pictures) == len(STEPS) + 1
    for picture, wanted, step in zip(log.pictures[1:], expected[1:], STEPS, strict=True):
        if step.name not in {"prepare", "prepare to abort"}:
            assert picture.canonical() == wanted.canonical(), step.name
    return log.visits


def test_every_step_has_its_points(visits):
    for number, step in enumerate(STEPS):
        points = {visit.point for visit in visits if visit.step == number}
        assert points, f"no named point in {step.name!r}"
        if step.name in MUST_BE_VISITED:
            assert any(point.startswith(MUST_BE_VISITED[step.name]) for point in points), (step.name, points)


def test_killed_at_every_point(visits, expected):
    failures = []
    kills = worth_killing(visits)
    with scratch() as base:
        for number, visit in enumerate(kills):
            root, log_path = os.path.join(base, f"mail{number}"), os.path.join(base, f"log{number}")
            log = run_workload(root, log_path, kill_at=visit)
            if log.done != visit.step:
                failures.append(f"{describe(visit)}: not killed there, but after step {log.done} {log.error}")
            try:
                check_aftermath(root, log, expected, STEPS)
            except Violation as violation:
                failures.append(f"{describe(visit)}: {violation}")
            except Exception as error:
                failures.append(f"{describe(visit)}: {type(error).__name__}: {error}")
            shutil.rmtree(root, ignore_errors=True)
    assert not failures, f"{len(failures)} of {len(kills)} kills\n" + "\n".join(failures)


def describe(visit: Visit) -> str:
    name = STEPS[visit.step].name if visit.step >= 0 else "opening"
    return f"in {name!r} at {visit.point} ({visit.nth})"
